"""Runway's adapter: the contract, the exact bytes, and the reply shapes of its documentation."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest

from app.providers.base import (
    Accepted,
    Access,
    BadAccess,
    Canceled,
    CancelOutcome,
    Failed,
    Finished,
    Inconclusive,
    Missing,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    Unreadable,
)
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.runway import Runway
from app.providers.transport import Reply
from tests.providers.conftest import Upstream
from tests.providers.contract import ProviderContract, soon
from tests.support.raw_server import reply, running_raw_server

REF = UUID("018f3c5e-7a1b-7cde-8f00-0123456789ab")
TASK = "17f20503-6c24-4c16-946b-35dbbce2af2f"


class TestRunway(ProviderContract):
    adapter: ClassVar[type[Provider]] = Runway
    path: ClassVar[str] = "/runway"
    model: ClassVar[str] = "gen4.5"
    odd_word: ClassVar[str] = "RETICULATING"
    finds = Inconclusive
    finds_nothing = Inconclusive
    lists = False
    cancels: ClassVar[CancelOutcome] = CancelOutcome.REQUESTED
    after_cancel: ClassVar[type[PollOutcome]] = Canceled
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE

    def finished_with(self, result: str) -> tuple[int, bytes]:
        return 200, json.dumps({"id": "remote", "status": "SUCCEEDED", "output": [result]}).encode()

    async def test_maximum_and_final_cost_are_in_dollars(self, provider: Provider) -> None:
        accepted = await self.buy(provider, "a video")
        assert isinstance(accepted, Accepted)
        assert accepted.cost_limit == Decimal("0.48")  # 4 s at 12 credits
        finished = await provider.poll(accepted.remote_id)
        assert isinstance(finished, Finished)
        assert finished.cost == Decimal("0.48")

    async def test_reading_a_finished_task_again_gives_fresh_urls(self, provider: Provider, upstream: Upstream) -> None:
        remote_id = await self.bought(provider, "a video")
        first, second = [await provider.poll(remote_id) for _ in range(2)]
        assert isinstance(first, Finished)
        assert isinstance(second, Finished)
        assert first.results != second.results
        assert second.results[0].startswith(upstream.url)

    async def test_deleted_task_is_missing_and_its_cancel_is_only_requested(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video")
        assert await provider.cancel(remote_id) is CancelOutcome.REQUESTED
        assert isinstance(await provider.poll(remote_id), Missing)
        assert await provider.cancel(remote_id) is CancelOutcome.FAILED


@pytest.fixture(scope="session")
def runway(clients: Clients) -> Runway:
    return Runway.open(Access(credential="key"), clients)


def order(**wishes: Any) -> ProviderRequest:
    return ProviderRequest(
        **{"model": "veo3.1", "prompt": 'a "video" – 映画', "seconds": 8, "width": 1280, "height": 720, **wishes}
    )


@pytest.mark.parametrize(
    ("wishes", "body"),
    [
        ({}, '{"model":"veo3.1","promptText":"a \\"video\\" – 映画","ratio":"1280:720","duration":8}'),
        (
            {"seed": 7, "audio": False, "negative_prompt": "rain", "width": 720, "height": 1280, "prompt": "x"},
            (
                '{"model":"veo3.1","promptText":"x","ratio":"720:1280","duration":8,"seed":7,"audio":false,'
                '"negativePrompt":"rain"}'
            ),
        ),
        (
            {"prompt": "x", "options": {"contentModeration": {"publicFigureThreshold": "low"}, "model": "other"}},
            (
                '{"contentModeration":{"publicFigureThreshold":"low"},"model":"veo3.1","promptText":"x",'
                '"ratio":"1280:720","duration":8}'
            ),
        ),
    ],
)
async def test_create_is_exactly_this_on_the_wire(wishes: dict[str, Any], body: str, clients: Clients) -> None:
    created = reply(json.dumps({"id": TASK, "estimatedCost": {"credits": 320}}).encode())
    async with running_raw_server(created) as server:
        provider = Runway.open(Access(base_url=server.url + "/", credential="key"), clients)
        outcome = await provider.submit(provider.create_call(order(**wishes), REF), soon())
        [heard] = server.heard
    assert isinstance(outcome, Accepted)
    assert heard.line == "POST /v1/text_to_video HTTP/1.1"
    assert heard.body.decode() == body
    assert {name: heard.headers.get(name) for name in heard.headers.keys() - {"host"}} == {
        "authorization": "Bearer key",
        "x-runway-version": "2024-11-06",
        "x-filmgate-submission": "sub_01hwy5wygvfkf8y0014d2pf2db",
        "content-type": "application/json",
        "content-length": str(len(body.encode())),
        "user-agent": "filmgate",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


async def test_status_and_cancel_are_exactly_this_on_the_wire(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        provider = Runway.open(Access(base_url=server.url, credential="key"), clients)
        await provider.poll(TASK)
        await provider.cancel(TASK)
        assert [(heard.line, heard.body) for heard in server.heard] == [
            (f"GET /v1/tasks/{TASK} HTTP/1.1", b""),
            (f"DELETE /v1/tasks/{TASK} HTTP/1.1", b""),
        ]
        assert all(heard.headers["x-runway-version"] == "2024-11-06" for heard in server.heard)


@pytest.mark.parametrize(
    ("status", "body", "fault", "retryable"),
    [
        (400, {"error": "Validation of body failed", "issues": []}, Fault.INPUT, False),
        (400, {"error": "The prompt did not pass content moderation."}, Fault.PROMPT, False),
        (400, {"error": "You do not have enough credits to run this task."}, Fault.QUOTA, False),
        (401, {"error": "Unauthorized: moderation key"}, Fault.ACCOUNT, False),
        (402, {"error": "Payment required"}, Fault.QUOTA, False),
        (403, {"error": "Forbidden"}, Fault.ACCOUNT, False),
        (404, {"error": "Not found"}, Fault.INPUT, False),
        (405, {"error": "Method not allowed"}, Fault.INPUT, False),
        (429, {"error": "You have reached your daily generation limit."}, Fault.QUOTA, True),
    ],
)
def test_refusals(status: int, body: dict[str, Any], fault: Fault, retryable: bool, runway: Runway) -> None:
    outcome = runway.read_created(shape(status, body))
    assert isinstance(outcome, Rejected)
    assert outcome.failure == Failure(fault, retryable, Billed.NO, None, body["error"], None, body)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"status": "PENDING", "estimatedCost": {"credits": 60}}, Pending()),
        ({"status": "THROTTLED"}, Pending()),
        ({"status": "RUNNING", "progress": 0.425}, Pending(42)),
        ({"status": "RUNNING", "progress": 1.7}, Pending(100)),
        ({"status": "RUNNING", "progress": "half"}, Pending()),
        ({"status": "DREAMING"}, Pending(oddity="DREAMING")),
        (
            {"status": "SUCCEEDED", "output": ["https://a/1.mp4?x=1", "https://a/1.wav"], "cost": {"credits": 60}},
            Finished(("https://a/1.mp4?x=1", "https://a/1.wav"), Decimal("0.60")),
        ),
        ({"status": "SUCCEEDED", "output": ["https://a/1.mp4"]}, Finished(("https://a/1.mp4",))),
        ({"status": "SUCCEEDED", "output": []}, Unreadable("SUCCEEDED without a result")),
        ({"status": "SUCCEEDED", "output": ["file:///etc/passwd"]}, Unreadable("SUCCEEDED without a result")),
        ({"status": "CANCELLED", "cost": {"credits": 0}}, Canceled(Decimal("0.00"))),
        ({"status": "CANCELLED"}, Canceled()),
    ],
)
def test_tasks(body: dict[str, Any], outcome: PollOutcome, runway: Runway) -> None:
    read = runway.read_status(TASK, shape(200, {"id": TASK, "createdAt": "2026-11-22T10:00:00.000Z", **body}))
    assert repr(read) == repr(outcome)  # the raw payload is in no repr


@pytest.mark.parametrize(
    ("code", "cost", "fault", "retryable", "billed"),
    [
        ("SAFETY.INPUT.TEXT", None, Fault.PROMPT, False, Billed.YES),
        ("SAFETY.INPUT.TEXT", 60, Fault.PROMPT, False, Billed.YES),
        ("SAFETY.OUTPUT.VIDEO", 0, Fault.OUTPUT_MODERATION, False, Billed.NO),
        ("SAFETY.OUTPUT", None, Fault.OUTPUT_MODERATION, False, Billed.UNKNOWN),
        ("INTERNAL.BAD_OUTPUT.CODE01", 0, Fault.PROVIDER, True, Billed.NO),
        ("ASSET.INVALID", 0, Fault.INPUT, False, Billed.NO),
        ("INTERNAL", None, Fault.PROVIDER, True, Billed.UNKNOWN),
        (None, None, Fault.PROVIDER, True, Billed.UNKNOWN),
        ("SOMETHING.NEW", 25, Fault.PROVIDER, False, Billed.YES),
    ],
)
def test_failure_codes(
    code: str | None,
    cost: int | None,
    fault: Fault,
    retryable: bool,
    billed: Billed,
    runway: Runway,
) -> None:
    task: dict[str, Any] = {"id": TASK, "status": "FAILED", "failure": "An unexpected error occurred."}
    if code is not None:
        task["failureCode"] = code
    if cost is not None:
        task["cost"] = {"credits": cost}
    outcome = runway.read_status(TASK, shape(200, task))
    assert isinstance(outcome, Failed)
    assert outcome.cost == (None if cost is None else Decimal(cost) / 100)
    assert outcome.failure == Failure(fault, retryable, billed, code, "An unexpected error occurred.", None, task)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_busy_status_is_asked_again_when_runway_says(status: int, runway: Runway) -> None:
    outcome = runway.read_status(TASK, shape(status, {"error": "busy"}, {"retry-after": "7"}))
    assert outcome == Unreadable(f"HTTP {status}: busy", timedelta(seconds=7))


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (204, None, CancelOutcome.REQUESTED),
        (404, {"error": "No such task"}, CancelOutcome.FAILED),
        (404, None, CancelOutcome.FAILED),
        (400, {"error": "It is too late"}, CancelOutcome.NOT_CANCELLABLE),
        (401, {"error": "Unauthorized"}, CancelOutcome.FAILED),
        (429, {"error": "Too many"}, CancelOutcome.FAILED),
        (503, {"error": "Away"}, CancelOutcome.FAILED),
    ],
)
def test_cancels(status: int, body: Any, outcome: CancelOutcome, runway: Runway) -> None:
    assert runway.read_canceled("remote", shape(status, body)) is outcome


@pytest.mark.parametrize(("access", "key"), [(Access(credential="k", profile="x"), "profile"), (Access(), "api_key")])
def test_unusable_access_names_the_key(access: Access, key: str, clients: Clients) -> None:
    with pytest.raises(BadAccess) as caught:
        Runway.open(access, clients)
    assert caught.value.key == key


def shape(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, b"" if body is None else json.dumps(body).encode())
