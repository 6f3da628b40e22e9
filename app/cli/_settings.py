"""Loads settings for commands, and turns what stops a server at its start into the documented exit codes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

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


@contextmanager
def start_errors() -> Iterator[None]:
    """End with exit code 1 where uvicorn, which has logged why the server cannot start, would end with 3."""
    try:
        yield
    except SystemExit as error:
        raise typer.Exit(1 if error.code else 0) from None
