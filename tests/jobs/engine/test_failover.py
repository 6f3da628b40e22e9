"""A job that one way refuses or fails goes on to the next under the same id, and pays within the caller's limit."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app.embedded.processes import free_port
from app.ids import new_id
from app.infra.db import Database
from app.jobs.db import repository, submissions
from app.jobs.payloads import money
from app.jobs.states import ChargeCertainty, SubmissionState
from tests.support.http_server import Say
from tests.support.job_rows import a_draft
from tests.support.scripted_runway import (
    BAD_INPUT,
    BROKE,
    BUSY,
    DENIED,
    FAILED_FREE,
    MAIN,
    OTHER,
    RUNNING,
    Studio,
    busy_for,
)
from tests.support.submit_fixtures import Office, asked, shop

STEPS = ["job.queued", "job.submitting", "job.started", "job.storing", "job.succeeded"]
CHARGED = {**FAILED_FREE, "cost": {"credits": 10}}
UNBILLED = {"status": "FAILED", "failureCode": "INTERNAL"}


# Before acceptance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        pytest.param(None, "absent", id="cannot-be-reached"),
        pytest.param(DENIED, "rejected", id="bad-credential"),
        pytest.param(BROKE, "rejected", id="out-of-credits"),
        pytest.param(BUSY, "rejected", id="busy"),
        pytest.param(busy_for(60), "rejected", id="busy-for-a-minute"),
    ],
)
async def test_what_one_connection_refuses_another_makes_under_the_same_id(
    office: Office, first: Studio, second: Studio, answer: Say | None, state: str
) -> None:
    first.refusal = answer
    if answer is None:
        first.url = f"http://127.0.0.1:{free_port()}"
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN)
        ended = await gateway.ended(job["id"])
        assert (ended["status"], ended["model_used"]) == ("succeeded", MAIN), ended
        assert await desk.ledger(job["id"]) == [("first", "main", state), ("second", "main", "done")]
        refused, made = await gateway.submissions(job["id"])
        steps = await desk.log(job["id"])
    assert (refused["cost"], refused["certainty"]) == (None, "none")
    assert (made["cost"], made["certainty"]) == ("0.10", "certain")
    assert (ended["cost"]["charged"], ended["cost"]["certainty"], ended["error"]) == ("0.10", "certain", None)
    assert [step["type"] for step in steps] == ["job.queued", "job.submitting", *STEPS]
    assert steps[2]["data"]["notice"]
    assert (len(first.renders), len(second.renders)) == (0, 1)


async def test_a_busy_model_gives_way_to_the_next_after_a_second_try(
    office: Office, first: Studio, second: Studio
) -> None:
    first.refusal = BUSY
    async with shop(office, second=[OTHER]) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        ended = await gateway.ended(job["id"])
        assert (ended["status"], ended["model"], ended["model_used"]) == ("succeeded", MAIN, OTHER)
    assert (asked(first), asked(second)) == (["main", "main"], ["other"])
    assert ended["cost"] == {"estimated": "0.10", "charged": "0.20", "certainty": "certain", "currency": "USD"}


async def test_a_refused_parameter_closes_the_model_and_not_the_fallbacks(
    office: Office, first: Studio, second: Studio
) -> None:
    first.refusal = BAD_INPUT
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        alone = await gateway.create(model=MAIN)
        assert (await gateway.ended(job["id"]))["status"] == "succeeded"
        ended = await gateway.ended(alone["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "input_refused")
    assert (asked(first), asked(second)) == (["main", "main"], ["other"])


# After acceptance ----------------------------------------------------------------------------------------------------


async def test_renders_that_failed_for_free_go_through_every_way_in_order(
    office: Office, first: Studio, second: Studio
) -> None:
    first.answers.append(DENIED)
    second.by_model["main"] = FAILED_FREE
    async with shop(office, first=[MAIN, OTHER]) as desk:
        gateway = desk.gateway
        first.by_model["other"] = FAILED_FREE
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        ended = await gateway.ended(job["id"])
        assert (ended["status"], ended["model_used"]) == ("succeeded", OTHER), ended
        assert await desk.ledger(job["id"]) == [
            ("first", "main", "rejected"),
            ("second", "main", "done"),
            ("first", "other", "done"),
            ("second", "other", "done"),
        ]
        rows = await gateway.submissions(job["id"])
        steps = await desk.log(job["id"])
    assert [row["cost"] for row in rows] == [None, "0.00", "0.00", "0.20"]
    assert [row["error"] and row["error"]["code"] for row in rows[1:]] == ["provider_error", "provider_error", None]
    assert (ended["cost"]["charged"], ended["cost"]["certainty"]) == ("0.20", "certain")
    failed_render = STEPS[:3]
    assert [step["type"] for step in steps] == [*STEPS[:2], *failed_render, *failed_render, *STEPS]


async def test_a_new_render_begins_with_no_progress(office: Office, first: Studio) -> None:
    first.says = {**RUNNING, "progress": 0.9}
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN)
        await gateway.reached(job["id"], "job.progress", saying='"progress":90')
        first.says = FAILED_FREE
        await gateway.ended(job["id"])
        steps = await desk.log(job["id"])
    again = [step["data"]["progress"] for step in steps if step["type"] in {"job.queued", "job.submitting"}]
    assert again == [0, 0, 0, 0]


async def test_when_every_way_failed_the_job_says_why(office: Office, first: Studio, second: Studio) -> None:
    first.says = FAILED_FREE
    second.says = {**FAILED_FREE, "failureCode": "ASSET.INVALID"}
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN)
        ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "input_refused")
    assert (ended["cost"]["charged"], ended["cost"]["certainty"]) == ("0.00", "none")


@pytest.mark.parametrize(
    ("verdict", "max_cost", "charged"),
    [
        pytest.param(CHARGED, None, None, id="charged-and-no-limit"),
        pytest.param(CHARGED, "0.29", None, id="charged-and-the-sum-is-over-the-limit"),
        pytest.param(CHARGED, "0.30", "0.30", id="charged-and-the-sum-fits"),
        pytest.param(UNBILLED, None, None, id="nobody-says-and-no-limit"),
        pytest.param(UNBILLED, "0.34", None, id="nobody-says-and-the-most-is-over-the-limit"),
        pytest.param(UNBILLED, "0.35", "0.20", id="nobody-says-and-the-most-fits"),
    ],
)
async def test_a_submission_that_cost_money_is_followed_by_another_only_within_max_cost(
    office: Office,
    first: Studio,
    second: Studio,
    verdict: Mapping[str, Any],
    max_cost: str | None,
    charged: str | None,
) -> None:
    first.says, first.limit_credits = verdict, 15
    async with shop(office, second=[OTHER]) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER], max_cost=max_cost)
        ended = await gateway.ended(job["id"])
    assert ended["status"] == ("succeeded" if charged else "failed")
    assert len(second.orders) == (1 if charged else 0)
    assert ended["cost"]["certainty"] == "certain"
    assert ended["cost"]["charged"] == (charged or ("0.10" if verdict is CHARGED else None))
    assert ended["max_cost"] == max_cost


@pytest.mark.parametrize(
    ("purchases", "charged", "certainty"),
    [
        ([], "0.00", "none"),
        ([(None, "none")], "0.00", "none"),
        ([("0.10", "certain"), ("0.25", "certain")], "0.35", "certain"),
        ([("0.00", "none"), (None, "none"), ("0.25", "certain")], "0.25", "certain"),
        ([("0.10", "certain"), (None, "possible")], "0.10", "possible"),
        ([(None, "certain")], None, "certain"),
    ],
)
async def test_the_cost_of_a_job_is_the_sum_and_as_sure_as_the_least_sure_submission(
    database: Database, account_id: UUID, purchases: list[tuple[str | None, str]], charged: str | None, certainty: str
) -> None:
    job_id = new_id()
    async with database.begin() as conn:
        await repository.create(conn, [a_draft(job_id, account_id, MAIN)])
        for cost, sure in purchases:
            intent = submissions.Intent(
                new_id(), job_id, account_id, "first", MAIN, "main", None, b"", b"", send_within=1
            )
            amount = None if cost is None else Decimal(cost)
            await submissions.write_intent(conn, intent)
            await submissions.end(
                conn, intent.id, SubmissionState.DONE, cost=amount, charge_certainty=ChargeCertainty(sure)
            )
        job = await repository.recount(conn, job_id)
    assert (money(job.cost), job.charge_certainty) == (charged, certainty)
