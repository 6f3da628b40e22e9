"""Servers that misbehave on demand: over the wire, in every dialect that has the notion."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from app.sandbox.counts import Counts
from app.sandbox.script import read
from tests.sandbox.server import KEY, LOOK_AGAIN, Answer, Client, connected, order_of

LISTING = ("openai", "sglang", "vllm", "tensorrt", "kling")
PROMPTED = ("openai", "vllm", "tensorrt")
VIDEOS = ("openai", "sglang", "vllm", "newapi", "tensorrt", "litellm")
EVERY = (*VIDEOS, "runway", "kling")
UNKNOWN: dict[str, int] = {
    "newapi": 400,
    "litellm": 500,
    "kling": 200,
}  # 404 elsewhere; Kling leaves an unknown task out

every_dialect = pytest.mark.parametrize("dialect", EVERY)
every_list = pytest.mark.parametrize("dialect", LISTING)


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks one dialect for the same things in its own way."""

    client: Client
    dialect: str

    async def create(self, prompt: str, **options: Any) -> Answer:
        if self.dialect == "kling":
            task = {"prompt": prompt, "settings": {"duration": 3}, "options": options}
            return await self.client.post("kling/text-to-video/kling-3.0", json=task)
        if self.dialect == "runway":
            order = {"model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2}
            return await self.client.post("runway/v1/text_to_video", json=order)
        return await self.client.post(f"{self.dialect}/v1/videos", **order_of(self.dialect, prompt))

    async def buy(self, prompt: str, **options: Any) -> str:
        """Create a job; gives its id."""
        created = await self.create(prompt, **options)
        assert created.status in {200, 202}, created.body
        return str(created.json.get("data", created.json)["id"])

    async def status(self, remote_id: str) -> Answer:
        if self.dialect == "kling":
            return await self.client.get("kling/tasks", params={"task_ids": remote_id})
        return await self.client.get(self.path(remote_id))

    async def knows(self, remote_id: str) -> bool:
        answer = await self.status(remote_id)
        if self.dialect == "kling":
            return bool(answer.json["data"])
        assert answer.status in {200, UNKNOWN.get(self.dialect, 404)}
        return answer.status == 200

    def path(self, remote_id: str) -> str:
        place = "runway/v1/tasks" if self.dialect == "runway" else f"{self.dialect}/v1/videos"
        return f"{place}/{remote_id}"

    async def records(self) -> list[dict[str, Any]]:
        """What the list shows, in its order."""
        if self.dialect == "kling":
            return list((await self.client.post("kling/tasks", json={})).json["data"]["result"])
        return list((await self.client.get(f"{self.dialect}/v1/videos")).json["data"])

    async def ids(self) -> list[str]:
        """The ids in the list, newest first."""
        ids = [one["id"] for one in await self.records()]
        return ids[::-1] if self.dialect == "tensorrt" else ids


@pytest.fixture
async def client(instant_url: str) -> AsyncIterator[Client]:
    async with connected(instant_url) as client:
        await client.delete("ledger")
        yield client


@pytest.fixture
def caller(client: Client) -> Callable[[str], Caller]:
    return lambda dialect: Caller(client, dialect)


# Lists ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bracket", "field", "shown"),
    [
        ("[list:rename]", "model", "sora-2-2025-12-08"),
        ("[list:round]", "seconds", "2"),
        ("[list:decimal]", "seconds", "1.0"),
        ("[list:trim]", "prompt", "[never] [list:trim] a fox"),
        ("[list:cut]", "prompt", "[never] [list"),
        ("[list:unsized]", "size", None),
        ("[list:rotate]", "size", "64x128"),
    ],
)
async def test_a_list_shows_another_record_than_the_status(
    client: Client, bracket: str, field: str, shown: str | None
) -> None:
    order = {"prompt": f"[never] {bracket} a fox  ", "size": "128x64", "seconds": "1"}
    created = await client.post("openai/v1/videos", json=order)
    (record,) = (await client.get("openai/v1/videos")).json["data"]
    assert record[field] == shown
    status = (await client.get(f"openai/v1/videos/{created.json['id']}")).json
    assert status[field] == created.json[field] != shown
    assert status["prompt"] == order["prompt"]


@pytest.mark.parametrize("dialect", PROMPTED)
async def test_a_list_leaves_the_prompt_out_or_cuts_it(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    await server.buy("[never] [list:omit]")
    assert "prompt" not in (await server.records())[0]
    long = f"[never] [list:cut] {'x' * 200}"
    remote_id = await server.buy(long)
    (record,) = [one for one in await server.records() if one["id"] == remote_id]
    assert record["prompt"] == long[:100]


async def test_a_list_rounds_a_duration_too(caller: Callable[[str], Caller]) -> None:
    server = caller("tensorrt")
    await server.buy("[never] [list:round]")
    assert (await server.records())[0]["duration"] == 2.0


@pytest.mark.parametrize("dialect", ["vllm", "newapi", "litellm"])
async def test_a_forms_prompt_keeps_its_outer_spaces(client: Client, dialect: str) -> None:
    await client.buy(" a fox ", dialect)
    assert (await client.get("ledger")).json["entries"][0]["prompt"] == " a fox "


@every_list
async def test_a_record_is_listed_twice_or_last(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    first = await server.buy("[never] 1")
    double = await server.buy("[never] [list:double]")
    last = await server.buy("[never] [list:last]")
    newest = await server.buy("[never] 2")
    ids = [one["id"] for one in await server.records()]
    assert ids == (
        [first, double, double, newest, last] if dialect == "tensorrt" else [newest, double, double, first, last]
    )


async def test_pages_end_in_spite_of_double_records(client: Client) -> None:
    bought = [(await client.buy(f"[never] [list:double] {number}")).rsplit("/", 1)[1] for number in range(3)]
    listed: list[str] = []
    query = "limit=1"
    while True:
        page = (await client.get(f"openai/v1/videos?{query}")).json
        listed += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=1&after={page['last_id']}"
    assert listed == bought[::-1]


@every_list
async def test_an_unlisted_record_is_known_by_its_id_only(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    hidden = await server.buy("[never] [unlisted:1000]")
    shown = await server.buy("[never] [unlisted:0]")
    assert await server.ids() == [shown]
    assert await server.knows(hidden)


async def test_a_list_catches_up(client: Client) -> None:
    path = await client.buy("[never] [unlisted:0.2]")
    while True:
        listed = (await client.get("openai/v1/videos")).json["data"]
        if listed:
            break
        await asyncio.sleep(LOOK_AGAIN)
    assert [one["id"] for one in listed] == [path.rsplit("/", 1)[1]]


async def test_kling_finds_no_unlisted_task_by_its_callers_name(client: Client) -> None:
    kling = Caller(client, "kling")
    for prompt, name in (("[never] [unlisted:1000]", "hidden"), ("[never] [list:double]", "double")):
        await kling.buy(prompt, external_task_id=name)
    hidden, double = [
        (await client.get("kling/tasks", params={"external_task_ids": name})).json["data"]
        for name in ("hidden", "double")
    ]
    assert (len(hidden), len(double)) == (0, 2)
    again = await kling.create("[never]", external_task_id="hidden")
    assert again.status == 400


@pytest.mark.parametrize("dialect", ["openai", "sglang", "vllm", "kling"])
async def test_lists_are_sorted_by_the_servers_own_clock(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    normal = await server.buy("[never]")
    behind = await server.buy("[never] [behind:420]")
    ahead = await server.buy("[never] [ahead:3600]")
    newest = await server.buy("[never] again")
    assert await server.ids() == [ahead, newest, normal, behind]


@every_dialect
async def test_times_are_off_in_the_status_too(caller: Callable[[str], Caller], dialect: str) -> None:
    server, now = caller(dialect), time.time()
    body = (await server.status(await server.buy("[never] [behind:420]"))).json
    if dialect == "runway":
        assert body["createdAt"] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - 400))
    else:
        created = body["data"][0]["create_time"] / 1000 if dialect == "kling" else body["created_at"]
        assert now - 422 <= created <= now - 410


# Ids and refusals -----------------------------------------------------------------------------------------------------


@every_dialect
async def test_an_id_can_be_long_or_odd(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    long, odd = await server.buy("[never] [id:long]"), await server.buy("[never] [id:odd]")
    assert len(long) == 242
    assert " " in odd
    assert await server.knows(long)
    assert await server.knows(odd)


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("flat", {"code", "message", "data"}),
        ("object", {"object", "message", "type", "code"}),
        ("zod", {"success", "error"}),
        ("text", {"error", "message"}),
    ],
)
@every_dialect
async def test_a_create_is_refused_in_a_foreign_shape(
    caller: Callable[[str], Caller], client: Client, dialect: str, word: str, keys: set[str]
) -> None:
    for _ in range(2):
        refused = await caller(dialect).create(f"[refuse:{word}]")
        assert (refused.status, refused.json.keys()) == (400, keys)
    assert (await client.get("ledger/summary")).json["accepted"] == 0


@every_dialect
async def test_a_refusal_that_says_timeout_is_none(
    caller: Callable[[str], Caller], client: Client, dialect: str
) -> None:
    refused = await caller(dialect).create("[never] [refuse:timeout]")
    assert (refused.status, refused.json["message"]) == (400, "upstream request timed out")
    (entry,) = (await client.get("ledger")).json["entries"]
    assert entry["charged"] is True
    assert await caller(dialect).knows(entry["remote_id"])


# Echoes ---------------------------------------------------------------------------------------------------------------


def tells_the_key(body: Any) -> bool:
    return f"Bearer {KEY}" in str(body)


@every_dialect
async def test_a_debug_echo_tells_the_requests_headers(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    created = await server.create("[never] [echo]")
    assert created.json["request_headers"]["authorization"] == f"Bearer {KEY}"
    remote_id = created.json.get("data", created.json)["id"]
    assert tells_the_key((await server.status(remote_id)).json)
    silent = await server.create("[never]")
    assert not tells_the_key(silent.json)
    if dialect in LISTING:
        told = [tells_the_key(record) for record in await server.records() if record["id"] == remote_id]
        assert told == [True]
        assert sum(map(tells_the_key, await server.records())) == 1
    if dialect in VIDEOS:
        early = await server.client.get(f"{server.path(remote_id)}/content")
        assert early.status >= 400
        assert tells_the_key(early.json)


@every_dialect
async def test_a_refusal_can_tell_the_key(caller: Callable[[str], Caller], client: Client, dialect: str) -> None:
    refused = await caller(dialect).create("[echo:refuse]")
    assert refused.status == 400
    assert tells_the_key(refused.json)
    assert "request_headers" not in refused.json
    assert (await client.get("ledger/summary")).json["accepted"] == 0


# Servers that do not know their jobs ----------------------------------------------------------------------------------


@every_dialect
async def test_every_second_request_reaches_the_other_replica(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    remote_id = await server.buy("[never] [replicas:2]")
    other = await server.buy("[never]")
    assert [await server.knows(remote_id) for _ in range(4)] == [True, False, True, False]
    assert [await server.knows(other) for _ in range(2)] == [True, True]
    if dialect in LISTING:
        assert [len(await server.records()) for _ in range(4)] == [2, 1, 2, 1]


def test_replicas_are_counted_per_job_and_kind() -> None:
    counts, script = Counts(), read("[replicas:3]")
    asked = [counts.reaches_home("a", script, "job") for _ in range(4)]
    assert asked == [True, False, False, True]
    assert counts.reaches_home("a", script, "list")
    assert counts.reaches_home("b", script, "job")
    assert all(counts.reaches_home("c", read("a fox"), "job") for _ in range(3))


@every_dialect
async def test_a_finished_video_lies_elsewhere_at_first(caller: Callable[[str], Caller], dialect: str) -> None:
    server = caller(dialect)
    remote_id = await server.buy("a fox [elsewhere:2]")
    if dialect == "kling":
        url = (await server.status(remote_id)).json["data"][0]["outputs"][0]["url"]
    else:
        done = (await server.client.wait_until(server.path(remote_id))).json
        url = done["output"][0] if dialect == "runway" else f"{server.path(remote_id)}/content"
    assert [(await server.client.get(url)).status for _ in range(3)] == [404, 404, 200]


@every_dialect
async def test_a_server_that_restarts_forgets_its_first_job(
    caller: Callable[[str], Caller], client: Client, dialect: str
) -> None:
    server, prompt = caller(dialect), "[never] [forget]"
    first, second = await server.buy(prompt), await server.buy(prompt)
    assert [await server.knows(second), await server.knows(second)] == [True, True]
    assert [await server.knows(first), await server.knows(first)] == [True, False]
    if dialect in LISTING:
        assert await server.ids() == [second]
    lost, kept = (await client.get("ledger")).json["entries"]
    assert (lost["remote_id"], lost["state"], lost["final_cost"]) == (first, "canceled", "0")
    assert kept["final_cost"] is None
    assert lost["canceled"] is False


# Last words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", VIDEOS)
@pytest.mark.parametrize("word", ["succeeded", "done"])
async def test_a_finished_job_says_so_in_another_word(caller: Callable[[str], Caller], dialect: str, word: str) -> None:
    server = caller(dialect)
    path = server.path(await server.buy(f"a fox [final:{word}]"))
    assert (await server.client.wait_until(path)).json["status"] == word
    assert (await server.client.get(f"{path}/content")).body[4:8] == b"ftyp"


@pytest.mark.parametrize("dialect", VIDEOS)
async def test_a_failed_job_says_so_in_another_word(
    caller: Callable[[str], Caller], client: Client, dialect: str
) -> None:
    server = caller(dialect)
    done = await client.wait_until(server.path(await server.buy("a fox [final:error]")))
    assert done.json["status"] == "error"
    assert done.json["error"]
    (entry,) = (await client.get("ledger")).json["entries"]
    assert (entry["state"], entry["verdict"]) == ("failed", "internal")


@pytest.mark.parametrize(("dialect", "word"), [*((name, "aborted") for name in VIDEOS), ("runway", "CANCELLED")])
async def test_a_provider_cancels_a_job_and_charges_nothing(
    caller: Callable[[str], Caller], client: Client, dialect: str, word: str
) -> None:
    server = caller(dialect)
    path = server.path(await server.buy("a fox [final:aborted]"))
    assert (await client.wait_until(path)).json["status"] == word
    (entry,) = (await client.get("ledger")).json["entries"]
    assert (entry["state"], entry["canceled"], entry["final_cost"]) == ("canceled", True, "0")
    if dialect in VIDEOS:
        assert (await client.get(f"{path}/content")).status in {400, 404}
