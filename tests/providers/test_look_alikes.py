"""What servers with OpenAI's routes really say, recorded from their code, and what must never be believed."""

import json
from typing import Any
from urllib.parse import unquote

import pytest

from app import ids
from app.providers.base import (
    Accepted,
    Access,
    BadAccess,
    Canceled,
    Failed,
    Finished,
    Missing,
    Pending,
    ProviderRequest,
    Rejected,
    Unknown,
    Unreadable,
)
from app.providers.errors import Fault
from app.providers.http_clients import Clients
from app.providers.openai_compatible import OpenAICompatible
from app.providers.openai_profiles import PROFILES
from app.providers.scrubbing import Scrubber
from app.providers.transport import Reply
from tests.providers.contract import soon
from tests.support.raw_server import reply, running_raw_server

ORDER = ProviderRequest(model="m", prompt="a video", seconds=8, width=1280, height=720, seed=7)
FLAT = {"code": "invalid_request", "message": "seconds is invalid", "data": None}
OBJECT = {"object": "error", "message": "Extra inputs are not permitted", "type": "BadRequestError", "code": 400}
ZOD = {"success": False, "error": {"issues": [{"path": ["seconds"], "message": "Expected number"}], "name": "ZodError"}}
FLAGGED = {"error": True, "message": "Model not allowed"}
NESTED = {"error": {"message": "bad size", "type": "invalid_request_error", "param": "size", "code": "400"}}
API_SERVERS = {
    "error": {
        "message": "/v1/videos is not supported with --api-server-count > 1",
        "type": "Conflict",
        "param": None,
        "code": 409,
    }
}


def opened(profile: str, clients: Clients, **access: Any) -> OpenAICompatible:
    values = {"base_url": "http://upstream.example/v1", "credential": "a-key-of-the-operator", **access}
    return OpenAICompatible.open(Access(profile=profile, **values), clients)


def shape(status: int, body: Any) -> Reply:
    return Reply(status, {}, json.dumps(body).encode())


async def answered(clients: Clients, profile: str, status: str, body: Any) -> Any:
    """What a create comes to that is answered like this."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with running_raw_server(reply(data, status=status)) as server:
        provider = opened(profile, clients, base_url=server.url)
        return await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "body", "words"),
    [
        ("newapi", FLAT, "seconds is invalid"),
        ("tensorrt_llm", OBJECT, "BadRequestError Extra inputs are not permitted"),
        ("generic", FLAT, "seconds is invalid"),
        ("generic", OBJECT, "BadRequestError Extra inputs are not permitted"),
        ("generic", ZOD, "seconds: Expected number"),
        ("generic", FLAGGED, "Model not allowed"),
        ("generic", NESTED, "invalid_request_error bad size"),
        (
            "generic",
            {"detail": [{"loc": ["body", "seconds"], "msg": "Field required"}]},
            "body.seconds: Field required",
        ),
        ("litellm", NESTED, "invalid_request_error bad size"),
    ],
)
async def test_refusals_in_a_server_s_own_shape_keep_their_words(
    profile: str, body: Any, words: str, clients: Clients
) -> None:
    outcome = await answered(clients, profile, "400 Bad Request", body)
    assert isinstance(outcome, Rejected)
    assert (outcome.failure.fault, outcome.failure.detail, outcome.failure.raw) == (Fault.INPUT, words, body)


@pytest.mark.parametrize(
    ("profile", "body"),
    [
        ("openai", FLAT),
        ("openai", OBJECT),
        ("openai", ZOD),
        ("openai", FLAGGED),
        ("vllm_omni", FLAT),
        ("newapi", ZOD),
        ("generic", {"message": "no"}),
        ("generic", {"success": False, "error": {"issues": []}}),
        ("generic", {"success": True, "error": {"issues": [{"message": "no"}]}}),
        ("generic", {"error": False, "message": "no"}),
        ("generic", {"code": True, "message": "no"}),
    ],
)
async def test_shape_that_is_not_the_server_s_own_proves_nothing(profile: str, body: Any, clients: Clients) -> None:
    assert isinstance(await answered(clients, profile, "400 Bad Request", body), Unknown)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("status", [408, 409, 425, 499])
async def test_statuses_of_an_intermediary_prove_nothing(profile: str, status: int, clients: Clients) -> None:
    for body in (FLAT, OBJECT, NESTED, ZOD):
        assert isinstance(await answered(clients, profile, f"{status} Word", body), Unknown)


@pytest.mark.parametrize(
    "words",
    [
        "upstream request timed out",
        "Request timeout",
        "time-out while connecting",
        "time_out",
        "bad gateway",
        "Upstream error: connection reset",
        "context deadline exceeded",
        "unexpected EOF while reading response from backend",
        "context canceled",
        "write: broken pipe",
        "Server disconnected",
        "ECONNRESET",
        "socket hang up",
        "request was already submitted",
        "duplicate_request",
        "request_in_progress",
        "Video was queued but the record could not be saved",
        "server_error",
    ],
)
async def test_words_of_an_intermediary_prove_nothing(words: str, clients: Clients) -> None:
    for body in ({"error": {"message": words, "code": "400"}}, {"error": {"message": "no", "type": words}}):
        for profile in PROFILES:
            assert isinstance(await answered(clients, profile, "400 Bad Request", body), Unknown)
    assert isinstance(await answered(clients, "newapi", "400 Bad", {"code": words, "message": "no"}), Unknown)


async def test_refusal_that_names_a_job_is_none(clients: Clients) -> None:
    job = {"id": "video_1", "status": "queued"}
    for body in ({**NESTED, **job}, {**FLAT, "data": job}):
        assert isinstance(await answered(clients, "generic", "400 Bad Request", body), Unknown)
    busy = {"error": {"message": "You have 3 generations in progress", "code": "429"}}
    assert isinstance(await answered(clients, "generic", "429 Too Many", busy), Rejected)


async def test_words_of_the_caller_in_a_refusal_are_not_the_server_s(clients: Clients) -> None:
    """FastAPI echoes the whole request beside what is wrong with it."""
    echo = {"prompt": "a gateway in the desert, upstream"}
    body = {"detail": [{"loc": ["body", "seconds"], "msg": "Input should be 4, 8 or 12", "input": echo}]}
    assert isinstance(await answered(clients, "sglang", "422 Unprocessable", body), Rejected)


async def test_conflict_is_a_refusal_in_exact_words_only(clients: Clients) -> None:
    assert isinstance(await answered(clients, "vllm_omni", "409 Conflict", API_SERVERS), Rejected)
    assert isinstance(await answered(clients, "openai", "409 Conflict", API_SERVERS), Unknown)


async def test_litellm_s_reply_to_a_wrong_key_is_the_account_s_fault(clients: Clients) -> None:
    body = {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}
    outcome = await answered(clients, "litellm", "400 Bad Request", body)
    assert isinstance(outcome, Rejected)
    assert (outcome.failure.fault, outcome.failure.retryable) == (Fault.ACCOUNT, False)


# Ids ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["video_" + "x" * 236, "y" * 2000, "abc:openai", "a%2Fb", "v+1=/?#"])
async def test_long_and_odd_but_printable_ids_are_accepted_and_asked_for_as_they_are(
    named: str, clients: Clients
) -> None:
    created = json.dumps({"id": named, "object": "video", "status": "queued"}).encode()
    async with running_raw_server(reply(created)) as server:
        provider = opened("openai", clients, base_url=server.url)
        outcome = await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())
        assert isinstance(outcome, Accepted)
        assert outcome.remote_id == named
        assert isinstance(await provider.poll(named), Pending)
        path = server.heard[-1].line.split()[1]
    assert path.count("/") == 2
    assert unquote(path.removeprefix("/videos/")) == named


@pytest.mark.parametrize(
    ("status", "body", "claimed"),
    [
        ("201 Created", b"", True),
        ("202 Accepted", b"<html>", True),
        ("200 OK", b'{"status":"queued"}', True),
        ("200 OK", b'{"id":7}', True),
        ("200 OK", b"<html>", False),
        ("200 OK", b"[]", False),
        ("500 Oops", b'{"status":"queued"}', False),
    ],
)
async def test_provider_that_says_that_it_accepted_cannot_be_proven_not_to_have(
    status: str, body: bytes, claimed: bool, clients: Clients
) -> None:
    outcome = await answered(clients, "openai", status, body)
    assert isinstance(outcome, Unknown)
    assert outcome.claimed is claimed


async def test_accepted_with_an_id_that_cannot_be_used_keeps_the_reply(clients: Clients) -> None:
    outcome = await answered(clients, "openai", "200 OK", {"id": "a b" * 1000, "object": "video"})
    assert isinstance(outcome, Unknown)
    assert "accepted without a usable id" in outcome.detail
    assert "a b" * 1000 in outcome.raw


# Status ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("succeeded", Finished),
        ("SUCCESS", Finished),
        ("done", Finished),
        ("finished", Finished),
        ("complete", Finished),
        ("error", Failed),
        ("failure", Failed),
        ("rejected", Failed),
        ("aborted", Canceled),
        ("canceled", Canceled),
        ("processing", Pending),
        ("reticulating", Pending),
    ],
)
def test_synonyms_of_final_words_end_a_job(word: str, outcome: type, clients: Clients) -> None:
    read = opened("generic", clients).read_status("video_1", shape(200, {"id": "video_1", "status": word}))
    assert isinstance(read, outcome)
    if isinstance(read, Pending):
        assert read.oddity == (word if word == "reticulating" else None)


def test_error_of_a_job_may_be_a_text(clients: Clients) -> None:
    job = {"id": "video_1", "status": "failed", "error": "CUDA out of memory"}
    outcome = opened("tensorrt_llm", clients).read_status("video_1", shape(200, job))
    assert isinstance(outcome, Failed)
    assert outcome.failure.detail == "CUDA out of memory"


VALIDATION = "litellm.APIConnectionError: 3 validation errors for VideoObject\nid\n  Field required"


@pytest.mark.parametrize(
    ("profile", "status", "body", "outcome"),
    [
        ("newapi", 400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}, Missing),
        ("newapi", 400, {"code": "invalid_request", "message": "no", "data": None}, Unreadable),
        ("generic", 400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}, Unreadable),
        ("tensorrt_llm", 404, {"object": "error", "message": "not found", "type": "NotFound", "code": 404}, Missing),
        ("litellm", 500, {"error": {"message": VALIDATION, "type": None, "param": None, "code": "500"}}, Missing),
        ("litellm", 500, {"error": {"message": "boom", "type": None, "param": None, "code": "500"}}, Unreadable),
        ("openai", 500, {"error": {"message": VALIDATION, "code": "500"}}, Unreadable),
        ("generic", 404, FLAT, Missing),
        ("openai", 404, FLAT, Unreadable),
    ],
)
def test_unknown_id_is_missing_in_each_server_s_own_words(
    profile: str, status: int, body: Any, outcome: type, clients: Clients
) -> None:
    assert isinstance(opened(profile, clients).read_status("video_1", shape(status, body)), outcome)


# What an operator chooses ---------------------------------------------------------------------------------------------


def test_encoding_and_type_of_seconds_are_the_operator_s_to_choose(clients: Clients) -> None:
    ref = ids.new_id()
    numbers = opened("generic", clients, create_encoding="json", seconds_type="integer").create_call(ORDER, ref)
    assert json.loads(numbers.body)["seconds"] == 8
    form = opened("generic", clients, create_encoding="multipart").create_call(ORDER, ref)
    assert form.headers["Content-Type"].startswith("multipart/form-data")
    text = opened("sglang", clients, seconds_type="string").create_call(ORDER, ref)
    assert json.loads(text.body)["seconds"] == "8"


@pytest.mark.parametrize(("key", "value"), [("create_encoding", "xml"), ("seconds_type", "float")])
def test_choice_that_does_not_exist_names_the_key(key: str, value: str, clients: Clients) -> None:
    with pytest.raises(BadAccess) as caught:
        opened("generic", clients, **{key: value})
    assert caught.value.key == key


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "option",
    [
        "video_url",
        "reference_url",
        "input_reference",
        "upscaling_model_path",
        "frame_interpolation_model_path",
        "extra_args",
        "lora",
        "extra_body",
        "extra_params",
    ],
)
def test_options_that_reach_a_server_s_files_are_never_passable(profile: str, option: str, clients: Clients) -> None:
    assert option in opened(profile, clients).traits.reserved_options


# Secrets --------------------------------------------------------------------------------------------------------------

KEY = "sk-operator/key+1"
ESCAPED = KEY.replace("/", "\\/").replace("+", "\\u002b")


@pytest.mark.parametrize(
    "said",
    [
        f"Bearer {KEY}",
        KEY,
        "sk-operator%2Fkey%2B1",
        "c2stb3BlcmF0b3Iva2V5KzE=",
        "sk-operator%2fkey%2b1",
        "sk-operator%252Fkey%252B1",
        "QmVhcmVyIHNrLW9wZXJhdG9yL2tleSsx",  # base64 of "Bearer …"
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oops"])
async def test_provider_that_echoes_our_request_gives_our_key_to_no_one_else(
    said: str, status: str, clients: Clients
) -> None:
    body = {"id": "a b", "request": {"headers": {"authorization": said}}, "error": {"message": f"bad header {said}"}}
    async with running_raw_server(reply(json.dumps(body).encode(), status=status)) as server:
        provider = opened("openai", clients, base_url=server.url, credential=KEY)
        created = await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())
        polled = await provider.poll("video_1")
    raw = created.failure.raw if isinstance(created, Rejected) else created.raw  # type: ignore[union-attr]
    for text in (repr(created), repr(polled), json.dumps(raw)):
        assert "[redacted]" in text or said not in text
        assert KEY not in text
        assert said.removeprefix("Bearer ") not in text


async def test_long_key_that_was_cut_is_taken_out_too(clients: Clients) -> None:
    key = "sk-operator-key-of-forty-three-characters-0"
    for said in (key[:-1], key[:20], key[3:], key[-20:], f"{key[:20]}\u200b{key[20:]}"):
        async with running_raw_server(
            reply(json.dumps({"error": {"message": said}}).encode(), status="400 No")
        ) as server:
            provider = opened("openai", clients, base_url=server.url, credential=key)
            outcome = await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())
        assert isinstance(outcome, Rejected)
        assert set(outcome.failure.detail.split("\u200b")) <= {
            "[redacted]",
            "[redacted]\N{REPLACEMENT CHARACTER}[redacted]",
        }


async def test_id_that_holds_our_key_cannot_be_used(clients: Clients) -> None:
    outcome = await answered(clients, "openai", "200 OK", {"id": "vid-a-key-of-the-operator"})
    assert isinstance(outcome, Unknown)


async def test_key_behind_escapes_of_json_is_found_too(clients: Clients) -> None:
    body = f'{{"id":"video_1","object":"video","status":"queued","debug":["{ESCAPED}",{{"{ESCAPED}":1}}]}}'
    async with running_raw_server(reply(body.encode())) as server:
        provider = opened("openai", clients, base_url=server.url, credential=KEY)
        outcome = await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())
    assert isinstance(outcome, Accepted)
    assert outcome.raw["debug"] == ["[redacted]", {"[redacted]": 1}]


async def test_short_key_is_taken_out_behind_its_scheme_and_spoils_no_other_word(clients: Clients) -> None:
    body = b'{"id":"video_k1","object":"video","status":"queued","echo":"Authorization: Bearer k1"}'
    async with running_raw_server(reply(body)) as server:
        provider = opened("openai", clients, base_url=server.url, credential="k1")
        outcome = await provider.submit(provider.create_call(ORDER, ids.new_id()), soon())
    assert isinstance(outcome, Accepted)
    assert (outcome.remote_id, outcome.raw["echo"]) == ("video_k1", "Authorization: Bearer [redacted]")


@pytest.mark.parametrize("end", ["", "characters-0"])
def test_long_reply_costs_no_more_than_its_length(end: str) -> None:
    """A hostile provider repeats the end of our key behind megabytes: looking back for its beginning has a limit."""
    said = "A" * 2_000_000 + end
    assert len(Scrubber(["sk-operator-key-of-forty-three-characters-0"]).text(said)) >= len(said) - 600
