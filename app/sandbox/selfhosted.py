"""Two self-hosted servers with OpenAI's routes and manners of their own.

SGLang Diffusion 0.5.23: ``{"detail": …}`` errors, no prompt in the object, any model name is echoed, DELETE only
forgets (the render goes on), content is 404 until there is some, a failure has no code.

vLLM-Omni 0.30.0: forms only, the model must be the served one, a failed job is answered with the failure's own HTTP
status and the job as body, DELETE cancels.
"""

import uuid
from decimal import Decimal
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.dialect import Order, Problem, check_seconds, check_size, deliver
from app.sandbox.ledger import Bill, Phase
from app.sandbox.script import Verdict
from app.sandbox.store import RemoteJob
from app.sandbox.videos import VideosDialect, read_fields, read_size
from app.sandbox.wire import is_form, json_reply, read_form

SERVED_MODEL = "sandbox-film"
DEFAULT_SIZE = (1280, 720)
FREE = Bill(Decimal(0))

MESSAGES = {
    Verdict.INPUT_MODERATION: (400, "The prompt was rejected by the safety checker."),
    Verdict.OUTPUT_MODERATION: (400, "Output moderation: the video was rejected by the safety checker."),
    Verdict.INTERNAL: (500, "CUDA error: an illegal memory access was encountered"),
}


class SGLang(VideosDialect):
    """``/sglang``."""

    name: ClassVar[str] = "sglang"
    least_limit: ClassVar[int] = 1

    async def read_order(self, request: Request) -> Order:
        fields = (await read_fields(request))[0] or {}  # an unreadable body counts as an empty one
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise Problem(400, "prompt is required")
        if isinstance(fields.get("input_reference"), dict):
            raise Problem(400, "input_reference must be a path or a URL")
        seconds = _length(fields)
        check_seconds(seconds)
        width, height = _dimensions(fields)
        check_size(width, height)
        return Order(prompt, str(fields.get("model") or "sora-2"), width, height, seconds)

    def bill(self, order: Order) -> Bill:
        del order
        return FREE

    def new_remote_id(self) -> str:
        return str(uuid.uuid4())

    def video(self, job: RemoteJob) -> dict[str, Any]:
        path = f"/data/outputs/{job.id}.mp4" if job.phase is Phase.SUCCEEDED else None
        return super().video(job) | {
            "quality": "standard",
            "url": None,
            "urls": None,
            "file_path": path,
            "file_paths": [path] if path else None,
            "num_outputs": 1,
            "peak_memory_mb": None,
            "inference_time_s": None,
        }

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        return {"message": MESSAGES[job.purchase.verdict or Verdict.INTERNAL][1]}

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(409, "Video cannot be deleted now")
        body = self.video(job) | {"status": "deleted"}
        self.sandbox.store.delete(job)
        return json_reply(body)

    async def content(self, request: Request) -> Response:
        job = self.job(request)
        if request.query_params.get("variant", "0") != "0":  # an index of outputs, and there is one
            raise Problem(404, "Video not found")
        if not job.phase.final:
            raise Problem(404, "Generation is still in-progress")
        if job.film is None or job.phase is not Phase.SUCCEEDED or job.script.has("expired"):
            raise Problem(404, "Video file not found")
        return deliver(job, job.film)

    def unknown_job(self, remote_id: str) -> Problem:
        del remote_id
        return Problem(404, "Video not found")

    def bad_limit(self, limit: str) -> Problem:
        return Problem(422, f"Input should be a number from 1 to 100: {limit}", field="limit")

    def error(self, problem: Problem) -> Response:
        detail: Any = problem.message
        if problem.status == 422:
            detail = [{"type": "value_error", "loc": ["query", problem.field], "msg": problem.message}]
        return json_reply({"detail": detail}, problem.status, problem.headers)


class VLLM(VideosDialect):
    """``/vllm``."""

    name: ClassVar[str] = "vllm"
    default_limit: ClassVar[int | None] = None

    async def read_order(self, request: Request) -> Order:
        fields = await read_form(request) if is_form(request) else {}
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise _invalid("prompt", "Field required")
        model = fields.get("model", SERVED_MODEL)
        if model != SERVED_MODEL:
            raise Problem(400, f"Model mismatch: this server serves '{SERVED_MODEL}'.", kind="BadRequestError")
        seconds = fields.get("seconds", "4")
        if not isinstance(seconds, str) or not seconds.isascii() or not seconds.isdecimal() or seconds[0] == "0":
            raise _invalid("seconds", "String should match pattern '^[1-9]\\d*$'")
        size = read_size(fields["size"]) if "size" in fields else DEFAULT_SIZE
        if size is None:
            raise _invalid("size", "String should match pattern '^\\d+x\\d+$'")
        check_seconds(int(seconds[:9]))
        check_size(*size)
        return Order(prompt, SERVED_MODEL, *size, int(seconds))

    def bill(self, order: Order) -> Bill:
        del order
        return FREE

    def new_remote_id(self) -> str:
        return f"video_gen_{uuid.uuid4().hex}"

    def video(self, job: RemoteJob) -> dict[str, Any]:
        done = job.phase is Phase.SUCCEEDED
        return super().video(job) | {
            "prompt": job.purchase.prompt,
            "progress": 100 if done else 0,
            "quality": "standard",
            "media_type": "video/mp4",
            "file_name": f"{job.id}.mp4" if done else None,
            "inference_time_s": None,
            "peak_memory_mb": None,
        }

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        status, message = MESSAGES[job.purchase.verdict or Verdict.INTERNAL]
        return {"code": status, "message": message}

    def status_reply(self, job: RemoteJob, body: dict[str, Any]) -> Response:
        # The server's own trap: a verdict looks like a transport error.
        return json_reply(body, body["error"]["code"] if job.phase is Phase.FAILED else 200)

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(409, "Cancellation in progress", kind="HTTPException")
        if not job.phase.final:
            self.sandbox.store.cancel(job, refund=True)
        self.sandbox.store.delete(job)
        return json_reply({"id": job.id, "object": "video.deleted", "deleted": True})

    async def content(self, request: Request) -> Response:
        job = self.job(request)
        if job.phase is Phase.FAILED:
            raise Problem(422, "Video generation failed", kind="HTTPException")
        if job.film is None or job.phase is not Phase.SUCCEEDED or job.script.has("expired"):
            raise Problem(404, "Video content not found", kind="HTTPException")
        return deliver(job, job.film)

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"Video {remote_id} not found", kind="HTTPException")

    def error(self, problem: Problem) -> Response:
        if problem.status == 401:
            return json_reply({"error": "Unauthorized"}, 401)
        if problem.kind == "HTTPException":
            return json_reply({"detail": problem.message}, problem.status)
        body = {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.field,
            "code": problem.status,
        }
        return json_reply({"error": body}, problem.status, problem.headers)


def _invalid(field: str, message: str) -> Problem:
    return Problem(400, f"{field}: {message}", kind="Bad Request", field=field)


def _number(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Problem(400, f"{name} should be a valid number") from None


def _length(fields: dict[str, Any]) -> float:
    frames = _number(fields, "num_frames")
    if frames is not None:
        return frames / max(1.0, _number(fields, "fps") or 24.0)
    seconds = _number(fields, "seconds")
    return 4.0 if seconds is None else seconds


def _dimensions(fields: dict[str, Any]) -> tuple[int, int]:
    size = DEFAULT_SIZE
    if fields.get("size"):
        named = read_size(fields["size"])
        if named is None:
            raise Problem(400, "size should be WIDTHxHEIGHT")
        size = named
    width, height = _number(fields, "width"), _number(fields, "height")
    return int(width or size[0]), int(height or size[1])
