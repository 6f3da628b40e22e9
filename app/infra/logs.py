"""Logging: one line per event, in one format for Filmgate and all libraries."""

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from app.infra.redaction import Redactor, secrets_in
from app.settings import Settings

# Libraries that are too verbose: a line per request, which the middleware logs; a line per ring, late ones as well.
_QUIET = {"uvicorn.access": logging.CRITICAL, "arq": logging.ERROR, "asyncio": logging.WARNING}


def setup(settings: Settings, process: str, stream: TextIO | None = None) -> None:
    """Send the logs of this process to ``stream`` (standard error by default), with ``process`` in every line.

    Standard output is reserved for the results of commands. A second call replaces the configuration. Servers and
    libraries must not configure logging themselves (``uvicorn.run(…, log_config=None)``).
    """
    target = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    redactor = Redactor(secrets_in(settings))

    def name_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: redactor.field(name, value) for name, value in event.items()}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
    ]
    last: list[Processor] = [
        # Before redaction: tracebacks may contain secrets.
        structlog.processors.format_exc_info,
        redact,
        _renderer(settings),
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,  # so that a second setup, and log capture in tests, affect every logger
    )
    _adopt_standard_library(shared, last, level, target)


def _renderer(settings: Settings) -> Processor:
    if settings.log_format == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _adopt_standard_library(shared: Iterable[Processor], last: Iterable[Processor], level: int, target: TextIO) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "arq", "sqlalchemy"):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, quiet))
    # Without a handler uvicorn does not format its access lines at all.
    logging.getLogger("uvicorn.access").propagate = False
    logging.captureWarnings(capture=True)
