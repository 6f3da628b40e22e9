"""A connection that fails again and again is left alone, by all workers, until one job finds that it works."""

import asyncio
from dataclasses import replace

import pytest

from app.embedded.processes import free_port
from app.jobs.db import repository
from app.jobs.engine import admission
from tests.support.http_server import Say
from tests.support.scripted_runway import BAD_INPUT, BAD_PROMPT, BUSY, DENIED, MAIN, OTHER, Studio, busy_for
from tests.support.submit_fixtures import Office, ways

NOT_JSON = Say("<html>")
# Both by the database's clock, in one statement.
CLOSED_FOR = "SELECT round(extract(epoch FROM closed_until - changed_at)) FROM connections WHERE name = 'first'"
FAILURES = "SELECT failures FROM connections WHERE name = 'first'"
STILL_CLOSED = "SELECT extract(epoch FROM closed_until - clock_timestamp()) FROM connections WHERE name = 'first'"


async def test_a_connection_that_fails_is_closed_tried_by_one_and_opened_by_success(
    office: Office, first: Studio
) -> None:
    first.refusal = DENIED
    async with office.one() as desk:
        await desk.order(8)
        purchases = await desk.let_in(3)
        await desk.buy(purchases[:2])
        assert await desk.value(CLOSED_FOR) is None
        await desk.buy(purchases[2:])
        assert await desk.value(CLOSED_FOR) == 100
        assert await desk.let_in() == []
        for pause in (200, 300, 300):  # doubled, up to the longest
            await desk.pause_over()
            rounds = await asyncio.gather(*(desk.let_in() for _ in range(4)))
            (probe,) = [purchase for one in rounds for purchase in one]
            assert await desk.let_in() == []  # the others wait for its outcome
            await desk.buy([probe])
            assert await desk.value(CLOSED_FOR) == pause
        first.refusal = None
        await desk.pause_over()
        (probe,) = await desk.let_in()
        await desk.buy([probe])
        assert await desk.value(CLOSED_FOR) is None
        assert await desk.value(FAILURES) == 0
        assert len(await desk.let_in()) == 1


async def test_a_probe_whose_worker_died_is_followed_by_another(office: Office) -> None:
    async with office.one() as desk:
        await desk.order(2)
        await desk.break_("first")
        await desk.pause_over()
        (lost,) = await desk.let_in()
        assert await desk.let_in() == []
        await desk.pause_over()
        (probe,) = await desk.let_in()
        assert probe.job_id != lost.job_id
        await desk.buy([probe])
        assert await desk.value(FAILURES) == 0


async def test_failures_of_requests_under_way_close_a_connection_once(office: Office, first: Studio) -> None:
    first.refusal = DENIED
    async with office.one() as desk:
        await desk.order(7)
        await desk.buy(await desk.let_in())
        assert await desk.value(CLOSED_FOR) == 100


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(DENIED, id="bad-credential"),
        pytest.param(NOT_JSON, id="reply-not-readable"),
        pytest.param(None, id="cannot-be-reached"),
    ],
)
async def test_trouble_of_the_connection_counts(office: Office, first: Studio, answer: Say | None) -> None:
    first.refusal = answer
    if answer is None:
        first.url = f"http://127.0.0.1:{free_port()}"
    async with office.one() as desk:
        await desk.order(3)
        await desk.buy(await desk.let_in())
        assert await desk.value(FAILURES) == 3
        assert await desk.value(CLOSED_FOR) == 100


async def test_refusals_about_the_order_do_not_count_and_prove_that_it_works(office: Office, first: Studio) -> None:
    async with office.one() as desk:
        await desk.order(10)
        first.refusal = BAD_PROMPT
        await desk.buy(await desk.let_in(2))
        first.refusal = BAD_INPUT
        await desk.buy(await desk.let_in(2))
        assert await desk.value(FAILURES) == 0
        first.refusal = DENIED
        await desk.buy(await desk.let_in(2))
        assert await desk.value(FAILURES) == 2
        first.refusal = BAD_INPUT
        await desk.buy(await desk.let_in(1))
        assert await desk.value(FAILURES) == 0
        assert len(await desk.let_in()) == 3


async def test_being_too_slow_ourselves_is_no_failure(office: Office, first: Studio) -> None:
    async with office.one() as desk:
        await desk.order(3)
        await desk.buy([replace(purchase, deadline=0) for purchase in await desk.let_in()])
        assert await desk.value(FAILURES) == 0
        assert await desk.value("SELECT count(*) FROM submissions WHERE state = 'absent'") == 3
    assert first.orders == []


@pytest.mark.parametrize(("asked", "longest"), [(60, 60), (86_400, 300)])
async def test_a_provider_that_asks_for_a_pause_gets_it(
    office: Office, first: Studio, asked: int, longest: int
) -> None:
    async with office.one() as desk:
        await desk.order(2)
        first.refusal = busy_for(asked)
        await desk.buy(await desk.let_in(1))
        assert longest / 2 < await desk.value(STILL_CLOSED) <= longest
        assert await desk.let_in() == []
        await desk.pause_over()
        assert len(await desk.let_in()) == 1


async def test_having_no_room_is_no_failure(office: Office, sandbox_url: str) -> None:
    sandbox = {"provider": "openai_compatible", "profile": "openai", "api_key": "sandbox-key"}
    where = {"base_url": f"{sandbox_url}/openai/v1", "models": ["sandbox/video"]}
    async with office.open({"first": {**sandbox, **where}}) as desk:
        await desk.order(4, model="sandbox/video", prompt="A busy day. [429:9]")
        await desk.buy(await desk.let_in())
        assert await desk.value(FAILURES) == 0


# Who waits elsewhere meanwhile ---------------------------------------------------------------------------------------


async def test_jobs_with_fallbacks_go_elsewhere_and_the_others_wait_and_succeed(
    office: Office, first: Studio, second: Studio
) -> None:
    hour = {"break_after": 2, "break_pause": 3600, "longest_break": 3600}
    async with office.two([MAIN], [OTHER], workers=2, **hour) as desk:
        gateway = desk.gateway
        first.refusal = DENIED
        for _ in range(2):
            assert (await gateway.ended((await gateway.create(model=MAIN))["id"]))["status"] == "failed"
        assert await desk.until(CLOSED_FOR) == 3600
        first.refusal = None
        waiting = await gateway.create(model=MAIN)
        diverted = await gateway.create(model=MAIN, fallbacks=[OTHER])
        ended = await gateway.ended(diverted["id"])
        assert (ended["status"], ended["model_used"]) == ("succeeded", OTHER)
        assert (await gateway.get(waiting["id"]))["status"] == "queued"
        await desk.pause_over()
        ended = await gateway.ended(waiting["id"])
        assert (ended["status"], ended["model_used"]) == ("succeeded", MAIN)
    assert (len(first.renders), len(second.renders)) == (1, 1)


async def test_a_short_pause_does_not_send_a_line_to_another_model(office: Office, first: Studio) -> None:
    first.refusal = busy_for(60)
    async with office.two([MAIN], [OTHER]) as desk:
        await desk.order()
        await desk.buy(await desk.let_in())
        (waiting,) = await desk.order(fallbacks=[OTHER])
        assert await desk.let_in() == []
        assert await desk.line_of(waiting) == MAIN
        await desk.pause_over()
        assert (waiting, "first") in ways(await desk.let_in())


async def test_who_waits_elsewhere_comes_back_when_that_is_closed_too(office: Office) -> None:
    async with office.two([MAIN], [OTHER], max_concurrent=1) as desk:
        await desk.order(model=OTHER)
        assert len(await desk.let_in()) == 1  # the only slot there
        await desk.break_("first")
        (job,) = await desk.order(fallbacks=[OTHER])
        assert await desk.let_in() == []
        assert await desk.line_of(job) == OTHER
        await desk.break_("second")
        await desk.works_again("first")
        assert ways(await desk.let_in()) == [(job, "first")]


async def test_who_waits_for_another_connection_comes_back_when_that_is_closed(office: Office, first: Studio) -> None:
    async with office.two([MAIN], [MAIN, OTHER], max_concurrent=1) as desk:
        await desk.order(model=OTHER)
        assert len(await desk.let_in()) == 1  # the only slot there
        first.refusal = BUSY
        (job,) = await desk.order()
        await desk.buy(await desk.let_in())
        assert await desk.let_in() == []  # busy at the first, no room at the second
        await desk.break_("second")
        assert ways(await desk.let_in()) == [(job, "first")]


async def test_a_model_that_nothing_serves_gives_way_to_a_fallback(office: Office) -> None:
    async with office.one() as desk:
        (job,) = await desk.order(model="studio/unpriced", fallbacks=[MAIN])
        await desk.execute("UPDATE schedule SET queue = 'studio/removed'")
        assert ways(await desk.let_in()) == [(job, "first")]


async def test_jobs_that_can_go_nowhere_else_do_not_keep_one_that_can(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "DIVERT_BATCH", 2)
    third = ["studio/unpriced"]
    connections = office.ways(first={"models": [MAIN]}, second={"models": [OTHER]})
    connections["third"] = {**connections["second"], "models": third}
    async with office.open(connections) as desk:
        await desk.break_("first", "second")
        await desk.order(4, fallbacks=[OTHER])
        (job,) = await desk.order(fallbacks=third)
        rounds = [await desk.let_in() for _ in range(3)]
        assert [way for purchases in rounds for way in ways(purchases)] == [(job, "third")]


async def test_a_job_that_is_just_changing_does_not_keep_others_from_going_elsewhere(office: Office) -> None:
    async with office.two([MAIN], [OTHER]) as desk:
        await desk.break_("first")
        held, diverted = await desk.order(2, fallbacks=[OTHER])
        async with desk.gateway.resources.database.begin() as conn:
            await repository.lock(conn, held)
            assert ways(await desk.let_in()) == [(diverted, "second")]
        assert ways(await desk.let_in()) == [(held, "second")]


async def test_a_job_that_cannot_be_diverted_holds_up_no_submission(office: Office) -> None:
    async with office.two([MAIN], [OTHER]) as desk:
        await desk.break_("first")
        (unreadable,) = await desk.order(fallbacks=[OTHER])
        await desk.execute("UPDATE jobs SET fallbacks = '[{}]' WHERE id = :job", job=unreadable)
        (other,) = await desk.order(model=OTHER)
        purchases = await desk.let_in()
        assert ways(purchases) == [(other, "second")]
