"""A lost reply is found out about by whatever the provider offers, and a video is bought again only on proof."""

from dataclasses import replace
from typing import ClassVar
from uuid import UUID

import httpx2
import pytest

from app.connection_settings import ModelSettings
from app.infra.queue import Lane
from app.providers import registry
from app.providers.base import SUBMISSION_HEADER, Access, Lookup
from app.providers.http_clients import Clients
from app.providers.kling import Kling
from app.providers.transport import Call
from app.settings import Settings
from tests.support.callback_fixtures import BUY, CALLBACKS, KLING, LOOK_UP, NO_TASKS, Bought, bought, opened
from tests.support.gateway import PROMPT, Gateway
from tests.support.http_proxy import Asked, Between, Meddle, Rule
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver

UNPROVABLE = ("failed", "upstream_outcome_unknown", "possible")


async def resolve(hands: LaneDriver, *, after: float = 60) -> None:
    """One look for what was lost, after so many seconds."""
    await hands.pass_time(after)
    await hands.execute("UPDATE schedule SET next_at = clock_timestamp() WHERE lane = 'confirm'")
    await hands.work(Lane.RESOLVE)


async def end_of(job: Bought) -> tuple[str, str | None, str]:
    """Its status, its error and how sure its bill is."""
    shown = await job.job()
    return shown["status"], (shown["error"] or {}).get("code"), shown["cost"]["certainty"]


# By our reference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["[lose-reply]", "[lose-reply:truncate]", "[html]"])
async def test_a_lost_reply_is_found_by_our_reference(quiet: Gateway, kling: Between, behaviour: str) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands, f"{PROMPT} {behaviour}")
    assert (await job.job())["phase"] == "confirming"
    await resolve(hands)
    assert (await job.job())["phase"] == "rendering"
    (row,) = await job.rows()
    assert (row["state"], row["remote_id"]) == ("accepted", await job.remote_id())
    assert len(kling.seen("POST", BUY)) == 1


@pytest.mark.parametrize("reply", [Meddle.DROP, Say("<html>", 502), Say('{"code": 5000, "message": "oops"}', 500)])
async def test_what_is_absent_twice_is_submitted_again_once(
    quiet: Gateway, kling: Between, reply: Say | Meddle
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, reply)
    job = await bought(quiet, hands)
    kling.off("POST", BUY)
    await resolve(hands)
    assert (await job.job())["phase"] == "confirming"
    await resolve(hands)
    assert (await job.job())["phase"] == "waiting"
    await hands.pass_time(60)
    await hands.work(Lane.SUBMIT)
    first, second = await job.rows()
    assert (first["state"], first["certainty"], second["state"]) == ("absent", "none", "accepted")
    assert (await quiet.purchases())["accepted"] == 1
    assert len(kling.seen("POST", BUY)) == 2


async def test_absence_counts_only_after_the_delay_twice_running_and_with_a_pause(
    reachable: Settings, kling: Between, front: Between
) -> None:
    front.on("POST", CALLBACKS, Meddle.DROP)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, NO_TASKS)
    connection = reachable.connections[KLING].model_copy(update={"visibility_delay": 120})
    slow = reachable.model_copy(update={"connections": {KLING: connection}})
    async with opened(slow, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        job = await bought(gateway, hands)
        for _ in range(2):
            await resolve(hands, after=50)
        assert not kling.seen("GET", LOOK_UP), "nothing can be proven yet"
        await resolve(hands, after=50)
        kling.on("GET", LOOK_UP, Say("not now", 503))
        await resolve(hands)
        kling.on("GET", LOOK_UP, NO_TASKS)
        for _ in range(3):
            await resolve(hands, after=1)
        assert (await job.job())["phase"] == "confirming"
        assert await hands.work(Lane.SUBMIT) == 0
        kling.off("GET", LOOK_UP)
        await resolve(hands)
        assert (await job.job())["phase"] == "rendering"
        assert (await gateway.purchases())["accepted"] == 1


async def test_a_cancel_does_not_hasten_the_proof(quiet: Gateway, kling: Between) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, NO_TASKS)
    job = await bought(quiet, hands)
    await resolve(hands)
    await quiet.client.post(f"/v1/jobs/{job.public_id}/cancel")
    await hands.work(Lane.RESOLVE)
    assert (await job.job())["phase"] == "confirming"
    kling.off("GET", LOOK_UP)
    await resolve(hands)
    assert (await job.job())["phase"] == "rendering"
    assert (await job.rows())[0]["remote_id"] == await job.remote_id()


@pytest.mark.parametrize(
    "answer",
    [
        '{"code": 0, "data": [{"id": "1", "external_id": "SUB"}, {"id": "2", "external_id": "SUB"}]}',
        '{"code": 0, "data": [{"id": "1", "external_id": "sub_other"}]}',
        '{"code": 0, "data": [{"id": "1"}]}',
        '{"code": 0, "data": [{"external_id": "SUB"}]}',
        '{"code": 0, "data": {}}',
        '{"code": 1203, "message": "no such thing"}',
        "<html>",
    ],
)
async def test_a_look_up_that_proves_neither_submits_nothing_and_ends_in_doubt(
    quiet: Gateway, kling: Between, answer: str
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    job = await bought(quiet, hands)
    kling.on("GET", LOOK_UP, Say(answer.replace("SUB", job.submission)))
    for _ in range(3):
        await resolve(hands)
        await hands.work(Lane.SUBMIT)
    assert (await job.job())["phase"] == "confirming"
    await resolve(hands, after=900)
    assert await end_of(job) == UNPROVABLE
    assert len(kling.seen("POST", BUY)) == 1


# By sending the same bytes again ----------------------------------------------------------------------------------


class Replaying(Kling):
    """A provider that knows a request by its key."""

    name: ClassVar[str] = "replaying"
    lookup: ClassVar[Lookup] = Lookup.REPLAY

    @classmethod
    def open(cls, access: Access, clients: Clients) -> "Replaying":
        provider = super().open(access, clients)
        provider.traits = replace(provider.traits, lookup=cls.lookup)
        return provider

    def reference_call(self, ref: UUID) -> Call | None:
        del ref
        return None

    def list_call(self, after: str | None) -> Call | None:
        del after
        return None


class Deaf(Replaying):
    """A provider that cannot be asked about what it did not answer, but calls back."""

    name: ClassVar[str] = "deaf"
    lookup: ClassVar[Lookup] = Lookup.NONE


def served_as(adapter: type[Kling], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same gateway, with another adapter before the same provider."""
    monkeypatch.setitem(registry.ADAPTERS, adapter.name, adapter)
    model = ModelSettings.model_validate(
        {
            "provider": adapter.name,
            "upstream": "kling-3.0",
            "seconds": [3],
            "default_seconds": 3,
            "sizes": ["1280x720"],
            "default_size": "1280x720",
        }
    )
    connection = settings.connections[KLING].model_copy(update={"provider": adapter.name})
    return settings.model_copy(
        update={"models": {**settings.models, "odd/video": model}, "connections": {KLING: connection}}
    )


@pytest.fixture
def replaying(reachable: Settings, front: Between, monkeypatch: pytest.MonkeyPatch) -> Settings:
    front.on("POST", CALLBACKS, Meddle.DROP)
    return served_as(Replaying, reachable, monkeypatch)


@pytest.fixture
def deaf(reachable: Settings, front: Between, monkeypatch: pytest.MonkeyPatch) -> Settings:
    front.on("POST", CALLBACKS, Meddle.DROP)
    return served_as(Deaf, reachable, monkeypatch)


async def ordered(gateway: Gateway, hands: LaneDriver) -> Bought:
    return await bought(gateway, hands, model="odd/video")


def knows_keys(kling: Between) -> Rule:
    """The first answer to a key is lost; to the same key it is given again."""

    def rule(asked: Asked) -> Say | Meddle:
        key = asked.headers[SUBMISSION_HEADER]
        known = [one for one in kling.passed if one.asked.headers.get(SUBMISSION_HEADER) == key]
        return Say(known[0].text, known[0].status) if known else Meddle.LOSE

    return rule


async def test_the_same_bytes_sent_again_find_the_submission_and_submit_nothing(
    replaying: Settings, kling: Between, front: Between
) -> None:
    kling.on("POST", BUY, knows_keys(kling))
    async with opened(replaying, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        job = await ordered(gateway, hands)
        await resolve(hands)
        assert (await job.job())["phase"] == "rendering"
        (row,) = await job.rows()
        assert (row["state"], row["remote_id"]) == ("accepted", await job.remote_id())
        assert (await gateway.purchases())["accepted"] == 1
    first, again = kling.seen("POST", BUY)
    assert (again.body, again.headers, again.path) == (first.body, first.headers, first.path)


async def test_a_request_that_never_arrived_is_submitted_once_by_sending_it_again(
    replaying: Settings, kling: Between, front: Between
) -> None:
    kling.on("POST", BUY, Meddle.DROP)
    async with opened(replaying, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        job = await ordered(gateway, hands)
        kling.off("POST", BUY)
        await resolve(hands)
        assert (await job.job())["phase"] == "rendering"
        assert len(await job.rows()) == 1
        assert (await gateway.purchases())["accepted"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        Say('{"code": 1201, "message": "is in use already"}', 400),
        Say('{"code": 1302, "message": "too fast"}', 429),
        Say('{"code": 1101, "message": "in arrears"}', 429),
        Say('{"code": 5000, "message": "oops"}', 500),
        Say("<html>"),
        Meddle.DROP,
    ],
)
async def test_a_no_to_the_second_request_proves_nothing_about_the_first(
    replaying: Settings, kling: Between, front: Between, reply: Say | Meddle
) -> None:
    kling.on("POST", BUY, Meddle.LOSE)
    async with opened(replaying, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        job, doubtful = await ordered(gateway, hands), await ordered(gateway, hands)
        kling.on("POST", BUY, reply)
        for _ in range(3):
            await resolve(hands)
        assert (await job.job())["phase"] == "confirming"
        known = knows_keys(kling)
        kling.on("POST", BUY, lambda asked: known(asked) if job.submission in asked.headers.values() else reply)
        await resolve(hands)
        assert (await job.job())["phase"] == "rendering"
        await resolve(hands, after=900)
        assert await end_of(doubtful) == UNPROVABLE
        assert (await gateway.purchases())["references_charged_twice"] == []


async def test_what_cannot_be_made_again_byte_for_byte_is_not_sent_again(
    replaying: Settings, kling: Between, front: Between
) -> None:
    """Another public address makes another body, and that would be another purchase."""
    kling.on("POST", BUY, Meddle.LOSE)
    async with opened(replaying, kling, front) as gateway:
        job_id = (await ordered(gateway, LaneDriver(gateway.resources))).public_id
    moved = replaying.model_copy(update={"api": replaying.api.model_copy(update={"public_url": None})})
    async with opened(moved, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        for _ in range(3):
            await resolve(hands)
        assert (await gateway.get(job_id))["phase"] == "confirming"
        await resolve(hands, after=900)
        shown = await gateway.get(job_id)
        assert (shown["error"]["code"], shown["cost"]["certainty"]) == ("upstream_outcome_unknown", "possible")
    assert len(kling.seen("POST", BUY)) == 1


# By a callback alone ----------------------------------------------------------------------------------------------


async def test_where_only_a_callback_can_tell_it_is_waited_for(deaf: Settings, kling: Between, front: Between) -> None:
    kling.on("POST", BUY, Meddle.LOSE)
    async with opened(deaf, kling, front) as gateway, httpx2.AsyncClient(base_url=gateway.url, verify=False) as caller:
        hands = LaneDriver(gateway.resources)
        told, untold = await ordered(gateway, hands), await ordered(gateway, hands)
        for _ in range(3):
            await resolve(hands)
        assert (await told.job())["phase"] == "confirming"
        await told.tell(caller, await told.remote_id())
        await hands.work(Lane.RESOLVE)
        assert (await told.job())["phase"] == "rendering"
        await resolve(hands, after=900)
        assert await end_of(untold) == UNPROVABLE
        assert (await gateway.purchases())["accepted"] == 2


async def test_where_no_callback_can_arrive_the_doubt_is_told_at_once(
    deaf: Settings, kling: Between, front: Between
) -> None:
    kling.on("POST", BUY, Meddle.LOSE)
    unreachable = deaf.model_copy(update={"api": deaf.api.model_copy(update={"public_url": None})})
    async with opened(unreachable, kling, front) as gateway:
        hands = LaneDriver(gateway.resources)
        job = await gateway.create(model="odd/video")
        await hands.work(Lane.SUBMIT)
        await hands.pass_time(60)
        await hands.work(Lane.RESOLVE)
        shown = await gateway.get(job["id"])
        assert (shown["status"], shown["error"]["code"]) == ("failed", "upstream_outcome_unknown")
    assert len(kling.seen("POST", BUY)) == 1
