"""Who may buy next: never more than a connection takes, fair between accounts, by priority and age inside one."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from pydantic import SecretStr

from app.clock import utc_now
from app.embedded.servers import Postgres
from app.failpoints import Failpoint
from app.ids import Prefix, encode, new_id
from app.jobs.db import connection_health, schedule
from app.jobs.engine.admission import BUSY_SECONDS, Admission, AdmittedSubmission
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.records import Claim
from app.providers.base import ProviderRequest
from app.providers.registry import ADAPTERS
from app.providers.runway import Runway
from app.providers.transport import Call
from tests.support.commit_cutter import Wire
from tests.support.fault_proxy import Side
from tests.support.lane_driver import Pause
from tests.support.scripted_runway import BUSY, DENIED, FAILED_FREE, MAIN, OTHER, Studio, busy_for
from tests.support.submit_fixtures import Office, asked, submitter_of, ways


def public(job_id: UUID) -> str:
    return encode(Prefix.JOB, job_id)


# Limits --------------------------------------------------------------------------------------------------------------


async def test_a_burst_never_has_more_renders_at_the_provider_than_slots(office: Office, first: Studio) -> None:
    first.says = FAILED_FREE
    async with office.one(max_concurrent=5, workers=2) as desk:
        await desk.order(60)
        await first.until(lambda: len(first.renders) == 60 and first.live == 0)
    assert len(first.orders) == 60
    assert 1 < first.most_live <= 5


async def test_slots_are_counted_exactly_while_many_ask_at_once(office: Office) -> None:
    async with office.one(max_concurrent=3) as desk:
        await desk.order(12)
        for _ in range(2):
            rounds = await asyncio.gather(*(desk.let_in() for _ in range(6)))
            purchases = [purchase for one in rounds for purchase in one]
            assert len(purchases) == 3
            assert await desk.let_in() == []
            for purchase in purchases:
                await desk.free(purchase)


async def test_who_counts_the_slots_keeps_others_from_counting(office: Office) -> None:
    """The others do not wait either: they look again soon, and meanwhile go on with other connections."""
    async with office.one(max_concurrent=3) as desk, Pause(Failpoint.SUBMIT_CLAIMED) as pause:
        await desk.order(6)
        await desk.execute("INSERT INTO connections (name) VALUES ('first')")  # else its first use would be the lock
        counting = asyncio.create_task(desk.let_in())
        await pause.reached()
        other = desk.submitter()
        assert await desk.let_in(submitter=other) == []
        due = await other.next_due()
        assert due is not None
        assert due <= BUSY_SECONDS
        pause.resume()
        assert len(await counting) == 3
        assert await desk.let_in(submitter=other) == []
        due = await other.next_due()
        assert due is not None
        assert due > BUSY_SECONDS  # the next thing to do is a deadline


async def test_requests_per_minute_are_counted_exactly_while_many_ask_at_once(office: Office) -> None:
    async with office.one(max_concurrent=100, requests_per_minute=3) as desk:
        await desk.order(12)
        rounds = await asyncio.gather(*(desk.let_in() for _ in range(6)))
        purchases = [purchase for one in rounds for purchase in one]
        assert len(purchases) == 3
        await desk.buy(purchases)  # that they have ended gives nothing back
        assert await desk.let_in() == []
        aged = "UPDATE submissions SET created_at = created_at - interval '1 minute' WHERE id = :id"
        await desk.execute(aged, id=purchases[0].submission_id)
        assert len(await desk.let_in()) == 1
        for purchase in purchases[1:]:
            await desk.execute(aged, id=purchase.submission_id)
        rounds = await asyncio.gather(*(desk.let_in() for _ in range(6)))
        assert sum(map(len, rounds)) == 2


# Our own lateness ----------------------------------------------------------------------------------------------------


async def test_held_connection_delays_no_other(office: Office) -> None:
    """A row lock that somebody holds for long: the orders of a healthy connection are sent meanwhile."""
    async with office.two([MAIN], [OTHER], workers=1) as desk:
        await desk.execute("INSERT INTO connections (name) VALUES ('first'), ('second')")
        async with desk.gateway.resources.database.begin() as conn:
            await connection_health.lock(conn, "first")
            (held,) = await desk.order()
            (job,) = await desk.order(model="studio/other")
            assert (await desk.gateway.ended(public(job)))["status"] == "succeeded"
            assert (await desk.gateway.get(public(held)))["status"] == "queued"
        assert (await desk.gateway.ended(public(held)))["status"] == "succeeded"
        assert await desk.ledger(public(held)) == [("first", "main", "done")]


async def test_held_connection_sends_no_job_to_a_later_one(office: Office) -> None:
    """Both serve the model: that we cannot count the first one's slots just now is no reason to take the second."""
    async with office.two([MAIN], [MAIN]) as desk:
        await desk.execute("INSERT INTO connections (name) VALUES ('first'), ('second')")
        await desk.order()
        async with desk.gateway.resources.database.begin() as conn:
            await connection_health.lock(conn, "first")
            assert await desk.let_in() == []
        (purchase,) = await desk.let_in()
        assert purchase.connection == "first"


async def test_submission_is_sent_before_the_next_connection_is_asked(office: Office, first: Studio) -> None:
    async with office.two([MAIN], [OTHER]) as desk:
        await desk.order()
        await desk.order(model="studio/other")
        engine = desk.gateway.resources.engine
        claimed = Admission(engine, SubmitResults(engine)).admit(10)
        purchase = await anext(claimed)
        async with Pause(Failpoint.SUBMIT_CLAIMED) as pause:
            behind = asyncio.ensure_future(anext(claimed))
            await pause.reached()
            await desk.buy([purchase])
            assert (len(first.orders), behind.done()) == (1, False)
            pause.resume()
            await desk.buy([await behind])


async def test_what_could_not_be_sent_in_time_counts_as_no_try_and_is_sent_where_it_was_to_go(
    office: Office, first: Studio, second: Studio
) -> None:
    """The dearer way is not taken, nothing is said of the provider, and nobody waits."""
    async with office.two([MAIN], [OTHER], submit_timeout=2) as desk:
        (job,) = await desk.order(fallbacks=["studio/other"], max_cost="100")
        for _ in range(4):
            (purchase,) = await desk.let_in()
            late = replace(purchase, deadline=asyncio.get_running_loop().time() + 0.9)
            await desk.buy([late])
        (purchase,) = await desk.let_in()
        await desk.buy([purchase])
        assert (asked(first), asked(second)) == ([first.orders[0]["model"]], [])
        rows = await desk.gateway.submissions(public(job))
        assert [row["state"] for row in rows] == ["absent"] * 4 + ["accepted"]
        assert {row["connection"] for row in rows} == {"first"}
        assert {(row["error"]["code"], row["error"]["fault"]) for row in rows[:4]} == {("gateway_delayed", "gateway")}
        assert {row["certainty"] for row in rows[:4]} == {"none"}
        assert await desk.value("SELECT coalesce(max(failures), 0) FROM connections") == 0
        notices = [event["data"]["notice"] for event in await desk.events(public(job))]
        assert not any("could not be reached" in (notice or "") for notice in notices)


async def test_no_more_is_committed_than_can_be_sent_in_time(office: Office) -> None:
    """Each intent takes long: so many are committed as fit into a quarter of the time-out, and the others wait."""
    async with office.one() as desk:
        await desk.order(5)
        hurried = replace(
            desk.gateway.resources.engine,
            settings=desk.gateway.settings.jobs.model_copy(update={"submit_timeout": 1e-9}),
        )
        assert len(await desk.let_in(submitter=submitter_of(hurried))) == 1


# Fairness ------------------------------------------------------------------------------------------------------------


async def test_an_account_with_many_jobs_does_not_starve_one_with_few(office: Office) -> None:
    async with office.one(max_concurrent=4) as desk:
        many = await desk.order(100)
        taken = await desk.let_in()
        assert ways(taken) == [(job, "first") for job in many[:4]]
        few = await desk.order(2, account=await desk.stranger())
        for expected in (*few, many[4]):
            await desk.free(taken.pop(0))
            (purchase,) = await desk.let_in()
            assert purchase.job_id == expected
            taken.append(purchase)


async def test_free_slots_are_dealt_out_in_turns(office: Office) -> None:
    async with office.one(max_concurrent=5) as desk:
        many = await desk.order(10)
        few = await desk.order(2, account=await desk.stranger())
        assert [purchase.job_id for purchase in await desk.let_in()] == [many[0], few[0], many[1], few[1], many[2]]


async def test_accounts_take_turns_when_there_are_fewer_slots_than_accounts(office: Office) -> None:
    async with office.one(max_concurrent=1) as desk:
        many = await desk.order(4)
        others = [await desk.order(2, account=await desk.stranger(name)) for name in ("second", "third")]
        order = []
        while purchases := await desk.let_in():
            order += [purchase.job_id for purchase in purchases]
            await desk.free(purchases[0])
        (second, second_next), (third, third_next) = others
        assert order == [many[0], second, third, many[1], second_next, third_next, *many[2:]]


async def test_a_slot_shared_with_others_goes_to_the_most_urgent_job_of_an_account(office: Office) -> None:
    async with office.one(max_concurrent=2) as desk:
        await desk.order(priority="low")
        (urgent,) = await desk.order(priority="high")
        (other,) = await desk.order(account=await desk.stranger())
        assert {purchase.job_id for purchase in await desk.let_in()} == {urgent, other}


async def test_priority_counts_inside_an_account_and_age_inside_a_priority(office: Office) -> None:
    async with office.one(max_concurrent=1) as desk:
        low = await desk.order(2, priority="low")
        normal = await desk.order(2)
        (other,) = await desk.order(account=await desk.stranger(), priority="low")
        high = await desk.order(2, priority="high")
        order = []
        while purchases := await desk.let_in():
            order += [purchase.job_id for purchase in purchases]
            await desk.free(purchases[0])
        assert [job for job in order if job != other] == [*high, *normal, *low]
        assert order.index(other) <= 1  # all the others' priorities do not matter to it


# Nobody holds up the others ------------------------------------------------------------------------------------------


async def test_a_job_that_waits_after_a_refusal_does_not_block_the_next(office: Office, first: Studio) -> None:
    async with office.one(max_concurrent=1) as desk:
        refused, following = await desk.order(2)
        first.refusal = BUSY
        await desk.buy(await desk.let_in())
        assert ways(await desk.let_in()) == [(following, "first")]
        assert await desk.value("SELECT ready_at > clock_timestamp() FROM schedule WHERE job_id = :job", job=refused)


async def test_a_pause_that_one_connection_asks_for_is_not_kept_towards_another(
    office: Office, first: Studio, second: Studio
) -> None:
    first.refusal = second.refusal = busy_for(60)
    pause = "SELECT extract(epoch FROM ready_at - clock_timestamp()) FROM schedule"
    async with office.two([MAIN], [MAIN]) as desk:
        await desk.order()
        await desk.buy(await desk.let_in())
        await desk.buy(await desk.let_in())
        assert await desk.value(pause) < 30  # the first one may be asked again as soon as it is open
    async with office.one() as desk:
        await desk.execute("DELETE FROM connections")
        await desk.order()
        await desk.buy(await desk.let_in())
        assert await desk.value(f"{pause} WHERE avoid = '{{}}' ORDER BY job_id DESC LIMIT 1") > 30


async def test_a_slot_that_a_job_does_not_want_is_left_to_others(office: Office, first: Studio) -> None:
    async with office.two([MAIN], [MAIN], max_concurrent=1) as desk:
        refused, following = await desk.order(2)
        first.refusal = DENIED
        (purchase,) = await desk.let_in(1)
        await desk.buy([purchase])
        assert ways(await desk.let_in()) == [(following, "first"), (refused, "second")]


async def test_a_job_past_its_deadline_is_ended_and_not_let_in(office: Office) -> None:
    async with office.one(max_concurrent=1) as desk:
        late, following = await desk.order(2)
        for table, column, key in (("jobs", "deadline_at", "id"), ("schedule", "next_at", "job_id")):
            await desk.execute(f"UPDATE {table} SET {column} = clock_timestamp() WHERE {key} = :job", job=late)
        claim, purchase = [item async for item in desk.submitter().claim(10)]
        assert isinstance(claim, Claim)
        assert isinstance(purchase, AdmittedSubmission)
        assert purchase.job_id == following
        await desk.submitter().advance(claim)
        ended = await desk.gateway.ended(public(late))
        assert (ended["status"], ended["error"]["code"]) == ("failed", "deadline_exceeded")


class Puzzled(Runway):
    """An adapter with a bug."""

    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        if "puzzle" in order.prompt:
            raise ValueError("no words for it")
        return super().order_call(order, ref, callback_url)


async def test_an_order_that_cannot_be_written_does_not_block_the_line(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ADAPTERS, Runway.name, Puzzled)
    async with office.one(max_concurrent=1) as desk:
        (puzzle,) = await desk.order(prompt="a puzzle")
        (following,) = await desk.order()
        rounds = [await desk.let_in() for _ in range(2)]
        assert [way for one in rounds for way in ways(one)] == [(following, "first")]
        assert (await desk.gateway.get(public(puzzle)))["status"] == "queued"


async def test_a_submission_that_the_database_refuses_does_not_block_the_line(office: Office) -> None:
    async with office.one() as desk:
        before, impossible, after = await desk.order(3)
        await desk.execute(
            """
            INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state,
                body_hash, send_deadline, charge_certainty)
            VALUES (:id, :job, :account, 1, 'gone', 'm', 'm', 'unknown', '', now(), 'possible')
            """,
            id=new_id(),
            job=impossible,
            account=desk.account,
        )
        rounds = [await desk.let_in() for _ in range(2)]
        assert [way for one in rounds for way in ways(one)] == [(before, "first"), (after, "first")]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    "mark",
    [
        pytest.param(b"INSERT INTO submissions", id="intent"),
        pytest.param(b"rejected", id="refusal"),
        pytest.param(b"UPDATE submissions SET remote_id", id="acceptance"),
    ],
)
async def test_a_database_cut_off_at_the_commit_neither_loses_nor_repeats_a_submission(
    office: Office, first: Studio, second: Studio, postgres: Postgres, mark: bytes, side: Side
) -> None:
    first.refusal = DENIED
    async with Wire(postgres) as wire:
        through = office.changed("database", url=SecretStr(wire.url))
        async with through.two([MAIN], [MAIN], workers=1) as desk:
            wire.cut_at(mark, side)
            job = await desk.gateway.create(model=MAIN)
            ended = await desk.gateway.ended(job["id"])
            ledger = await desk.gateway.submissions(job["id"])
    assert wire.cuts == 1
    assert (ended["status"], ended["cost"]["charged"]) == ("succeeded", "0.10"), ended
    assert (len(first.orders), len(second.orders)) == (1, 1)
    # Of an intent that was committed nothing was sent: the ledger says so, and the first connection keeps its turn.
    *tried, made = [row["state"] for row in ledger]
    intended = ["absent"] if side is Side.AFTER and mark == b"INSERT INTO submissions" else []
    assert made == "done"
    assert tried == [*intended, "rejected"]


# What callers see ----------------------------------------------------------------------------------------------------


async def test_a_waiting_job_tells_its_place_and_when_it_may_start(office: Office) -> None:
    async with office.one(max_concurrent=2) as desk:

        async def place(job_id: UUID) -> int:
            queue = (await desk.gateway.get(public(job_id)))["queue"]
            assert isinstance(queue["position"], int)
            return int(queue["position"])

        await desk.execute("INSERT INTO render_times (model, seconds) VALUES (:model, 20)", model=MAIN)
        jobs = await desk.order(5)
        assert [await place(job) for job in jobs] == [1, 2, 3, 4, 5]
        (urgent,) = await desk.order(priority="high")
        assert [await place(job) for job in (urgent, *jobs)] == [1, 2, 3, 4, 5, 6]
        stranger = await desk.stranger()
        theirs = await desk.order(2, account=stranger, priority="high")
        # Accounts take turns: of the other one go as many before a job as of its own, and one more.
        assert [await place(job) for job in (urgent, *jobs)] == [2, 4, 5, 6, 7, 8]
        async with desk.gateway.resources.database.read() as conn:
            everybody = [urgent, *jobs, *theirs]
            together = await schedule.positions(conn, everybody, cap=100)
            alone = [await schedule.positions(conn, [job], cap=100) for job in everybody]
        assert [{job: together[job]} for job in everybody] == alone
        asked = utc_now()
        view = await desk.gateway.get(public(jobs[2]))
        answered = utc_now()
        start = datetime.fromisoformat(view["queue"]["estimated_start_at"])
        finish = datetime.fromisoformat(view["estimated_finish_at"])
        renders_before = (view["queue"]["position"] - 1) // 2
        assert asked <= start - timedelta(seconds=20 * renders_before) <= answered
        assert finish - start == timedelta(seconds=20)
        first_in, *_ = await desk.let_in()
        assert first_in.job_id == urgent
        assert (await desk.gateway.get(public(urgent)))["queue"] is None


async def test_a_job_that_nothing_serves_has_no_place_and_says_so(office: Office) -> None:
    async with office.open(office.ways(first={"models": [MAIN]})) as desk:
        (job,) = await desk.order(model=OTHER)
        view = await desk.gateway.get(public(job))
        assert (view["status"], view["queue"], view["estimated_finish_at"]) == ("queued", None, None)
        assert OTHER in view["notice"]
        assert await desk.let_in() == []
        (served,) = await desk.order(model=OTHER, fallbacks=[MAIN])
        assert ways(await desk.let_in()) == [(served, "first")]
