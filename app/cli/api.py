"""Serve the HTTP API."""

from app.api.main import serve
from app.cli._settings import load_settings, settings_errors, start_errors


def api() -> None:
    settings = load_settings()
    with settings_errors(), start_errors():
        serve(settings)
