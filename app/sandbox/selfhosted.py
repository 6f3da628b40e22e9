"""Two self-hosted servers with OpenAI's routes. Source: the replies of both servers, run in 2026-11.

SGLang Diffusion 0.5.23: errors are ``{"detail": …}``, the video object has no prompt, any model name is echoed, DELETE
only removes the job (the render continues), content is 404 until the video exists, a failure has no code. ``seconds``
is computed from the frames after alignment to the GPUs: here one second more if the model's name contains "hunyuan".

vLLM-Omni 0.30.0: forms only, the model must be the served one, every error is ``{"error": {message, type, param,
code}}``, the status of a failed job has the failure's HTTP status and the job as body, DELETE cancels.

Neither server shows the seed, the negative prompt or any other option of a job. Both fetch the URLs of inputs before
their reply; :mod:`app.sandbox.video_inputs` has the fields.
"""

import uuid
from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox import script as scripts
from app.sandbox.create_request import CreateRequest
from app.sandbox.inputs import InputSource
from app.sandbox.ledger import Bill
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem, check_seconds, check_size
from app.sandbox.script import JobFailure
from app.sandbox.store import RemoteJob
from app.sandbox.video_inputs import sglang_sources, vllm_sources
from app.sandbox.videos import ManagedVideosDialect, read_fields, read_size
from app.sandbox.wire import is_form, json_reply, read_parts

SERVED_MODEL = "sandbox-video"
DEFAULT_SIZE = (1280, 720)
FREE = Bill(Decimal(0))
FPS = 24

SEVERAL_API_SERVERS = (
    "Asynchronous video jobs is not supported with --api-server-count > 1 because "
    "the operation uses process-local frontend state"
)

MESSAGES = {
    JobFailure.INPUT_MODERATION: (400, "The prompt was rejected by the safety checker."),
    JobFailure.OUTPUT_MODERATION: (400, "Output moderation: the video was rejected by the safety checker."),
    JobFailure.INTERNAL: (500, "CUDA error: an illegal memory access was encountered"),
    JobFailure.INVALID_INPUT: (400, "Invalid input reference: cannot identify image file"),
}


class SGLang(ManagedVideosDialect):
    """``/sglang``."""

    name: ClassVar[str] = "sglang"
    least_limit: ClassVar[int] = 1
    no_file: ClassVar[str] = "Video file not found"

    async def read_create(self, request: Request) -> CreateRequest:
        fields = (await read_fields(request))[0] or {}  # an unreadable body is treated as empty
        prompt = fields.get("prompt")
        if not isinstance(prompt, str):
            raise Problem(400, "prompt is required")
        sources = sglang_sources(fields)
        _check_seeds(fields)
        seconds = _length(fields)
        check_seconds(seconds)
        width, height = _dimensions(fields)
        check_size(width, height)
        return CreateRequest(prompt, str(fields.get("model") or "sora-2"), width, height, seconds, sources=sources)

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        return Problem(400, f"Failed to process image source: {reason}", field=source.field)

    def bill(self, create: CreateRequest) -> Bill:
        del create
        return FREE

    def new_remote_id(self) -> str:
        return str(uuid.uuid4())

    def video(self, job: RemoteJob) -> dict[str, Any]:
        path, done = f"/data/outputs/{job.id}.mp4", job.phase is Phase.SUCCEEDED
        video = super().video(job)
        return video | {
            "seconds": f"{job.shot.seconds + 1:g}" if "hunyuan" in video["model"].lower() else video["seconds"],
            "quality": "standard",
            "url": None,
            "urls": [None] if done else None,
            "file_path": path,
            "file_paths": [path],
            "num_outputs": 1 if done else None,
            "peak_memory_mb": None,
            "inference_time_s": None,
            "revised_prompt": None,
            "action": None,
            "lidar": None,
        }

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        return {"message": MESSAGES[job.submission.failure or JobFailure.INTERNAL][1]}

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(409, "Video cannot be deleted now")
        body = self.video(job) | {"status": "deleted"}
        self.sandbox.store.delete(job)
        return json_reply(body)

    async def download(self, job: RemoteJob, request: Request) -> Response:
        if request.query_params.get("variant", "0") != "0":  # the index of an output, of which there is one
            raise Problem(404, "Video not found")
        return await super().download(job, request)

    def not_ready(self, job: RemoteJob) -> Problem:
        return self.missing_file() if job.phase.final else Problem(404, "Generation is still in-progress")

    def unknown_job(self, remote_id: str) -> Problem:
        del remote_id
        return Problem(404, "Video not found")

    def bad_query(self, field: str, value: str) -> Problem:
        allowed = "'asc' or 'desc'" if field == "order" else "a number from 1 to 100"
        return Problem(422, f"Input should be {allowed}: {value}", field=field)

    def error(self, problem: Problem) -> Response:
        detail: Any = problem.message
        if problem.status == 422:
            detail = [{"type": "value_error", "loc": ["query", problem.field], "msg": problem.message}]
        return json_reply({"detail": detail}, problem.status, problem.headers)


class VLLM(ManagedVideosDialect):
    """``/vllm``."""

    name: ClassVar[str] = "vllm"
    default_limit: ClassVar[int | None] = None

    async def read_create(self, request: Request) -> CreateRequest:
        parts = await read_parts(request) if is_form(request) else []
        fields = dict(parts)
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise _invalid("prompt", "Field required")
        if scripts.read(prompt).has("api-servers"):
            raise Problem(409, SEVERAL_API_SERVERS)
        model = fields.get("model", SERVED_MODEL)
        if model != SERVED_MODEL:
            raise Problem(400, f"Model mismatch: this server serves '{SERVED_MODEL}'.")
        if not _is_integer(fields.get("seed", 0)):
            raise _invalid("seed", "Input should be a valid integer, unable to parse string as an integer")
        seconds = fields.get("seconds", "4")
        if not isinstance(seconds, str) or not seconds.isascii() or not seconds.isdecimal() or seconds[0] == "0":
            raise _invalid("seconds", "String should match pattern '^[1-9]\\d*$'")
        size = read_size(fields["size"]) if "size" in fields else DEFAULT_SIZE
        if size is None:
            raise _invalid("size", "String should match pattern '^\\d+x\\d+$'")
        check_seconds(int(seconds[:9]))
        check_size(*size)
        return CreateRequest(prompt, SERVED_MODEL, *size, int(seconds), sources=vllm_sources(parts))

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        return _invalid(source.field, reason)

    def bill(self, create: CreateRequest) -> Bill:
        del create
        return FREE

    def new_remote_id(self) -> str:
        return f"video_gen_{uuid.uuid4().hex}"

    def video(self, job: RemoteJob) -> dict[str, Any]:
        done = job.phase is Phase.SUCCEEDED
        return super().video(job) | {
            "prompt": job.submission.prompt,
            "progress": 100 if done else 0,
            "completed_at": int(job.finished_at) if job.finished_at else None,
            "quality": "default",
            "media_type": "video/mp4",
            "file_name": f"{job.id}.mp4" if done else None,
            "inference_time_s": None,
            "fps": FPS if done else None,
            "num_frames": round(job.shot.seconds * FPS) if done else None,
            "duration_s": float(job.shot.seconds) if done else None,
            "metrics": {},
            "stage_durations": {},
            "peak_memory_mb": 0.0,
            "action": None,
        }

    def job_error(self, job: RemoteJob) -> dict[str, Any]:
        status, message = MESSAGES[job.submission.failure or JobFailure.INTERNAL]
        return {"code": status, "message": message}

    def status_reply(self, job: RemoteJob, body: dict[str, Any]) -> Response:
        # As vLLM-Omni does: a failed job looks like an HTTP error.
        return json_reply(body, body["error"]["code"] if job.phase is Phase.FAILED else 200)

    async def delete(self, request: Request) -> Response:
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(409, "Cancellation in progress")
        if not job.phase.final:
            self.sandbox.store.cancel(job, refund=True)
        self.sandbox.store.delete(job)
        return json_reply({"id": job.id, "object": "video.deleted", "deleted": True})

    def not_ready(self, job: RemoteJob) -> Problem:
        return Problem(422, "Video generation failed") if job.phase is Phase.FAILED else self.missing_file()

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"Video {remote_id} not found")

    def error(self, problem: Problem) -> Response:
        if problem.status == 401:
            return json_reply({"error": "Unauthorized"}, 401)
        body = {
            "message": problem.message,
            "type": HTTPStatus(problem.status).phrase,
            "param": problem.field,
            "code": problem.status,
        }
        return json_reply({"error": body}, problem.status, problem.headers)


def _invalid(field: str, message: str) -> Problem:
    return Problem(400, f"{field}: {message}", field=field)


def _is_integer(value: object) -> bool:
    try:
        int(str(value))
    except ValueError:
        return False
    return True


def _check_seeds(fields: Mapping[str, Any]) -> None:
    """Accept one seed, or a list with one for each output."""
    seeds = fields.get("seed")
    if not all(map(_is_integer, seeds if isinstance(seeds, list) else [0 if seeds is None else seeds])):
        raise Problem(400, "Invalid request body: seed should be a valid integer")


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
        return frames / max(1.0, _number(fields, "fps") or float(FPS))
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
