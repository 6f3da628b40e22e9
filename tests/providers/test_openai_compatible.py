"""The adapter for OpenAI's Videos API: the contract for each profile, the exact bytes, the recorded reply shapes."""

import json
from datetime import timedelta
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
from app.providers.openai_compatible import OpenAICompatible
from app.providers.transport import Reply
from tests.providers.contract import ProviderContract, soon
from tests.support.raw_server import reply, running_raw_server

REF = UUID("018f3c5e-7a1b-7cde-8f00-0123456789ab")
VIDEO = "video_123"
PROFILES = ("openai", "sglang", "vllm_omni")
RATE_LIMIT = {"message": "Rate limit reached", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
NO_QUOTA = {"message": "You exceeded your quota", "type": "insufficient_quota", "param": None, "code": None}
POLICY = {"message": "Rejected", "type": "invalid_request_error", "param": "prompt", "code": "content_policy_violation"}


class OpenAIContract(ProviderContract):
    """What the profiles have in common."""

    adapter: ClassVar[type[Provider]] = OpenAICompatible

    def finished_with(self, result: str) -> tuple[int, bytes]:
        del result  # these servers hand out videos themselves
        return 200, json.dumps({"id": "remote", "object": "video", "status": "completed"}).encode()


class TestOpenAI(OpenAIContract):
    path: ClassVar[str] = "/openai/v1"
    profile: ClassVar[str | None] = "openai"
    model: ClassVar[str] = "sora-2"
    finds_nothing = Inconclusive  # what a hosted list does not show proves nothing
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE

    async def test_server_says_when_to_look_again(self, provider: Provider) -> None:
        outcome = await provider.poll(await self.bought(provider, "a video [never]"))
        assert isinstance(outcome, Pending)
        assert outcome.poll_after is not None
        assert outcome.poll_after > timedelta(0)


class TestSGLang(OpenAIContract):
    path: ClassVar[str] = "/sglang/v1"
    profile: ClassVar[str | None] = "sglang"
    model: ClassVar[str] = "Wan-AI/Wan2.2"
    finds = Inconclusive  # its records do not show the prompt
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE

    def finished_with(self, result: str) -> tuple[int, bytes]:
        return 200, json.dumps({"id": "remote", "status": "completed", "url": result, "urls": [result]}).encode()


class TestVLLMOmni(OpenAIContract):
    path: ClassVar[str] = "/vllm/v1"
    profile: ClassVar[str | None] = "vllm_omni"
    model: ClassVar[str] = "sandbox-video"
    cancels: ClassVar[CancelOutcome] = CancelOutcome.CONFIRMED
    after_cancel: ClassVar[type[PollOutcome]] = Missing
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.FAILED


class TestTensorRT(OpenAIContract):
    path: ClassVar[str] = "/tensorrt/v1"
    profile: ClassVar[str | None] = "tensorrt_llm"
    model: ClassVar[str] = "sandbox-video"
    finds_nothing = Inconclusive
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE


class TestNewAPI(OpenAIContract):
    path: ClassVar[str] = "/newapi/v1"
    profile: ClassVar[str | None] = "newapi"
    model: ClassVar[str] = "sora-2"
    finds = Inconclusive  # it has no list
    finds_nothing = Inconclusive
    lists = False
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE


class TestLiteLLM(OpenAIContract):
    path: ClassVar[str] = "/litellm/v1"
    profile: ClassVar[str | None] = "litellm"
    model: ClassVar[str] = "sora-2"
    finds = Inconclusive  # its list is another server's
    finds_nothing = Inconclusive
    lists = False
    cancels: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE
    after_cancel: ClassVar[type[PollOutcome]] = Pending
    cancels_refused: ClassVar[CancelOutcome] = CancelOutcome.NOT_CANCELLABLE


class TestGeneric(TestOpenAI):
    profile: ClassVar[str | None] = "generic"


# The exact bytes ------------------------------------------------------------------------------------------------------


def opened(profile: str, clients: Clients, url: str = "http://upstream.example/v1") -> OpenAICompatible:
    return OpenAICompatible.open(Access(base_url=url, credential="key", profile=profile), clients)


def order(**wishes: Any) -> ProviderRequest:
    return ProviderRequest(
        **{"model": "m", "prompt": 'a "video" – 映画', "seconds": 8, "width": 1280, "height": 720, **wishes}
    )


FULL = {"seed": 7, "negative_prompt": "rain", "audio": False, "options": {"fps": 24, "turbo": True, "model": "other"}}
MARK = REF.hex


def form(**fields: str) -> str:
    parts = [
        f'--{MARK}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()
    ]
    return "".join(parts) + f"--{MARK}--\r\n"


CREATES = [
    ("openai", {}, '{"model":"m","prompt":"a \\"video\\" – 映画","seconds":"8","size":"1280x720"}'),
    ("sglang", {}, '{"model":"m","prompt":"a \\"video\\" – 映画","seconds":8,"size":"1280x720"}'),
    ("vllm_omni", {}, form(model="m", prompt='a "video" – 映画', seconds="8", size="1280x720")),
    (
        "sglang",
        FULL,
        (
            '{"fps":24,"turbo":true,"model":"m","prompt":"a \\"video\\" – 映画","seconds":8,"size":"1280x720",'
            '"seed":7,"negative_prompt":"rain"}'
        ),
    ),
    (
        "vllm_omni",
        FULL,
        form(
            fps="24",
            turbo="true",
            model="m",
            prompt='a "video" – 映画',
            seconds="8",
            size="1280x720",
            seed="7",
            negative_prompt="rain",
            generate_sound="false",
        ),
    ),
]


@pytest.mark.parametrize(("profile", "wishes", "body"), CREATES)
async def test_create_is_exactly_this_on_the_wire(
    profile: str, wishes: dict[str, Any], body: str, clients: Clients
) -> None:
    async with running_raw_server(reply(b'{"id":"video_123","object":"video"}')) as server:
        provider = opened(profile, clients, f"{server.url}/v1/")
        outcome = await provider.submit(provider.create_call(order(**wishes), REF), soon())
        [heard] = server.heard
    assert isinstance(outcome, Accepted)
    assert heard.line == "POST /v1/videos HTTP/1.1"
    assert heard.body.decode() == body
    multipart = f"multipart/form-data; boundary={MARK}"
    assert {name: heard.headers[name] for name in heard.headers.keys() - {"host"}} == {
        "authorization": "Bearer key",
        "x-filmgate-submission": "sub_01hwy5wygvfkf8y0014d2pf2db",
        "content-type": multipart if profile == "vllm_omni" else "application/json",
        "content-length": str(len(body.encode())),
        "user-agent": "filmgate",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


async def test_status_content_and_cancel_are_exactly_this_on_the_wire(clients: Clients) -> None:
    async with running_raw_server(reply(b'{"status":"completed"}')) as server:
        provider = opened("vllm_omni", clients, f"{server.url}/v1")
        finished = await provider.poll("a/b?c")
        assert isinstance(finished, Finished)
        async with provider.open_result(finished.results[0]):
            pass
        await provider.cancel("a/b?c")
        assert [heard.line for heard in server.heard] == [
            "GET /v1/videos/a%2Fb%3Fc HTTP/1.1",
            "GET /v1/videos/a%2Fb%3Fc/content HTTP/1.1",
            "DELETE /v1/videos/a%2Fb%3Fc HTTP/1.1",
        ]
        assert all(heard.headers["authorization"] == "Bearer key" for heard in server.heard)


async def test_server_without_a_key_gets_no_credential(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        provider = OpenAICompatible.open(Access(base_url=server.url, profile="sglang"), clients)
        await provider.poll(VIDEO)
        assert "authorization" not in server.heard[0].headers


# Recorded shapes ------------------------------------------------------------------------------------------------------


def shape(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("profile", "body"),
    [
        (
            "openai",
            {
                "id": VIDEO,
                "object": "video",
                "model": "sora-2",
                "status": "queued",
                "progress": 0,
                "created_at": 1758941485,
                "size": "1280x720",
                "seconds": "8",
                "quality": "standard",
            },
        ),
        ("sglang", {"id": VIDEO, "object": "video", "status": "queued", "file_path": None, "url": None, "urls": None}),
        ("vllm_omni", {"id": VIDEO, "object": "video", "status": "queued", "size": None, "error": None}),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_accepted(profile: str, body: dict[str, Any], status: int, clients: Clients) -> None:
    assert opened(profile, clients).read_created(shape(status, body)) == Accepted(VIDEO, raw=body)


REFUSALS: list[tuple[str, int, Any, Failure]] = [
    ("openai", 429, {"error": RATE_LIMIT}, Failure(Fault.CAPACITY, True, Billed.NO, "rate_limit_exceeded")),
    ("openai", 429, {"error": NO_QUOTA}, Failure(Fault.QUOTA, True, Billed.NO, "insufficient_quota")),
    ("openai", 400, {"error": POLICY}, Failure(Fault.PROMPT, False, Billed.NO, "content_policy_violation")),
    ("openai", 403, {"error": POLICY}, Failure(Fault.PROMPT, False, Billed.NO, "content_policy_violation")),
    ("openai", 401, {"error": {"message": "Incorrect API key: safety"}}, Failure(Fault.ACCOUNT, False, Billed.NO)),
    ("openai", 403, {"error": {"message": "Verify your organization"}}, Failure(Fault.ACCOUNT, False, Billed.NO)),
    ("openai", 402, {"error": {"message": "Pay"}}, Failure(Fault.QUOTA, False, Billed.NO)),
    ("openai", 404, {"error": {"message": "No such model"}}, Failure(Fault.INPUT, False, Billed.NO)),
    ("openai", 410, {"error": {"message": "Shut down"}}, Failure(Fault.INPUT, False, Billed.NO)),
    ("sglang", 400, {"detail": "prompt is required"}, Failure(Fault.INPUT, False, Billed.NO)),
    ("sglang", 422, {"detail": [{"msg": "bad", "loc": ["body"]}]}, Failure(Fault.INPUT, False, Billed.NO)),
    ("vllm_omni", 401, {"error": "Unauthorized"}, Failure(Fault.ACCOUNT, False, Billed.NO)),
    (
        "vllm_omni",
        400,
        {"error": {"message": "Model mismatch", "type": "BadRequestError", "param": None, "code": 400}},
        Failure(Fault.INPUT, False, Billed.NO, "400"),
    ),
]


@pytest.mark.parametrize(("profile", "status", "body", "failure"), REFUSALS)
def test_refusals(profile: str, status: int, body: Any, failure: Failure, clients: Clients) -> None:
    outcome = opened(profile, clients).read_created(shape(status, body, {"retry-after-ms": "1500"}))
    assert isinstance(outcome, Rejected)
    said = outcome.failure
    assert (said.fault, said.retryable, said.billed, said.upstream_code) == (
        failure.fault,
        failure.retryable,
        failure.billed,
        failure.upstream_code,
    )
    assert said.detail
    assert said.raw == body
    assert said.retry_after == timedelta(milliseconds=1500)


def failed(code: Any, message: str | None = "It failed.", **more: Any) -> dict[str, Any]:
    error = {name: value for name, value in {"code": code, "message": message, **more}.items() if value is not None}
    return {"id": VIDEO, "object": "video", "status": "failed", "error": error}


FAILURES: list[tuple[str, int, Any, Fault, bool, Billed]] = [
    ("openai", 200, failed("moderation_blocked"), Fault.PROMPT, False, Billed.UNKNOWN),
    (
        "openai",
        200,
        failed("moderation_blocked", "The output was blocked."),
        Fault.OUTPUT_MODERATION,
        False,
        Billed.UNKNOWN,
    ),
    ("openai", 200, failed("video_generation_failed"), Fault.PROVIDER, False, Billed.UNKNOWN),
    ("openai", 200, failed("server_error"), Fault.PROVIDER, True, Billed.UNKNOWN),
    ("openai", 200, failed("strange", headers={"Retry-After": "9"}), Fault.PROVIDER, True, Billed.UNKNOWN),
    ("openai", 200, failed("invalid_value"), Fault.INPUT, False, Billed.UNKNOWN),
    ("openai", 200, {"id": VIDEO, "status": "failed"}, Fault.PROVIDER, False, Billed.UNKNOWN),
    ("openai", 200, {"id": VIDEO, "status": "failed", "error": "boom"}, Fault.PROVIDER, False, Billed.UNKNOWN),
    ("openai", 200, {"id": VIDEO, "status": "expired"}, Fault.PROVIDER, False, Billed.UNKNOWN),
    ("sglang", 200, failed(None, "could not be published"), Fault.PROVIDER, False, Billed.NO),
    ("vllm_omni", 500, failed(500, "CUDA error"), Fault.PROVIDER, True, Billed.NO),
    ("vllm_omni", 400, failed(400, "bad size"), Fault.INPUT, False, Billed.NO),
    ("vllm_omni", 404, failed(404, "no such lora"), Fault.INPUT, False, Billed.NO),
]


@pytest.mark.parametrize(("profile", "status", "body", "fault", "retryable", "billed"), FAILURES)
def test_failed_renders(
    profile: str, status: int, body: Any, fault: Fault, retryable: bool, billed: Billed, clients: Clients
) -> None:
    outcome = opened(profile, clients).read_status(VIDEO, shape(status, body))
    assert isinstance(outcome, Failed)
    assert (outcome.failure.fault, outcome.failure.retryable, outcome.failure.billed) == (fault, retryable, billed)
    assert outcome.raw == body


CONTENT = f"/videos/{VIDEO}/content"
S3 = "https://bucket.example/1.mp4?X-Amz-Signature=1"
STATES: list[tuple[str, int, Any, dict[str, str], PollOutcome]] = [
    ("openai", 200, {"status": "queued", "progress": 0}, {}, Pending(0)),
    (
        "openai",
        200,
        {"status": "in_progress", "progress": 33},
        {"openai-poll-after-ms": "2500"},
        Pending(33, timedelta(seconds=2.5)),
    ),
    ("openai", 200, {"status": "in_progress", "progress": -1}, {"openai-poll-after-ms": "soon"}, Pending()),
    ("openai", 200, {"status": "in_progress", "progress": True}, {"openai-poll-after-ms": "-1"}, Pending()),
    ("openai", 200, {"status": "preprocessing"}, {}, Pending(oddity="preprocessing")),
    ("openai", 200, {"status": ""}, {}, Pending(oddity="")),
    ("openai", 200, {"status": "completed", "url": S3}, {}, Finished((CONTENT,))),
    ("openai", 200, {"status": "cancelled"}, {}, Canceled()),
    ("sglang", 200, {"status": "deleted"}, {}, Canceled()),
    ("sglang", 200, {"status": "completed", "file_path": "/data/1.mp4", "url": None}, {}, Finished((CONTENT,))),
    ("sglang", 200, {"status": "completed", "url": "/data/1.mp4"}, {}, Finished((CONTENT,))),
    ("sglang", 200, {"status": "completed", "url": S3, "urls": [S3]}, {}, Finished((S3,))),
    ("sglang", 200, {"status": "completed", "url": None, "urls": [S3, S3 + "2"]}, {}, Finished((S3, S3 + "2"))),
    ("sglang", 404, {"detail": "Video not found"}, {}, Missing()),
    ("vllm_omni", 404, {"error": {"message": "Video x not found", "code": 404}}, {}, Missing()),
    ("openai", 404, {"message": "no route"}, {}, Unreadable("HTTP 404: unexpected body of 23 bytes")),
    (
        "openai",
        429,
        {"error": RATE_LIMIT},
        {"retry-after": "4"},
        Unreadable("HTTP 429: rate_limit_exceeded rate_limit_error Rate limit reached", timedelta(seconds=4)),
    ),
    ("openai", 401, {"error": {"message": "no"}}, {}, Unreadable("HTTP 401: no")),
    ("openai", 500, {"status": "in_progress"}, {}, Unreadable("HTTP 500: unexpected body of 25 bytes")),
]


@pytest.mark.parametrize(("profile", "status", "body", "headers", "outcome"), STATES)
def test_states(
    profile: str, status: int, body: Any, headers: dict[str, str], outcome: PollOutcome, clients: Clients
) -> None:
    read = opened(profile, clients).read_status(VIDEO, shape(status, body, headers))
    assert repr(read) == repr(outcome)  # the raw payload is in no repr


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"id": VIDEO, "deleted": True, "object": "video.deleted"}, CancelOutcome.CONFIRMED),
        (200, {"id": VIDEO, "deleted": False}, CancelOutcome.FAILED),
        (200, {"deleted": True}, CancelOutcome.CONFIRMED),
        (200, {"id": "another", "deleted": True}, CancelOutcome.FAILED),
        (409, {"detail": "Cancellation in progress"}, CancelOutcome.FAILED),
        (404, {"detail": "Video not found"}, CancelOutcome.FAILED),
        (404, "a proxy's page", CancelOutcome.FAILED),
        (500, {"detail": "oops"}, CancelOutcome.FAILED),
    ],
)
def test_cancels(status: int, body: Any, outcome: CancelOutcome, clients: Clients) -> None:
    assert opened("vllm_omni", clients).read_canceled(VIDEO, shape(status, body)) is outcome


@pytest.mark.parametrize("profile", ["openai", "sglang"])
def test_deletion_that_is_no_cancel_is_never_sent(profile: str, clients: Clients) -> None:
    provider = opened(profile, clients)
    assert provider.cancel_call(VIDEO) is None
    assert not provider.traits.cancels


@pytest.mark.parametrize("option", ["output_path", "video_path", "perf_dump_path", "extra_body", "num_frames", "n"])
def test_fields_that_reach_into_the_server_are_reserved(option: str, clients: Clients) -> None:
    assert option in opened("sglang", clients).traits.reserved_options


@pytest.mark.parametrize(
    ("access", "key"),
    [
        (Access(base_url="http://a", credential="k"), "profile"),
        (Access(base_url="http://a", credential="k", profile="other"), "profile"),
        (Access(credential="k", profile="openai"), "base_url"),
        (Access(base_url="http://a", profile="openai"), "api_key"),
    ],
)
def test_unusable_access_names_the_key(access: Access, key: str, clients: Clients) -> None:
    with pytest.raises(BadAccess) as caught:
        OpenAICompatible.open(access, clients)
    assert caught.value.key == key
