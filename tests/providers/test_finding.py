"""Looking for a lost submission in a provider's list: what proves that it is there, and what proves that it is not."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import ids
from app.providers.base import Absent, Access, FindOutcome, Found, Inconclusive, Order, Search
from app.providers.openai_compatible import OpenAICompatible
from app.providers.transport import Clients
from tests.providers.contract import owning
from tests.support.raw_server import RawServer, Say, reply, running_raw_server

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: A record that is the order but for its time: the provider's clock may be wrong, so it proves nothing.
DOUBT = Inconclusive("may be one of: video_1")
ORDER = Order(model="m", prompt="a film", seconds=8, width=1280, height=720)


def record(name: str = "video_1", minutes: float = 0, **more: Any) -> dict[str, Any]:
    """A record that is just what was ordered, made some minutes after noon."""
    made = int((NOON + timedelta(minutes=minutes)).timestamp())
    return {
        "id": name,
        "created_at": made,
        "model": "m",
        "prompt": "a film",
        "seconds": "8",
        "size": "1280x720",
        **more,
    }


def page(*records: dict[str, Any], has_more: bool | None = False) -> Say:
    more = {} if has_more is None else {"has_more": has_more}
    return reply(json.dumps({"object": "list", "data": records, **more}).encode())


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with running_raw_server() as server:
        yield server


async def find(server: RawServer, clients: Clients, *pages: Say, owned: frozenset[str] = frozenset()) -> FindOutcome:
    server.will_say(*pages)
    provider = OpenAICompatible.open(Access(base_url=server.url, credential="k", profile="openai"), clients)
    latest = NOON + timedelta(minutes=1)
    return await provider.find(Search(ORDER, ids.new_id(), NOON, latest), owning(*owned))


async def test_list_is_asked_for_newest_first_in_large_pages(server: RawServer, clients: Clients) -> None:
    await find(server, clients, page())
    assert [heard.line for heard in server.heard] == ["GET /videos?limit=100&order=desc HTTP/1.1"]


async def test_empty_list_is_proof_of_absence(server: RawServer, clients: Clients) -> None:
    assert await find(server, clients, page()) == Absent()


async def test_exact_record_is_found(server: RawServer, clients: Clients) -> None:
    others = [record("video_0", prompt="another"), record("video_2", seconds="4", prompt="x")]
    assert await find(server, clients, page(*others, record())) == Found("video_1")


async def test_oldest_of_equal_records_is_taken(server: RawServer, clients: Clients) -> None:
    equal = [record("video_3", 0.9), record("video_2", 0.5), record("video_1", 0.1)]
    assert await find(server, clients, page(*equal)) == Found("video_1")
    assert await find(server, clients, page(*equal), owned=frozenset({"video_1"})) == Found("video_2")


async def test_owned_records_are_nobody_else_s(server: RawServer, clients: Clients) -> None:
    assert await find(server, clients, page(record()), owned=frozenset({"video_1"})) == Absent()


@pytest.mark.parametrize(
    ("minutes", "outcome"),
    [(-4, Found("video_1")), (5, Found("video_1")), (-6, DOUBT), (7, DOUBT)],
)
async def test_window_leaves_room_for_clocks_that_disagree(
    minutes: float, outcome: FindOutcome, server: RawServer, clients: Clients
) -> None:
    assert await find(server, clients, page(record(minutes=minutes))) == outcome


@pytest.mark.parametrize(
    "doubtful",
    [
        record(seconds="4"),
        record(size="720x1280"),
        record(model="m-2026-01-01"),
        record(prompt=None),
        {"id": "video_1", "created_at": None},
        {"id": "video_1"},
    ],
)
async def test_record_that_may_be_the_one_is_neither_taken_nor_denied(
    doubtful: dict[str, Any], server: RawServer, clients: Clients
) -> None:
    assert isinstance(await find(server, clients, page(doubtful)), Inconclusive)


@pytest.mark.parametrize(
    "other", [record(prompt="another"), record(prompt=None, seconds="4"), record(prompt=None, model="n")]
)
async def test_record_that_contradicts_the_order_is_not_the_one(
    other: dict[str, Any], server: RawServer, clients: Clients
) -> None:
    assert await find(server, clients, page(other)) == Absent()


async def test_record_on_a_later_page_is_found(server: RawServer, clients: Clients) -> None:
    first = page(record("video_9", 0.9, prompt="another"), has_more=True)
    assert await find(server, clients, first, page(record())) == Found("video_1")
    assert server.heard[1].line == "GET /videos?limit=100&order=desc&after=video_9 HTTP/1.1"


async def test_list_is_read_no_further_than_it_matters(server: RawServer, clients: Clients) -> None:
    old = page(record("video_9", prompt="another"), record("video_8", -60, prompt="another"), has_more=True)
    assert await find(server, clients, old) == Absent()
    assert len(server.heard) == 1


async def test_list_that_does_not_say_whether_it_ends_is_read_until_it_is_empty(
    server: RawServer, clients: Clients
) -> None:
    first = page(record("video_9", 0.9, prompt="another"), has_more=None)
    assert await find(server, clients, first, page(record(), has_more=None), page(has_more=None)) == Found("video_1")


async def test_list_that_never_ends_proves_nothing(server: RawServer, clients: Clients) -> None:
    assert isinstance(await find(server, clients, page(record(prompt="another"), has_more=True)), Inconclusive)
    assert len(server.heard) == 10


async def test_list_in_the_wrong_order_hides_nothing(server: RawServer, clients: Clients) -> None:
    oldest_first = page(record("video_8", -60, prompt="x"), record("video_9", -50, prompt="x"), has_more=True)
    assert await find(server, clients, oldest_first, page(record())) == Found("video_1")


async def test_failure_on_a_later_page_proves_nothing(server: RawServer, clients: Clients) -> None:
    first = page(record("video_9", 0.9, prompt="another"), has_more=True)
    assert isinstance(await find(server, clients, first, reply(b"{}", status="503 Away")), Inconclusive)
    assert isinstance(await find(server, clients, first, Say()), Inconclusive)
