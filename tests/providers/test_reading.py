"""Whatever a provider sends, an adapter reads it without raising, and never takes nonsense for a fact."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import reading
from app.providers.base import Accepted, Access, Callback, Finished, Found, Provider, ProviderRequest
from app.providers.http_clients import Clients
from app.providers.kling import Kling
from app.providers.openai_compatible import OpenAICompatible
from app.providers.runway import Runway
from app.providers.transport import Reply

WORDS = (
    st.sampled_from(
        ["id", "status", "object", "error", "detail", "message", "code", "type", "headers", "data", "output"]
    )
    | st.sampled_from(["url", "urls", "progress", "cost", "credits", "failure", "failureCode", "created_at", "deleted"])
    | st.sampled_from(
        ["has_more", "estimatedCost", "outputs", "billing", "amount", "charge_type", "currency", "result"]
    )
    | st.sampled_from(["external_id", "create_time", "next_cursor"])
)
VALUES = st.sampled_from(
    [
        "video_1",
        "queued",
        "completed",
        "failed",
        "SUCCEEDED",
        "FAILED",
        "CANCELLED",
        "video",
        "succeeded",
        "cash",
        "USD",
        "https://a/b",
        0,
        "",
        "4",
        "9" * 400,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=8),
    max_leaves=30,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "openai-poll-after-ms"]),
    st.text(max_size=30) | st.sampled_from(["1e999", "-1", "nan", "inf", "1", "Sun, 99 Nov 99999 25:00:00 GMT"]),
)
REPLIES = st.builds(
    Reply,
    st.sampled_from([200, 204, 400, 401, 404, 409, 429, 500]),
    HEADERS,
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50),
)
ORDER = ProviderRequest("m", "a video", 4, 1280, 720)
REF = UUID("018f3c5e-7a1b-7cde-8f00-0123456789ab")


@pytest.fixture(scope="session")
def providers(clients: Clients) -> list[Provider]:
    access = [Access("http://a/v1", "k", profile) for profile in ("openai", "sglang", "vllm_omni")]
    own = [adapter.open(Access(credential="k"), clients) for adapter in (Runway, Kling)]
    return [*(OpenAICompatible.open(one, clients) for one in access), *own]


@given(answer=REPLIES)
def test_no_reply_makes_an_adapter_raise(answer: Reply, providers: list[Provider]) -> None:
    for provider in providers:
        created = provider.read_created(answer)
        if isinstance(created, Accepted):
            assert reading.remote_id(created.remote_id)
        status = provider.read_status("video_1", answer)
        if isinstance(status, Finished):
            assert status.results
        provider.read_canceled("video_1", answer)
        for record in getattr(provider.read_page(answer), "records", ()):
            provider.likeness(record.shown, ORDER)
        for named in (provider.read_reference(answer, REF), provider.read_callback(answer.headers, answer.body)):
            if isinstance(named, Found | Callback):
                assert reading.remote_id(named.remote_id)
        json.dumps(getattr(created, "raw", None))


@pytest.mark.parametrize("value", ["video_1", "a/b?c#d", "x" * 2000, "id:provider", "a%2Fb", "MTA=", "..."])
def test_ids_that_are_names(value: str) -> None:
    assert reading.remote_id(value) == value


@pytest.mark.parametrize("value", [None, 7, "", ".", "..", "a b", "a\n", "é", "x" * 2001, ["video_1"]])
def test_ids_that_are_not(value: Any) -> None:
    assert reading.remote_id(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, "1"), (0.1, "0.1"), (0, "0"), (1e999, None), (-1, None), (True, None), ("1", None), (10**400, None)],
)
def test_numbers(value: Any, number: str | None) -> None:
    assert reading.number(value) == (None if number is None else Decimal(number))


def test_text_is_safe_for_databases_and_logs() -> None:
    assert reading.text("a\0b\ud800c\x1b[31m\td\ne") == "a�b�c�[31m d e"
    assert reading.text("a\x9b31m\u202eb\u2066c\u2028d\x85e") == "a�31m�b�c d e"
    assert len(reading.text("x" * 10_000)) == 2000
    assert reading.text({"not": "text"}) == ""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e300"}, 86_400),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
        ({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, 86_400),
    ],
)
def test_time_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert reading.retry_after(Reply(429, headers, b"")) == expected


def test_date_to_wait_for() -> None:
    date = datetime.now(UTC) + timedelta(minutes=10)
    asked = reading.retry_after(Reply(429, {"retry-after": format_datetime(date, usegmt=True)}, b""))
    assert asked is not None
    assert timedelta(minutes=5) < asked <= timedelta(minutes=10)
