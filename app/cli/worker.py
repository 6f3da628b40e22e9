"""Run a worker: submits, polls and stores jobs, delivers webhooks."""

from app.cli._settings import load_settings, settings_errors, start_errors
from app.worker.main import serve


def worker() -> None:
    settings = load_settings()
    with settings_errors(), start_errors():
        serve(settings)
