"""Loads settings for commands. Invalid settings end the command with exit code 2."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.settings import Settings, SettingsError
from app.settings_loader import load
from app.terminal import fail


def load_settings() -> Settings:
    """Load the settings from file and environment; invalid settings end the command."""
    with settings_errors():
        return read_settings()


def read_settings() -> Settings:
    """Load the settings from file and environment.

    Raises:
        SettingsError: a key is missing, unknown or invalid.
    """
    # A variable of the HTTP client. As a setting it would be the unknown key `[api] key`.
    os.environ.pop("FILMGATE_API_KEY", None)
    return load()


@contextmanager
def settings_errors() -> Iterator[None]:
    """Report settings that turn out to be invalid when a resource is opened with them."""
    try:
        yield
    except SettingsError as error:
        fail(error, 2)
