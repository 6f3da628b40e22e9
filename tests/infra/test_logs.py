"""Logs: one shape for everybody's lines, and no secret in any of them."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.accounts import keys
from app.infra import logs
from app.infra.db import Database
from app.settings import Settings

SECRET_KEY = "configured-RdM3pTq9vXz2LbW7yKc5Nf8HjGs4Aa1Ee6Uu"
LIBRARIES = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "arq", "sqlalchemy", "asyncio", "py.warnings")


def settings(**changes: Any) -> Settings:
    return Settings(
        **{
            "secret_key": SECRET_KEY,
            "database": {"url": "postgresql://filmgate:hunter2hunter2@db/filmgate"},
            "redis": {"url": "redis://:hunter3hunter3@redis/0"},
            "connections": {"acme": {"provider": "acme", "api_key": "acme-0123456789-credential"}},
            "assets": {"store_options": {"aws_secret_access_key": "bucket/0123456789+credential"}},
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Loggers are global: put them back."""
    found = {name: logging.getLogger(name) for name in LIBRARIES}
    before = {name: (list(log.handlers), log.level, log.propagate) for name, log in found.items()}
    configuration = structlog.get_config()
    structlog.contextvars.clear_contextvars()
    yield
    logging.captureWarnings(capture=False)
    for name, log in found.items():
        log.handlers, log.level, log.propagate = before[name]
        log.setLevel(log.level)
    structlog.configure(**configuration)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def line(stream: io.StringIO) -> dict[str, Any]:
    [only] = lines(stream)
    return only


def fail(error: Exception) -> None:
    raise error


# The shape ------------------------------------------------------------------------------------------------------------


def test_a_line_is_json_with_everything_that_is_known(stream: io.StringIO) -> None:
    logs.setup(settings(), "api", stream)
    structlog.contextvars.bind_contextvars(request_id="req-1")
    structlog.get_logger().info(
        "video stored", asset="ast_1", bytes=123, cost=Decimal("1.50"), at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    logged = line(stream)
    assert datetime.fromisoformat(logged.pop("timestamp")).tzinfo == UTC
    assert logged == {
        "event": "video stored",
        "level": "info",
        "process": "api",
        "request_id": "req-1",
        "asset": "ast_1",
        "bytes": 123,
        "cost": "1.50",
        "at": "2026-01-01 00:00:00+00:00",
    }


def test_lines_of_libraries_have_the_same_shape(stream: io.StringIO) -> None:
    logs.setup(settings(), "worker", stream)
    structlog.contextvars.bind_contextvars(request_id="req-1")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("sqlalchemy.pool").warning("connection lost")
    logging.getLogger("arq.worker").error("redis away")
    shown = [(line["logger"], line["level"], line["event"]) for line in lines(stream)]
    assert shown == [
        ("uvicorn.error", "info", "Started server process [7]"),
        ("sqlalchemy.pool", "warning", "connection lost"),
        ("arq.worker", "error", "redis away"),
    ]
    assert all(line["process"] == "worker" and line["request_id"] == "req-1" for line in lines(stream))
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo == UTC for line in lines(stream))


def test_chatter_of_libraries_is_not_logged(stream: io.StringIO) -> None:
    logs.setup(settings(log_level="debug"), "api", stream)
    logging.getLogger("uvicorn.access").info("GET /v1/callbacks/secret-token")
    logging.getLogger("arq.worker").info("0.01s → step()")
    assert stream.getvalue() == ""
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_the_level_holds_indefinitelyy_library(stream: io.StringIO) -> None:
    logs.setup(settings(log_level="error"), "api", stream)
    structlog.get_logger().warning("no")
    logging.getLogger("uvicorn.error").warning("no")
    structlog.get_logger().error("ours")
    logging.getLogger("uvicorn.error").error("theirs")
    assert [line["event"] for line in lines(stream)] == ["ours", "theirs"]


def test_warnings_are_lines_too(stream: io.StringIO) -> None:
    logs.setup(settings(), "api", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old way" in line(stream)["event"]


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    logs.setup(settings(), "api", stream)
    try:
        fail(ValueError("boom"))
    except ValueError:
        structlog.get_logger().exception("ours")
        logging.getLogger("uvicorn.error").exception("theirs")
    for logged in lines(stream):
        assert logged["exception"].startswith("Traceback (most recent call last):")
        assert logged["exception"].endswith("ValueError: boom")
        assert logged["level"] == "error"


def test_the_console_gets_lines_for_people_and_no_secrets_either(stream: io.StringIO) -> None:
    logs.setup(settings(log_format="console"), "api", stream)
    secret = "a local variable that must not be shown"
    try:
        fail(ValueError(f"token={keys.generate()}"))
    except ValueError:
        structlog.get_logger().exception("video lost", api_key=secret)
    shown = stream.getvalue()
    assert "video lost" in shown
    assert "ValueError: token=[redacted]" in shown
    assert secret not in shown.replace(f'secret = "{secret}"', "")
    assert "fgk_" not in shown


def test_a_second_setup_replaces_the_first(stream: io.StringIO) -> None:
    log = structlog.get_logger()
    logs.setup(settings(), "api", io.StringIO())
    log.info("before")
    logs.setup(settings(), "api", stream)
    log.info("ours")
    logging.getLogger("uvicorn.error").info("theirs")
    assert [line["event"] for line in lines(stream)] == ["ours", "theirs"]


# Canaries -------------------------------------------------------------------------------------------------------------

KEY = keys.generate()
CANARIES = {
    "api key": KEY,
    "webhook secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "provider key": "sk-proj-0123456789abcdefghij",
    "secret_key": SECRET_KEY,
    "connection's credential": "acme-0123456789-credential",
    "bucket's credential": "bucket/0123456789+credential",
    "database password": "hunter2hunter2",
    "redis password": "hunter3hunter3",
    "bearer": "Zm9vYmFyYmF6cXV4",
    "signature": "3f5a0c7d9e1b",
    "named": "correct-horse-battery",
}
TEXTS = {
    "api key": f"the key is {KEY}.",
    "webhook secret": "signed with whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD!",
    "provider key": "Incorrect API key provided: sk-proj-0123456789abcdefghij.",
    "secret_key": f"<<{SECRET_KEY}>>",
    "connection's credential": "x acme-0123456789-credential y",
    "bucket's credential": "x bucket/0123456789+credential y",
    "database password": "cannot connect to postgresql+asyncpg://filmgate:hunter2hunter2@db:5432/filmgate?x=1",
    "redis password": "redis://:hunter3hunter3@redis:6379/0 is away",
    "bearer": "{'Authorization': 'Bearer Zm9vYmFyYmF6cXV4', 'x': 1}",
    "signature": "GET https://store/video.mp4?X-Amz-Date=1&X-Amz-Signature=3f5a0c7d9e1b&x=1",
    "named": '{"password": "correct-horse-battery"}',
}


@dataclass(frozen=True)
class Holder:
    api_key: str


class Speaking(Exception):
    pass


def as_event(log: Any, canary: str) -> None:
    log.info(canary)


def as_value(log: Any, canary: str) -> None:
    log.info("x", value=canary)


def as_key(log: Any, canary: str) -> None:
    log.info("x", value={canary: 1})


def nested(log: Any, canary: str) -> None:
    log.info("x", value={"a": [{"b": ({"c": {canary}},)}]}, raw=canary.encode(), list=[(b"header", canary.encode())])


def as_object(log: Any, canary: str) -> None:
    log.info("x", value=Holder(canary), path=Path(canary), error=Speaking(canary))


def as_exception(log: Any, canary: str) -> None:
    try:
        try:
            fail(Speaking(canary))
        except Speaking as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        log.exception("x")


def by_a_library(_log: Any, canary: str) -> None:
    logging.getLogger("aiohttp").warning("it said %r %s", canary, {"x": canary})


def by_a_librarys_exception(_log: Any, canary: str) -> None:
    try:
        fail(Speaking(canary))
    except Speaking:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")


def bound(log: Any, canary: str) -> None:
    structlog.contextvars.bind_contextvars(bound=canary)
    log.bind(other=canary).warning("x")


WAYS: list[Callable[[Any, str], None]] = [
    as_event,
    as_value,
    as_key,
    nested,
    as_object,
    as_exception,
    by_a_library,
    by_a_librarys_exception,
    bound,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_canary_gets_into_the_log(
    stream: io.StringIO, way: Callable[[Any, str], None], canary: str, log_format: str
) -> None:
    logs.setup(settings(log_format=log_format), "api", stream)
    way(structlog.get_logger(), TEXTS[canary])
    assert stream.getvalue()
    assert CANARIES[canary] not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Authorization", "Proxy-Authorization", "api_key", "x-api-key", "apikey", "secret"),
        *("secret_key", "webhook_secret", "password", "db_password", "token", "callback_token", "signature", "sig"),
        *("X-Amz-Signature", "cookie", "Set-Cookie", "credential", "credentials", "prompt", "negative_prompt"),
    ],
)
def test_a_field_of_such_a_name_is_hidden_whatever_it_holds(stream: io.StringIO, name: str) -> None:
    logs.setup(settings(), "api", stream)
    structlog.get_logger().info("x", **{name: "a boat at dawn"}, headers={name: ["a boat at dawn"]})
    assert "a boat" not in stream.getvalue()
    assert line(stream)[name] == "[redacted]"
    assert line(stream)["headers"] == {name: "[redacted]"}


def test_what_operators_need_is_left_alone(stream: io.StringIO) -> None:
    logs.setup(settings(), "api", stream)
    needed = {
        "job": "job_01h455vb4pex5vsknk084sn02q",
        "key_id": "key_01h455vb4pex5vsknk084sn02q",
        "request_id": "0b9f4e6c2d3f4b0e9a53c7a1f0b8d2e4",
        "route": "/v1/jobs/{job_id}",
        "url": "https://store.example:8443/videos/1.mp4?range=0-100",
        "idempotency_key": "order-17",
        "prompt_chars": 120,
        "tokens_used": 3,
        "ok": True,
        "nothing": None,
        "duration_ms": 1.5,
        "note": "the token was refused; the secret is older than 24 h",
        "uuid": str(UUID(int=1)),
    }
    structlog.get_logger().info("x", **needed)
    logged = line(stream)
    assert {name: logged[name] for name in needed} == needed


async def test_a_failed_query_does_not_show_its_parameters(stream: io.StringIO, database: Database) -> None:
    logs.setup(settings(), "api", stream)
    parameters = {"prompt": "a boat at dawn"}
    try:
        async with database.read() as conn:
            await conn.execute(text("select cast(:prompt as text), 1 / 0"), parameters)
    except DBAPIError:
        structlog.get_logger().exception("query failed")
    assert "division by zero" in line(stream)["exception"]
    assert "a boat" not in stream.getvalue()
