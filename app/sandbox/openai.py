"""OpenAI's Videos API as documented until its shutdown in September 2026 (openapi 2.3.0, SDK 3.54).

Create takes JSON or a form; ``seconds`` must be a string, a number is refused. There is no cancel: DELETE accepts
finished videos only. Failed jobs are not charged. The picture in ``input_reference`` is the first frame and must have
the size of the video; a URL is fetched before the reply.
"""

import uuid
from decimal import Decimal
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.create_request import CreateRequest
from app.sandbox.inputs import InputSource
from app.sandbox.ledger import Bill
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem, check_seconds, check_size
from app.sandbox.script import JobFailure
from app.sandbox.store import RemoteJob
from app.sandbox.video_inputs import openai_sources
from app.sandbox.videos import ManagedVideosDialect, read_fields, read_size
from app.sandbox.wire import file_reply, json_reply

FIELDS = {"prompt", "model", "seconds", "size", "input_reference", "characters"}
MAX_PROMPT = 32_000
CONTENT_SECONDS = 3600
POLL_AFTER_MS = 100, 1000  # minimum and maximum

NOT_READY = "Video is not ready yet, use GET /v1/videos/{video_id} to check its status."

WRONG_SIZE = "Inpaint image must match the requested width and height"

ERRORS = {
    JobFailure.INPUT_MODERATION: ("moderation_blocked", "Your request was blocked by our moderation system."),
    JobFailure.OUTPUT_MODERATION: (
        "output_moderation_blocked",
        "The generated video was blocked by our moderation system.",
    ),
    JobFailure.INTERNAL: ("server_error", "Video generation failed. Please try again."),
    JobFailure.INVALID_INPUT: ("invalid_input_reference", "The input reference could not be processed."),
}


class OpenAI(ManagedVideosDialect):
    """``/openai``."""

    name: ClassVar[str] = "openai"

    async def read_create(self, request: Request) -> CreateRequest:
        fields, _ = await read_fields(request)
        if fields is None:
            raise Problem(400, "We could not parse the JSON body of your request.")
        for field in fields.keys() - FIELDS:
            raise Problem(400, f"Unknown parameter: '{field}'.", code="unknown_parameter", field=field)
        prompt = _text(fields, "prompt", None)
        if not 1 <= len(prompt) <= MAX_PROMPT:
            raise Problem(400, f"Invalid 'prompt': 1 to {MAX_PROMPT} characters.", code="invalid_value", field="prompt")
        seconds = _text(fields, "seconds", "4")
        if not seconds.isascii() or not seconds.isdecimal():
            raise Problem(400, f"Invalid value: '{seconds}'.", code="invalid_value", field="seconds")
        check_seconds(int(seconds[:9]))
        size = read_size(_text(fields, "size", "720x1280"))
        if size is None:
            raise Problem(400, f"Invalid value: '{fields['size']}'.", code="invalid_value", field="size")
        check_size(*size)
        model, sources = _text(fields, "model", "sora-2"), openai_sources(fields)
        return CreateRequest(prompt, model, *size, int(seconds), sources=sources)

    def check_inputs(self, create: CreateRequest) -> None:
        for item in create.inputs:
            if (item.width, item.height) != (create.width, create.height):
                raise Problem(400, WRONG_SIZE, code="invalid_value", field="input_reference")

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        message = f"Invalid file '{source.field}': {reason}. Supported formats are JPEG, PNG and WebP."
        return Problem(400, message, code="invalid_value", field=source.field)

    def bill(self, create: CreateRequest) -> Bill:
        return bill_by_second(create)

    def new_remote_id(self) -> str:
        return f"video_{uuid.uuid4().hex}"

    def video(self, job: RemoteJob) -> dict[str, Any]:
        video = super().video(job) | {"prompt": job.submission.prompt}
        if job.phase is Phase.SUCCEEDED and job.finished_at:
            video["expires_at"] = int(job.finished_at) + CONTENT_SECONDS
        return video

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        code, message = ERRORS[job.submission.failure or JobFailure.INTERNAL]
        return {"code": code, "message": message}

    def status_reply(self, job: RemoteJob, body: dict[str, Any]) -> Response:
        if job.phase.final:
            return json_reply(body)
        least, most = POLL_AFTER_MS
        wait = max(least, min(most, round(job.remaining * 1000)))
        return json_reply(body, headers={"openai-poll-after-ms": str(wait)})

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if not job.phase.final or job.script.has("no-cancel"):
            raise Problem(400, "Only completed or failed videos can be deleted.", code="video_not_finished")
        self.sandbox.store.delete(job)
        return json_reply({"id": job.id, "object": "video.deleted", "deleted": True})

    async def download(self, job: RemoteJob, request: Request) -> Response:
        variant = request.query_params.get("variant", "video")
        if variant not in {"video", "thumbnail"}:
            raise Problem(400, f"Invalid value: '{variant}'.", code="invalid_value", field="variant")
        video = await super().download(job, request)
        return video if variant == "video" or job.video is None else file_reply(job.video.poster, "image/webp")

    def not_ready(self, job: RemoteJob) -> Problem:
        del job
        return Problem(400, NOT_READY)

    def missing_file(self) -> Problem:
        return Problem(404, "The video's content has expired.", code="video_expired")

    def unknown_after(self, after: str) -> Problem | None:
        return Problem(400, f"No video with id '{after}'.", code="invalid_value", field="after")

    def error(self, problem: Problem) -> Response:
        body = {"message": problem.message, "type": problem.kind, "param": problem.field, "code": problem.code}
        return json_reply({"error": body}, problem.status, problem.headers)


def bill_by_second(create: CreateRequest) -> Bill:
    """The bill at OpenAI's price per second; failed jobs are refunded."""
    return Bill(_price(create) * int(create.seconds), refunded=frozenset(JobFailure))


def _text(fields: dict[str, Any], name: str, default: str | None) -> str:
    value = fields.get(name, default)
    if value is None:
        message = f"Missing required parameter: '{name}'."
        raise Problem(400, message, code="missing_required_parameter", field=name)
    if not isinstance(value, str):
        message = f"Invalid type for '{name}': expected a string, but got {type(value).__name__} instead."
        raise Problem(400, message, code="invalid_type", field=name)
    return value


def _price(create: CreateRequest) -> Decimal:
    """USD per second, as last published."""
    if create.model.startswith("sandbox"):
        return Decimal("0.01")
    if not create.model.startswith("sora-2-pro"):
        return Decimal("0.10")
    longest = max(create.width, create.height)
    return Decimal("0.70") if longest > 1792 else Decimal("0.50") if longest > 1280 else Decimal("0.30")
