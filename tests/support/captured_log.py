"""The log of a gateway that runs in the test's own process, as its operator would read it."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.infra import logs
from app.settings import Settings


@contextmanager
def captured_log(settings: Settings) -> Iterator[io.StringIO]:
    """What API and worker log in this block, with the level and the format of the settings."""
    root = logging.getLogger()
    ours = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "arq", "sqlalchemy", "asyncio")
    clients = ("httpx2", "httpcore2")
    before = [(logger, logger.level, logger.propagate) for logger in map(logging.getLogger, (*ours, *clients))]
    handlers, configuration = root.handlers, structlog.get_config()
    stream = io.StringIO()
    logs.setup(settings, "test", stream)
    for name in clients:
        logging.getLogger(name).propagate = False  # the test's own side of each request
    try:
        yield stream
    finally:
        logging.captureWarnings(capture=False)
        structlog.configure(**configuration)
        root.handlers = handlers
        for logger, level, propagate in before:
            logger.setLevel(level)
            logger.propagate = propagate
