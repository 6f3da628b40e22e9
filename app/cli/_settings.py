"""Settings for commands: loaded once, and wrong ones reported with exit code 2."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.settings import Settings, SettingsError
from app.settings_loader import load
from app.terminal import fail


def load_settings() -> Settings:
    """The settings of file and environment; wrong ones end the command."""
    # The client's variable, and no setting: `[api] key` would be a spelling mistake.
    os.environ.pop("FILMGATE_API_KEY", None)
    with settings_errors():
        return load()


@contextmanager
def settings_errors() -> Iterator[None]:
    """Report settings that turn out to be wrong when something is opened with them."""
    try:
        yield
    except SettingsError as error:
        fail(error, 2)
