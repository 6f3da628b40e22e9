"""Kling's adapter: the contract, the exact bytes, and the reply shapes of its documentation."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest

from app import ids
from app.providers.base import (
    Accepted,
    Access,
    BadAccess,
    CancelOutcome,
    Failed,
    Finished,
    Missing,
    Page,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    RemoteJobSummary,
    Unlisted,
    Unreadable,
)
from app.providers.catalog import Catalog
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.kling import Kling
from app.providers.transport import Reply
from tests.providers.capabilities import CallbackContract, ReferenceContract
from tests.providers.conftest import Upstream
from tests.providers.contract import soon
from tests.support.raw_server import reply, running_raw_server

REF = UUID("018f3c5e-7a1b-7cde-8f00-0123456789ab")
REFERENCE = "sub_01hwy5wygvfkf8y0014d2pf2db"
TASK = "893605946402811985"


class TestKling(ReferenceContract, CallbackContract):
    adapter: ClassVar[type[Provider]] = Kling
    path: ClassVar[str] = "/kling"
    model: ClassVar[str] = "kling-3.0"
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE

    def finished_with(self, result: str) -> tuple[int, bytes]:
        task = {"id": "remote", "status": "succeeded", "outputs": [{"type": "video", "url": result}]}
        return 200, json.dumps({"code": 0, "data": [task]}).encode()

    def known_by(self, reference: str, *remote_ids: str) -> bytes:
        tasks = [{"id": name, "status": "submitted", "external_id": reference} for name in remote_ids]
        return json.dumps({"code": 0, "data": tasks}).encode()

    async def test_final_cost_is_in_dollars(self, provider: Provider) -> None:
        finished = await provider.poll(await self.bought(provider, "a video"))
        assert isinstance(finished, Finished)
        assert finished.cost == Decimal("0.336")  # 4 s at 720p, silent

    async def test_video_lies_at_the_provider_for_any_client(self, provider: Provider, upstream: Upstream) -> None:
        finished = await provider.poll(await self.bought(provider, "a video"))
        assert isinstance(finished, Finished)
        assert finished.results[0].startswith(upstream.url)
        assert not provider.result_call(finished.results[0]).authorized

    @pytest.mark.parametrize("model", ["kling-3.0", "kling-3.0-turbo", "kling-2.6", "kling-2.5-turbo"])
    async def test_all_that_the_catalogue_offers_is_accepted(self, model: str, provider: Provider) -> None:
        known = Catalog.load({}, {}).resolve(f"kling/{model}")
        for size in known.facts.sizes:
            width, height = map(int, size.split("x"))
            longest = "x" * known.facts.prompt_chars
            for seconds, audio in ((min(known.facts.seconds), None), (max(known.facts.seconds), True)):
                asked = audio if known.facts.audio == "optional" else None
                wanted = ProviderRequest(known.facts.upstream, longest, seconds, width, height, audio=asked)
                outcome = await provider.submit(provider.create_call(wanted, ids.new_id()), soon())
                assert isinstance(outcome, Accepted), (size, seconds, outcome)
                finished = await provider.poll(outcome.remote_id)
                assert isinstance(finished, Finished)
                most = known.price(seconds, size)
                assert finished.cost is not None
                assert most is not None
                assert finished.cost <= most
                assert finished.cost == most or asked is None


@pytest.fixture(scope="session")
def kling(clients: Clients) -> Kling:
    return Kling.open(Access(credential="key"), clients)


def order(**wishes: Any) -> ProviderRequest:
    return ProviderRequest(
        **{"model": "kling-3.0", "prompt": 'a "video" – 映画', "seconds": 8, "width": 1280, "height": 720, **wishes}
    )


CREATE_720P = (
    '{"prompt":"a \\"video\\" – 映画","settings":{"resolution":"720p","aspect_ratio":"16:9","duration":8},'
    f'"options":{{"external_task_id":"{REFERENCE}"}}}}'
)


@pytest.mark.parametrize(
    ("wishes", "callback_url", "body"),
    [
        ({}, None, CREATE_720P),
        ({"seed": 7, "negative_prompt": "rain"}, None, CREATE_720P),
        (
            {"width": 2160, "height": 3840, "audio": True, "prompt": "x", "options": {"multi_shot": False}},
            "https://gateway.example/v1/callbacks/kling/token",
            (
                '{"prompt":"x","settings":{"multi_shot":false,"resolution":"4k","aspect_ratio":"9:16","duration":8,'
                f'"audio":"native"}},"options":{{"external_task_id":"{REFERENCE}",'
                '"callback_url":"https://gateway.example/v1/callbacks/kling/token"}}'
            ),
        ),
        (
            {"width": 1080, "height": 1080, "audio": False, "prompt": "x", "options": {"duration": 15}},
            None,
            (
                '{"prompt":"x","settings":{"duration":8,"resolution":"1080p","aspect_ratio":"1:1","audio":"off"},'
                f'"options":{{"external_task_id":"{REFERENCE}"}}}}'
            ),
        ),
    ],
)
async def test_create_is_exactly_this_on_the_wire(
    wishes: dict[str, Any], callback_url: str | None, body: str, clients: Clients
) -> None:
    created = reply(json.dumps({"code": 0, "data": {"id": TASK, "status": "submitted"}}).encode())
    async with running_raw_server(created) as server:
        provider = Kling.open(Access(base_url=server.url + "/", credential="key"), clients)
        outcome = await provider.submit(provider.create_call(order(**wishes), REF, callback_url), soon())
        [heard] = server.heard
    assert outcome == Accepted(TASK, None, {"code": 0, "data": {"id": TASK, "status": "submitted"}})
    assert heard.line == "POST /text-to-video/kling-3.0 HTTP/1.1"
    assert heard.body.decode() == body
    assert {name: heard.headers.get(name) for name in heard.headers.keys() - {"host"}} == {
        "authorization": "Bearer key",
        "x-filmgate-submission": REFERENCE,
        "content-type": "application/json",
        "content-length": str(len(body.encode())),
        "user-agent": "filmgate",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


async def test_status_and_look_up_are_exactly_this_on_the_wire(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        provider = Kling.open(Access(base_url=server.url, credential="key"), clients)
        await provider.poll(TASK)
        await provider.transport.send(provider.reference_call(REF) or provider.status_call(""))
        assert [(heard.line, heard.body) for heard in server.heard] == [
            (f"GET /tasks?task_ids={TASK} HTTP/1.1", b""),
            (f"GET /tasks?external_task_ids={REFERENCE} HTTP/1.1", b""),
        ]


async def test_account_in_china_is_reached_at_its_own_address(clients: Clients) -> None:
    assert Kling.open(Access(credential="k"), clients).transport._base_url == "https://api-singapore.klingai.com"
    there = Access("https://api-beijing.klingai.com", "k")
    assert Kling.open(there, clients).transport._base_url == "https://api-beijing.klingai.com"


@pytest.mark.parametrize(
    ("status", "code", "fault", "retryable"),
    [
        (401, 1000, Fault.ACCOUNT, False),
        (401, 1002, Fault.ACCOUNT, False),
        (401, 1004, Fault.ACCOUNT, False),
        (429, 1100, Fault.ACCOUNT, False),
        (429, 1101, Fault.QUOTA, False),
        (429, 1102, Fault.QUOTA, False),
        (403, 1103, Fault.ACCOUNT, False),
        (400, 1200, Fault.INPUT, False),
        (400, 1201, Fault.INPUT, False),
        (404, 1202, Fault.INPUT, False),
        (404, 1203, Fault.INPUT, False),
        (400, 1300, Fault.PROMPT, False),
        (400, 1301, Fault.PROMPT, False),
        (429, 1302, Fault.CAPACITY, True),
        (429, 1303, Fault.CAPACITY, True),
        (429, 1304, Fault.ACCOUNT, False),
        (400, 1999, Fault.INPUT, False),
        (200, 1303, Fault.CAPACITY, True),  # HTTP 200 is not success
    ],
)
def test_refusals_are_told_by_the_code(status: int, code: int, fault: Fault, retryable: bool, kling: Kling) -> None:
    body = {"code": code, "message": "no", "request_id": "r"}
    outcome = kling.read_created(shape(status, body))
    assert isinstance(outcome, Rejected)
    assert outcome.failure == Failure(fault, retryable, Billed.NO, str(code), "no", None, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 0, "message": "SUCCEED", "data": {}}),
        (200, {"code": 0, "data": {"id": 893605946402811985}}),
        (200, {"code": 0, "data": {"id": "a b"}}),
        (200, {"code": 0, "data": [{"id": TASK}]}),
        (200, {"data": {"id": TASK}}),
        (200, {"code": "0", "data": {"id": TASK}}),
        (200, {"code": False, "data": {"id": TASK}}),
        (400, {"code": 0, "data": {"id": TASK}}),
        (200, {"code": 5000, "message": "internal"}),
        (200, {"code": 5002, "message": "timeout", "data": None}),
        (429, {"code": 5001, "message": "maintenance"}),
        (400, {"code": -1, "message": "no"}),
        (400, {"code": "1201", "message": "no"}),
        (400, {"code": 1201.0, "message": "no"}),
    ],
)
def test_reply_that_proves_nothing_is_left_open(status: int, body: Any, kling: Kling) -> None:
    assert kling.read_created(shape(status, body)) is None


CASH = {"charge_type": "cash", "cash_type": "balance", "amount": "0.336", "currency": "USD", "list_price": "0.420"}
UNITS = {"charge_type": "unit", "amount": "3", "package_type": "video"}
VIDEO = {"type": "video", "id": "1", "url": "https://a/1.mp4?x=1", "watermark_url": "https://a/w.mp4", "duration": "8"}


@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        ({"status": "submitted"}, Pending()),
        ({"status": "processing", "outputs": []}, Pending()),
        ({"status": "dreaming"}, Pending(oddity="dreaming")),
        ({"status": "succeeded", "outputs": [VIDEO], "billing": [CASH]}, Finished((VIDEO["url"],), Decimal("0.336"))),
        ({"status": "succeed", "outputs": [VIDEO]}, Finished((VIDEO["url"],))),
        ({"status": "succeeded", "outputs": [VIDEO], "billing": []}, Finished((VIDEO["url"],))),
        ({"status": "succeeded", "outputs": [VIDEO], "billing": [UNITS]}, Finished((VIDEO["url"],))),
        ({"status": "succeeded", "outputs": [VIDEO], "billing": [CASH, UNITS]}, Finished((VIDEO["url"],))),
        (
            {"status": "succeeded", "outputs": [VIDEO], "billing": [CASH, CASH]},
            Finished((VIDEO["url"],), Decimal("0.672")),
        ),
        (
            {"status": "succeeded", "outputs": [VIDEO], "billing": [CASH | {"currency": "CNY"}]},
            Finished((VIDEO["url"],)),
        ),
        ({"status": "succeeded", "outputs": [VIDEO], "billing": [CASH | {"amount": "-1"}]}, Finished((VIDEO["url"],))),
        (
            {"status": "succeeded", "outputs": [VIDEO], "billing": [CASH | {"amount": 1}]},
            Finished((VIDEO["url"],), Decimal(1)),
        ),
        (
            {"status": "succeeded", "outputs": [{"type": "image", "url": "https://a/1.png"}, VIDEO]},
            Finished((VIDEO["url"],)),
        ),
        ({"status": "succeeded", "outputs": []}, Unreadable("succeeded without a video")),
        (
            {"status": "succeeded", "outputs": [VIDEO | {"url": "file:///etc/passwd"}]},
            Unreadable("succeeded without a video"),
        ),
        ({"status": "succeeded"}, Unreadable("succeeded without a video")),
    ],
)
def test_tasks(task: dict[str, Any], outcome: PollOutcome, kling: Kling) -> None:
    tasks = [{"id": "another", "status": "failed"}, {"id": TASK, "create_time": 1781080778802, **task}]
    read = kling.read_status(TASK, shape(200, {"code": 0, "message": "SUCCEED", "data": tasks}))
    assert repr(read) == repr(outcome)  # the raw payload is in no repr


@pytest.mark.parametrize(
    ("message", "fault", "retryable"),
    [
        ("Failure to pass the risk control system", Fault.PROMPT, False),
        ("The prompt is sensitive", Fault.PROMPT, False),
        ("Content safety: the generated video was withheld", Fault.OUTPUT_MODERATION, False),
        ("Internal service error", Fault.PROVIDER, True),
        ("Service busy, please try again later", Fault.PROVIDER, True),
        ("Something new", Fault.PROVIDER, False),
        ("", Fault.PROVIDER, False),
    ],
)
@pytest.mark.parametrize(
    ("billing", "billed", "cost"),
    [
        (None, Billed.UNKNOWN, None),
        ([], Billed.UNKNOWN, None),
        ([CASH], Billed.YES, Decimal("0.336")),
        ([CASH | {"amount": "0"}], Billed.NO, Decimal(0)),
        ([UNITS], Billed.YES, None),
        ([UNITS | {"amount": "0.0"}], Billed.NO, None),
        ([UNITS | {"amount": "much"}], Billed.UNKNOWN, None),
    ],
)
def test_failures_are_told_by_their_words_and_their_bill(
    message: str, fault: Fault, retryable: bool, billing: Any, billed: Billed, cost: Decimal | None, kling: Kling
) -> None:
    task = {"id": TASK, "status": "failed", "message": message, "billing": billing}
    outcome = kling.read_status(TASK, shape(200, {"code": 0, "data": [task]}))
    assert outcome == Failed(Failure(fault, retryable, billed, None, message, None, task), cost, task)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"code": 0, "data": []}, Missing()),
        (404, {"code": 1203, "message": "no such resource"}, Missing()),
        (404, {"code": 1202, "message": "no such method"}, Unreadable("HTTP 404: 1202 no such method")),
        (200, {"code": 1302, "message": "busy"}, Unreadable("HTTP 200: 1302 busy", timedelta(seconds=7))),
        (503, {"code": 5001, "message": "away"}, Unreadable("HTTP 503: 5001 away", timedelta(seconds=7))),
        (500, {"code": 0, "data": []}, Unreadable("HTTP 500: unexpected body of 23 bytes")),
        (200, {"data": []}, Unreadable("HTTP 200: unexpected body of 12 bytes")),
        (200, {"code": 0, "data": {"id": TASK}}, Unreadable("HTTP 200: unexpected body of 49 bytes")),
        (200, {"code": 0, "data": [{"id": TASK}]}, Unreadable("HTTP 200: unexpected body of 51 bytes")),
    ],
)
def test_replies_without_the_task(status: int, body: Any, outcome: PollOutcome, kling: Kling) -> None:
    headers = {"retry-after": "7"} if isinstance(outcome, Unreadable) and outcome.poll_after else {}
    assert kling.read_status(TASK, shape(status, body, headers)) == outcome


# The list ----------------------------------------------------------------------------------------------------------


def page(*names: str, **more: Any) -> bytes:
    tasks = [{"id": name, "create_time": 1781080778802, "external_id": REFERENCE} for name in names]
    return json.dumps({"code": 0, "data": {"result": tasks, "count": len(tasks), **more}}).encode()


MADE = datetime(2026, 6, 10, 8, 39, 38, tzinfo=UTC)


async def test_list_is_followed_to_its_end(clients: Clients) -> None:
    pages = [reply(page("2", has_more=True, next_cursor="c1")), reply(page("1", has_more=False, next_cursor="c2"))]
    async with running_raw_server(*pages) as server:
        provider = Kling.open(Access(base_url=server.url, credential="key"), clients)
        records = await provider.records(MADE, MADE)
        assert [(heard.line, heard.body) for heard in server.heard] == [
            ("POST /tasks HTTP/1.1", b'{"limit":100}'),
            ("POST /tasks HTTP/1.1", b'{"limit":100,"cursor":"c1"}'),
        ]
    assert records.records == (
        RemoteJobSummary("2", MADE, reference=REFERENCE),
        RemoteJobSummary("1", MADE, reference=REFERENCE),
    )
    assert records.complete


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (page(), Page((), None)),
        (page(next_cursor="", has_more=False), Page((), None)),
        (page(next_cursor="c"), Page((), "c")),
        (page(next_cursor="c", has_more=False), Page((), None)),
        (page(next_cursor="", has_more=True), None),
        (page(has_more=True), None),
        (page("a b"), None),
        (b'{"code":0,"data":{"result":[{"id":"1"},{"id":"2","create_time":true,"external_id":""}]}}',
         Page((RemoteJobSummary("1", None), RemoteJobSummary("2", None)), None)),
        (b'{"code":0,"data":[]}', None),
        (b'{"data":{"result":[]}}', None),
        (b'{"code":1201,"data":{"result":[]}}', None),
    ],
)  # fmt: skip
def test_pages(body: bytes, read: Page | None, kling: Kling) -> None:
    assert kling.read_page(Reply(200, {}, body)) == read
    assert kling.read_page(Reply(500, {}, body)) is None


async def test_refused_list_is_said_to_be_none(upstream: Upstream, clients: Clients) -> None:
    provider = Kling.open(Access(f"{upstream.url}/kling", "wrong-key"), clients)
    with pytest.raises(Unlisted):
        await provider.records(MADE, MADE)


@pytest.mark.parametrize(
    ("access", "key"),
    [
        (Access(credential="k", profile="x"), "profile"),
        (Access(), "api_key"),
        (Access(credential="k", callback_secret=""), "callback_secret"),
        (Access(credential="k", callback_secret="whsec_"), "callback_secret"),
        (Access(credential="k", callback_secret="whsec_not base64"), "callback_secret"),
        (Access(credential="k", callback_secret="whsec_é"), "callback_secret"),
    ],
)
def test_unusable_access_names_the_key(access: Access, key: str, clients: Clients) -> None:
    with pytest.raises(BadAccess) as caught:
        Kling.open(access, clients)
    assert caught.value.key == key


def shape(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, json.dumps(body).encode())
