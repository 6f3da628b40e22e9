"""Looking for a lost submission in a provider's list: what proves that it is there, and what proves that it is not."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from app import ids
from app.providers.base import (
    Absent,
    Access,
    FindOutcome,
    Found,
    Inconclusive,
    ProviderRequest,
    Rival,
    Search,
    Unlisted,
)
from app.providers.http_clients import Clients
from app.providers.openai_compatible import OpenAICompatible
from tests.providers.contract import Books
from tests.support.raw_server import RawServer, Say, reply, running_raw_server

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDER = ProviderRequest(model="m", prompt="a cat ", seconds=2, width=1280, height=720)
#: Accepted so long before the order that it is older whatever the provider's clocks say.
LONG_AGO = {"video_old": NOON - timedelta(hours=1)}
#: A status reply about a cursor: it is still there.
ALIVE = reply(json.dumps({"object": "video", "status": "completed"}).encode())
GONE = reply(b'{"error": {"message": "Video not found", "code": 404}}', status="404 Not Found")


def record(name: str = "video_1", minutes: float = 0, **more: Any) -> dict[str, Any]:
    """A record that is just what was ordered, made some minutes after noon."""
    made = int((NOON + timedelta(minutes=minutes)).timestamp())
    return {
        "id": name,
        "created_at": made,
        "model": "m",
        "prompt": "a cat ",
        "seconds": "2",
        "size": "1280x720",
        **more,
    }


def others(count: int, minutes: float, prefix: str = "other") -> list[dict[str, Any]]:
    """Records of other prompts, the newest first, each a second older than the one before it."""
    return [record(f"{prefix}_{n}", minutes - n / 60, prompt="x") for n in range(count)]


def page(*records: dict[str, Any], has_more: bool | None = False, headers: Sequence[str] = ()) -> Say:
    more = {} if has_more is None else {"has_more": has_more}
    return reply(json.dumps({"object": "list", "data": records, **more}).encode(), *headers)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with running_raw_server() as server:
        yield server


class Asking:
    """A connection to a server with a list, and what we know of its records."""

    def __init__(self, server: RawServer, clients: Clients) -> None:
        self._server = server
        self._clients = clients

    async def __call__(
        self,
        *pages: Say,
        order: ProviderRequest = ORDER,
        owned: Mapping[str, datetime] | None = None,
        rivals: Sequence[Rival] = (),
        profile: str = "vllm_omni",
        exclusive: bool = False,
        proves_absence: bool | None = None,
    ) -> FindOutcome:
        self._server.will_say(*pages)
        access = Access(base_url=self._server.url, credential="k", profile=profile, exclusive_account=exclusive)
        provider = OpenAICompatible.open(access, self._clients)
        if proves_absence is not None:
            provider.traits = replace(provider.traits, lookup_proves_absence=proves_absence)
        minute = timedelta(minutes=1)
        search = Search(order, ids.new_id(), NOON, NOON + minute, NOON + 2 * minute)
        return await provider.find(search, Books(owned or {}, rivals))


@pytest.fixture
def find(server: RawServer, clients: Clients) -> Asking:
    return Asking(server, clients)


def rival(*, interchangeable: bool = False, **changes: Any) -> Rival:
    return Rival(replace(ORDER, **changes), interchangeable)


# Found ----------------------------------------------------------------------------------------------------------------


async def test_list_is_asked_for_newest_first_in_large_pages(server: RawServer, find: Asking) -> None:
    await find(page())
    assert [heard.line for heard in server.heard] == ["GET /videos?limit=100&order=desc HTTP/1.1"]


@pytest.mark.parametrize("profile", ["openai", "generic", "vllm_omni"])
async def test_record_that_shows_all_that_was_sent_is_found(profile: str, find: Asking) -> None:
    strangers = [record("video_0", prompt="another"), record("video_2", seconds="4", prompt="x")]
    assert await find(page(*strangers, record()), profile=profile) == Found("video_1")


@pytest.mark.parametrize("shown", [{"prompt": "a cat"}, {"prompt": " a\n cat"}, {"seconds": "2.0"}, {"seconds": 2}])
async def test_what_means_the_same_is_the_same(shown: dict[str, Any], find: Asking) -> None:
    assert await find(page(record(**shown))) == Found("video_1")


async def test_composed_and_decomposed_letters_are_the_same(find: Asking) -> None:
    order = replace(ORDER, prompt="caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert await find(page(record(prompt="cafe\N{COMBINING ACUTE ACCENT}")), order=order) == Found("video_1")


async def test_owned_records_belong_to_no_other_submission(find: Asking) -> None:
    assert await find(page(record()), owned={"video_1": NOON}) == Absent()


async def test_records_of_interchangeable_orders_are_taken_oldest_first(find: Asking) -> None:
    equal = [record("video_2", 0.5), record("video_1", 0.1)]
    twin = [rival(interchangeable=True)]
    assert await find(page(*equal), rivals=twin) == Found("video_1")
    assert await find(page(*equal), rivals=twin, owned={"video_1": NOON}) == Found("video_2")


async def test_more_equal_records_than_submissions_are_a_doubt_on_a_shared_account(find: Asking) -> None:
    equal = page(record("video_2", 0.5), record("video_1", 0.1))
    assert isinstance(await find(equal), Inconclusive)
    assert await find(equal, exclusive=True) == Found("video_1")


@pytest.mark.parametrize(
    "other",
    [
        rival(),  # of another account, or ordered before orders had a hash
        rival(seed=2),
        rival(seconds=4),
        rival(prompt="a cat on a mat"),
        rival(prompt="a   cat"),
    ],
)
async def test_record_that_may_be_another_submission_s_is_taken_by_neither(other: Rival, find: Asking) -> None:
    assert isinstance(await find(page(record()), rivals=[other]), Inconclusive)


@pytest.mark.parametrize("profile", ["vllm_omni", "openai"])
async def test_submission_of_another_prompt_is_no_rival(profile: str, find: Asking) -> None:
    """Providers trim and cut prompts: none makes one order's prompt out of another's."""
    assert await find(page(record()), rivals=[rival(prompt="a dog")], profile=profile) == Found("video_1")
    cut = [rival(prompt="a cat and then very much more")]
    assert isinstance(await find(page(record()), rivals=cut, profile=profile), Inconclusive)


@pytest.mark.parametrize("wish", [{"seed": 1}, {"negative_prompt": "rain"}, {"audio": True}, {"options": {"fps": 24}}])
async def test_what_a_list_does_not_show_is_certain_on_an_exclusive_account_only(
    wish: dict[str, Any], find: Asking
) -> None:
    order = replace(ORDER, **wish)
    assert isinstance(await find(page(record()), order=order), Inconclusive)
    assert await find(page(record()), order=order, exclusive=True) == Found("video_1")


async def test_orders_that_differ_in_the_seed_only_never_take_each_other_s_record(find: Asking) -> None:
    order = replace(ORDER, seed=1)
    both = page(record("video_2"), record("video_1"))
    assert isinstance(await find(both, order=order, rivals=[rival(seed=2)], exclusive=True), Inconclusive)


async def test_sglang_shows_no_prompt_so_only_an_exclusive_account_is_certain(find: Asking) -> None:
    shown = record(seconds="3")  # Hunyuan on 8 GPUs makes 3 s of 2
    del shown["prompt"]
    assert isinstance(await find(page(shown), profile="sglang"), Inconclusive)
    assert await find(page(shown), profile="sglang", exclusive=True) == Found("video_1")
    in_flight = [rival(prompt="a dog")]
    assert isinstance(await find(page(shown), profile="sglang", exclusive=True, rivals=in_flight), Inconclusive)


# Doubts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proves_absence", [True, False])
@pytest.mark.parametrize("profile", ["openai", "vllm_omni"])
@pytest.mark.parametrize(
    "shown",
    [
        {"seconds": "3"},
        {"seconds": "soon"},
        {"seconds": True},
        {"model": "m-2025-12-08"},
        {"prompt": None},
        {"prompt": ""},
        {"prompt": 7},
        {"prompt": "a"},
        {"size": None},
        {"size": "720x1280"},
        {"created_at": None},
        {"created_at": "noon"},
    ],
)
async def test_record_that_looks_a_little_different_is_a_doubt(
    shown: dict[str, Any], profile: str, proves_absence: bool, find: Asking
) -> None:
    listed = page(record(**shown))
    assert isinstance(await find(listed, profile=profile, proves_absence=proves_absence), Inconclusive)


async def test_prompt_that_was_cut_is_a_doubt(find: Asking) -> None:
    order = replace(ORDER, prompt="a cat " * 50)
    cut = record(prompt=order.prompt[:100])
    assert isinstance(await find(page(cut), order=order), Inconclusive)


async def test_record_whose_id_cannot_be_used_is_a_doubt_and_spoils_no_other(find: Asking) -> None:
    assert isinstance(await find(page(record("video 1"))), Inconclusive)
    assert await find(page(record("video 2", prompt="x"), record())) == Found("video_1")
    assert await find(page(record("video 2", prompt="x"))) == Absent()


@pytest.mark.parametrize("minutes", [-6, 8, -60 * 24 * 365])
async def test_record_of_another_time_is_a_doubt(minutes: float, find: Asking) -> None:
    assert isinstance(await find(page(record(minutes=minutes))), Inconclusive)


@pytest.mark.parametrize("minutes", [-4, 5])
async def test_window_leaves_room_for_clocks_that_disagree(minutes: float, find: Asking) -> None:
    assert await find(page(record(minutes=minutes))) == Found("video_1")


@pytest.mark.parametrize("hours", [-3, 3])
async def test_clock_that_is_hours_off_is_seen_in_the_date_of_the_reply(hours: float, find: Asking) -> None:
    date = format_datetime(NOON + timedelta(minutes=2, hours=hours), usegmt=True)
    listed = page(record(minutes=60 * hours), headers=[f"Date: {date}"])
    assert await find(listed) == Found("video_1")


# Absent ---------------------------------------------------------------------------------------------------------------


async def test_empty_list_proves_absence_where_the_list_shows_everything(find: Asking) -> None:
    assert await find(page()) == Absent()
    assert isinstance(await find(page(), profile="openai"), Inconclusive)
    assert await find(page(), profile="openai", proves_absence=True) == Absent()


@pytest.mark.parametrize(
    "incomplete",
    [
        page(has_more=True),
        reply(b'{"object":"list","data":[],"error":{"message":"shard away"}}'),
        reply(b'{"object":"list","data":[]}', status="202 Accepted"),
        reply(b'{"object":"list","data":[]}', status="206 Partial Content"),
        reply(b'{"object":"list","data":[]}', "Age: 300"),
    ],
)
async def test_empty_list_that_contradicts_itself_proves_nothing(incomplete: Say, find: Asking) -> None:
    assert isinstance(await find(incomplete), Inconclusive)


async def test_another_prompt_is_another_order_only_where_prompts_are_echoed_exactly(find: Asking) -> None:
    assert await find(page(record(prompt="another"))) == Absent()
    assert isinstance(await find(page(record(prompt="another")), profile="openai", proves_absence=True), Inconclusive)


async def test_record_on_a_later_page_is_found(server: RawServer, find: Asking) -> None:
    first = page(record("video_9", 0.9, prompt="x"), has_more=True)
    assert await find(first, page(record())) == Found("video_1")
    assert server.heard[1].line == "GET /videos?limit=100&order=desc&after=video_9 HTTP/1.1"


async def test_clock_that_is_behind_does_not_hide_a_record_on_a_later_page(find: Asking) -> None:
    """The provider's clock is 7 minutes behind, and 150 newer records come before ours."""
    first = page(*others(100, -5), has_more=True)
    second = page(*others(50, -6.9, "more"), record(minutes=-7), *others(3, -7.1, "older"))
    outcome = await find(first, second)
    assert isinstance(outcome, Inconclusive)
    assert "video_1" in outcome.detail


async def test_list_is_read_no_further_than_to_a_record_that_is_older_for_certain(
    server: RawServer, find: Asking
) -> None:
    listed = page(*others(3, 1), record("video_old", -60), *others(3, -61, "older"), has_more=True)
    assert await find(listed, owned=LONG_AGO) == Absent()
    assert len(server.heard) == 1


async def test_record_that_a_replica_s_clock_put_behind_an_older_one_is_still_a_doubt(find: Asking) -> None:
    listed = page(*others(3, 1), record("video_old", -60), record("video_1", -61), has_more=True)
    assert isinstance(await find(listed, owned=LONG_AGO), Inconclusive)


async def test_record_that_is_older_by_its_clock_alone_ends_nothing(server: RawServer, find: Asking) -> None:
    assert await find(page(record("other", -600, prompt="x"), has_more=True), page(record())) == Found("video_1")
    assert len(server.heard) == 2


async def test_record_accepted_just_before_is_not_older_for_certain(find: Asking) -> None:
    """Two replicas may have clocks of their own."""
    just_before = {"video_old": NOON - timedelta(minutes=1)}
    listed = page(record("video_old", -1), has_more=True)
    assert await find(listed, page(record(minutes=-2)), owned=just_before) == Found("video_1")


async def test_old_record_in_an_unsorted_list_ends_nothing(find: Asking) -> None:
    listed = page(record("video_old", -60), *others(2, 1), has_more=True)
    assert await find(listed, page(record()), owned=LONG_AGO) == Found("video_1")


async def test_old_record_in_a_list_without_times_ends_nothing(find: Asking) -> None:
    untimed = record("video_old")
    del untimed["created_at"]
    assert await find(page(untimed, has_more=True), page(record()), owned=LONG_AGO) == Found("video_1")


async def test_list_that_does_not_say_whether_it_ends_is_read_until_it_is_empty(
    server: RawServer, find: Asking
) -> None:
    first = page(record("video_9", 0.9, prompt="x"), has_more=None)
    pages = (page(record(prompt="y"), has_more=None), page(has_more=None), ALIVE)
    assert await find(first, *pages) == Absent()
    assert server.heard[-1].line == "GET /videos/video_1 HTTP/1.1"


@pytest.mark.parametrize("has_more", [None, False])
@pytest.mark.parametrize("status", [GONE, Say(), reply(b"<html>", status="502 Bad Gateway")])
async def test_empty_page_after_a_cursor_that_was_deleted_is_not_the_end(
    has_more: bool | None, status: Say, find: Asking
) -> None:
    first = page(record("video_9", 0.9, prompt="x"), has_more=True)
    assert isinstance(await find(first, page(has_more=has_more), status), Inconclusive)


async def test_server_that_ignores_the_cursor_proves_nothing(find: Asking) -> None:
    assert isinstance(await find(page(*others(3, 1), has_more=None)), Inconclusive)


async def test_record_that_is_listed_twice_is_one_record(find: Asking) -> None:
    assert await find(page(record(), record())) == Found("video_1")


async def test_list_that_never_ends_proves_nothing(server: RawServer, find: Asking) -> None:
    endless = [page(*others(2, 60 - n, f"page{n}"), has_more=True) for n in range(10)]
    assert isinstance(await find(*endless), Inconclusive)
    assert len(server.heard) == 10


async def test_failure_on_a_later_page_proves_nothing(find: Asking) -> None:
    first = page(record("video_9", 0.9, prompt="x"), has_more=True)
    assert isinstance(await find(first, reply(b"{}", status="503 Away")), Inconclusive)
    assert isinstance(await find(first, Say()), Inconclusive)


@pytest.mark.parametrize("profile", ["litellm", "newapi"])
async def test_server_without_a_list_is_not_asked(profile: str, server: RawServer, find: Asking) -> None:
    assert isinstance(await find(page(), profile=profile), Inconclusive)
    assert server.heard == []


async def test_audit_is_not_fooled_by_a_deleted_cursor_either(server: RawServer, clients: Clients) -> None:
    server.will_say(page(record("video_9", 0.9), has_more=True), page(), GONE)
    provider = OpenAICompatible.open(Access(base_url=server.url, credential="k", profile="openai"), clients)
    with pytest.raises(Unlisted):
        await provider.records(NOON, NOON)
