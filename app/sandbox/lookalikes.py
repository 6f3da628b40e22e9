"""Gateways and servers with OpenAI's routes and other bodies. Source: their code, read in 2026-11.

new-api: refusals are ``{code, message, data}``, an unknown id is a 400, there is neither list nor DELETE. The video
object omits empty fields and has no prompt; the content route is a proxy with errors like OpenAI's.

TensorRT-LLM's visual generation: JSON only; a create returns 202; unknown fields are refused; a job has ``duration``
instead of ``seconds``, and its ``error`` is text; the list ignores its parameters and returns everything, oldest first.

LiteLLM 1.108: ids have 242 characters, an error's code is the HTTP status as text, an unknown id is a 500, the list is
refused, there is no DELETE. The messages of the 500 and of the refused list are reconstructed: only their statuses and
shapes were observed.

new-api and LiteLLM take ``input_reference`` as OpenAI does, of any size; TensorRT-LLM as a URL, a data URI or base64.
"""

import base64
import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox import misbehavior
from app.sandbox.create_request import CreateRequest
from app.sandbox.inputs import InputSource
from app.sandbox.ledger import Bill
from app.sandbox.openai import ERRORS, NOT_READY, bill_by_second
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem, check_seconds, check_size
from app.sandbox.script import JobFailure
from app.sandbox.selfhosted import FREE, MESSAGES, SERVED_MODEL
from app.sandbox.store import RemoteJob
from app.sandbox.video_inputs import openai_sources, tensorrt_sources
from app.sandbox.videos import STATUS, ManagedVideosDialect, VideosDialect, read_fields, read_size
from app.sandbox.wire import json_reply, read_json

DEFAULT_SIZE = "720x1280"
UNKNOWN_TASK = "task_not_exist"
TENSORRT_FIELDS = {
    "prompt",
    "response_format",
    "format",
    "seed",
    "image_reference",
    "video_reference",
    "audio_reference",
    "input_reference",
    "size",
    "width",
    "height",
    "num_frames",
    "seconds",
    "frame_rate",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "max_sequence_length",
    "negative_prompt",
    "extra_params",
    "model",
}


class NewAPI(VideosDialect):
    """``/newapi``."""

    name: ClassVar[str] = "newapi"
    task_words: ClassVar[Mapping[Phase, str]] = {
        Phase.THROTTLED: "QUEUED",
        Phase.WAITING: "QUEUED",
        Phase.RENDERING: "IN_PROGRESS",
        Phase.FAILED: "FAILURE",
        Phase.CANCELED: "FAILURE",
    }

    def check_caller(self, request: Request) -> None:
        try:
            super().check_caller(request)
        except Problem:
            raise Nested(401, "Invalid token", kind="new_api_error") from None

    async def read_create(self, request: Request) -> CreateRequest:
        return _read_create((await read_fields(request))[0], openai_sources)

    def bill(self, create: CreateRequest) -> Bill:
        return bill_by_second(create)

    def new_remote_id(self) -> str:
        return f"task_{secrets.token_hex(16)}"

    def video(self, job: RemoteJob) -> dict[str, Any]:
        fields = super().video(job) | {"task_id": job.id}
        return {name: value for name, value in fields.items() if value is not None}

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        return _openai_error(job)

    async def content(self, request: Request) -> Response:
        try:
            return await super().content(request)
        except Problem as problem:
            raise self.missing_file() if problem.code == UNKNOWN_TASK else problem from None

    def not_ready(self, job: RemoteJob) -> Problem:
        return Nested(400, f"Task is not completed yet, current status: {self.task_words[job.phase]}")

    def missing_file(self) -> Problem:
        return Nested(404, "Task not found")

    def unknown_job(self, remote_id: str) -> Problem:
        del remote_id
        return Problem(400, UNKNOWN_TASK, code=UNKNOWN_TASK)

    def no_route(self, request: Request, error: HTTPException) -> Response:
        del error
        path = request.url.path.removeprefix(f"/{self.name}")
        return self.error(Nested(404, f"Invalid URL ({request.method} {path})", code=""))

    def error(self, problem: Problem) -> Response:
        code = problem.code or ("invalid_request" if problem.status == 400 else "fail_to_fetch_task")
        body: dict[str, Any] = {"code": code, "message": problem.message, "data": None}
        if isinstance(problem, Nested):
            body = {"error": {"message": problem.message, "type": problem.kind, "param": "", "code": problem.code}}
        return json_reply(body, problem.status, problem.headers)


class Nested(Problem):
    """A problem that new-api writes in OpenAI's nested shape."""


class TensorRT(ManagedVideosDialect):
    """``/tensorrt``."""

    name: ClassVar[str] = "tensorrt"
    created_status: ClassVar[int] = 202
    status_words: ClassVar[Mapping[Phase, str]] = {**STATUS, Phase.RENDERING: "generating"}

    async def read_create(self, request: Request) -> CreateRequest:
        if "application/json" not in request.headers.get("content-type", ""):
            raise Problem(400, "Unsupported content-type. Use 'application/json'")
        fields = await read_json(request)
        if not isinstance(fields, dict):
            raise Problem(400, "Expecting value: line 1 column 1 (char 0)")
        for field in fields.keys() - TENSORRT_FIELDS:
            raise Problem(
                400, f"1 validation error for VideoGenerationRequest\n{field}\n  Extra inputs are not permitted"
            )
        return _read_create({"model": SERVED_MODEL, **fields}, tensorrt_sources)

    def bill(self, create: CreateRequest) -> Bill:
        del create
        return FREE

    def new_remote_id(self) -> str:
        return f"video_{uuid.uuid4().hex}"

    def video(self, job: RemoteJob) -> dict[str, Any]:
        fields = super().video(job)
        del fields["seconds"], fields["remixed_from_video_id"]
        return fields | {
            "prompt": job.submission.prompt,
            "progress": None,
            "completed_at": int(job.finished_at) if job.finished_at else None,
            "duration": float(job.shot.seconds),
            "fps": None,
            "response_format": None,
        }

    def job_error(self, job: RemoteJob) -> str:
        return MESSAGES[job.submission.failure or JobFailure.INTERNAL][1]

    async def list_jobs(self, request: Request) -> Response:
        jobs = misbehavior.listed(self.sandbox.store.listed(self.name), self.sandbox.counts)
        return json_reply(
            {"data": [misbehavior.record(self.video(job), job, request) for job in jobs], "object": "list"}
        )

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(409, f"Video {job.id} cannot be deleted now")
        if not job.phase.final:
            self.sandbox.store.cancel(job, refund=True)
        self.sandbox.store.delete(job)
        return json_reply({"deleted": True})

    def not_ready(self, job: RemoteJob) -> Problem:
        return Problem(400, f"Video {job.id} is not ready (status: {self.status_word(job)})")

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"Video {remote_id} not found")

    def error(self, problem: Problem) -> Response:
        kinds = {400: "BadRequestError", 404: "NotFoundError", 401: "AuthenticationError", 429: "RateLimitError"}
        kind = kinds.get(problem.status, "InternalServerError")
        body = {"object": "error", "message": problem.message, "type": kind, "param": None, "code": problem.status}
        return json_reply(body, problem.status, problem.headers)


class LiteLLM(VideosDialect):
    """``/litellm``."""

    name: ClassVar[str] = "litellm"
    kinds: ClassVar[Mapping[int, str]] = {
        400: "BadRequestError",
        404: "NotFoundError",
        429: "RateLimitError",
        500: "InternalServerError",
        503: "ServiceUnavailableError",
    }

    def routes(self) -> list[Route]:
        return [*super().routes(), self.route("/v1/videos", "GET", self.refuse_list)]

    def check_caller(self, request: Request) -> None:
        try:
            super().check_caller(request)
        except Problem:
            raise Verbatim(400, "No connected db.", kind="no_db_connection") from None

    async def read_create(self, request: Request) -> CreateRequest:
        return _read_create((await read_fields(request))[0], openai_sources)

    def bill(self, create: CreateRequest) -> Bill:
        return bill_by_second(create)

    def new_remote_id(self) -> str:
        # LiteLLM encodes the provider, the model and the provider's id; 176 bytes become 236 characters.
        return "video_" + base64.urlsafe_b64encode(secrets.token_bytes(176)).decode()

    def video(self, job: RemoteJob) -> dict[str, Any]:
        return super().video(job) | {"usage": {"duration_seconds": float(job.shot.seconds)}}

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        return _openai_error(job)

    async def refuse_list(self, request: Request) -> Response:
        del request
        message = "LLM Provider NOT provided. Pass in the LLM provider you are trying to call: custom_llm_provider."
        raise Verbatim(400, f"litellm.BadRequestError: {message}")

    def not_ready(self, job: RemoteJob) -> Problem:
        del job
        return Problem(400, NOT_READY)

    def unknown_job(self, remote_id: str) -> Problem:
        message = f"OpenAIException - Video with id '{remote_id}' not found."
        return Verbatim(500, f"litellm.APIConnectionError: {message}", kind="None")

    def no_route(self, request: Request, error: HTTPException) -> Response:
        del request
        return json_reply({"detail": error.detail}, error.status_code)

    def error(self, problem: Problem) -> Response:
        message = problem.message
        if not isinstance(problem, Verbatim):
            message = f"litellm.{self.kinds.get(problem.status, 'APIError')}: OpenAIException - {message}"
        body = {"message": message, "type": problem.kind, "param": problem.field, "code": str(problem.status)}
        return json_reply({"error": body}, problem.status, problem.headers)


class Verbatim(Problem):
    """A problem of LiteLLM itself: its message does not wrap a provider's error."""


def _read_create(
    fields: Mapping[str, Any] | None, read_sources: Callable[[Mapping[str, Any]], tuple[InputSource, ...]]
) -> CreateRequest:
    """Parse a create whose ``seconds`` may be a number or text.

    Raises:
        Problem: it is invalid.
        InvalidInput: an input is.
    """
    if fields is None:
        raise Problem(400, "The body is not a JSON object.")
    prompt, model = fields.get("prompt"), fields.get("model", "sora-2")
    if not isinstance(prompt, str) or not prompt:
        raise Problem(400, "prompt is required", field="prompt")
    if not isinstance(model, str):
        raise Problem(400, "model must be a string", field="model")
    seconds = str(fields.get("seconds", "4"))
    if not seconds.isascii() or not seconds.isdecimal():
        raise Problem(400, f"seconds: not a number: {seconds}", field="seconds")
    check_seconds(int(seconds[:9]))
    size = read_size(fields.get("size", DEFAULT_SIZE))
    if size is None:
        raise Problem(400, "size should be WIDTHxHEIGHT", field="size")
    check_size(*size)
    return CreateRequest(prompt, model, *size, int(seconds), sources=read_sources(fields))


def _openai_error(job: RemoteJob) -> dict[str, Any]:
    code, message = ERRORS[job.submission.failure or JobFailure.INTERNAL]
    return {"code": code, "message": message}
