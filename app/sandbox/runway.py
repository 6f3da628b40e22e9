"""Runway's task API, version 2024-11-06 (SDK 5.24): tasks, signed results, and strict validation per model.

A task above the concurrency limit is accepted as THROTTLED and starts later. ``estimatedCost`` is charged on
acceptance; an ``INTERNAL`` failure is refunded, a cancel only before the task runs.
"""

import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.dialect import CreateRequest, Dialect, Sandbox
from app.sandbox.ledger import Bill
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem
from app.sandbox.script import JobFailure, Refusal
from app.sandbox.store import RemoteJob
from app.sandbox.wire import json_reply, read_json

API_VERSION = "2024-11-06"
USD_PER_CREDIT = Decimal("0.01")
MAX_PROMPT_UNITS = 1000
MAX_SEED = 4_294_967_295
DAILY_GENERATIONS = 1000
CREDIT_BALANCE = 100_000

STATUS = {
    Phase.THROTTLED: "THROTTLED",
    Phase.WAITING: "PENDING",
    Phase.RENDERING: "RUNNING",
    Phase.SUCCEEDED: "SUCCEEDED",
    Phase.FAILED: "FAILED",
    Phase.CANCELED: "CANCELLED",
}
FAILURES = {
    JobFailure.INPUT_MODERATION: ("SAFETY.INPUT.TEXT", "The prompt was flagged by our content moderation."),
    JobFailure.OUTPUT_MODERATION: ("SAFETY.OUTPUT.VIDEO", "The generated video was flagged by our content moderation."),
    JobFailure.INTERNAL: ("INTERNAL", "An unexpected error occurred."),
}


@dataclass(frozen=True, slots=True)
class Model:
    """What one model accepts. ``fields`` are those in addition to the common ones."""

    credits_per_second: int
    durations: tuple[int, ...]
    ratios: tuple[str, ...]
    fields: frozenset[str]


_HD = ("1280:720", "720:1280")
_FULL_HD = ("1920:1080", "1080:1920")
COMMON_FIELDS = frozenset({"model", "promptText", "ratio", "duration"})
MODELS: Mapping[str, Model] = {
    "gen4.5": Model(12, tuple(range(2, 11)), _HD, frozenset({"seed", "contentModeration"})),
    "veo3.1": Model(40, (4, 6, 8), _HD + _FULL_HD, frozenset({"audio", "negativePrompt", "seed"})),
    "veo3.1_fast": Model(15, (4, 6, 8), _HD + _FULL_HD, frozenset({"audio", "negativePrompt", "seed"})),
}


class Runway(Dialect):
    """``/runway``."""

    name: ClassVar[str] = "runway"
    odd_status: ClassVar[str] = "RETICULATING"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._secret = secrets.token_bytes(32)

    def routes(self) -> list[Route]:
        return [
            self.route("/v1/text_to_video", "POST", self.create),
            self.route("/v1/tasks/{remote_id}", "GET", self.retrieve),
            self.route("/v1/tasks/{remote_id}", "DELETE", self.cancel),
            self.route("/v1/organization", "GET", self.organization),
            Route("/results/{remote_id}.mp4", self.result, methods=["GET"]),
        ]

    def check_caller(self, request: Request) -> None:
        super().check_caller(request)
        version = request.headers.get("x-runway-version")
        if version != API_VERSION:
            raise Problem(400, f"The X-Runway-Version header must be {API_VERSION}.")

    async def read_create(self, request: Request) -> CreateRequest:
        fields = await read_json(request)
        if not isinstance(fields, dict):
            raise Problem(400, "The body must be a JSON object.")
        name = fields.get("model")
        model = MODELS.get(name) if isinstance(name, str) else None
        if model is None or not isinstance(name, str):
            raise _invalid("model", "must be one of " + ", ".join(MODELS))
        for field in sorted(fields.keys() - COMMON_FIELDS - model.fields):
            raise _invalid(field, f"is not a field of {name}")
        prompt = fields.get("promptText")
        if not isinstance(prompt, str) or not 1 <= _utf16_units(prompt) <= MAX_PROMPT_UNITS:
            raise _invalid("promptText", f"must have 1 to {MAX_PROMPT_UNITS} UTF-16 code units")
        duration = fields.get("duration")
        if type(duration) is not int or duration not in model.durations:
            raise _invalid("duration", "must be one of " + ", ".join(map(str, model.durations)))
        ratio = fields.get("ratio")
        if not isinstance(ratio, str) or ratio not in model.ratios:
            raise _invalid("ratio", "must be one of " + ", ".join(model.ratios))
        _check_extras(fields)
        width, height = map(int, ratio.split(":"))
        return CreateRequest(prompt, name, width, height, duration)

    def bill(self, create: CreateRequest) -> Bill:
        amount = MODELS[create.model].credits_per_second * int(create.seconds)
        return Bill(amount * USD_PER_CREDIT, amount, refunded=frozenset({JobFailure.INTERNAL}))

    def concurrency_key(self, create: CreateRequest) -> str | None:
        return create.model

    def new_remote_id(self) -> str:
        return str(uuid.uuid4())

    def created(self, job: RemoteJob) -> dict[str, Any]:
        return {"id": job.id, "estimatedCost": {"credits": job.submission.bill.credits}}

    def describe(self, job: RemoteJob, request: Request) -> dict[str, Any]:
        task: dict[str, Any] = {
            "id": job.id,
            "status": STATUS[job.phase],
            "createdAt": datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="milliseconds"),
        }
        if job.phase.final:
            task["cost"] = {"credits": _final_credits(job)}
        else:
            task["estimatedCost"] = {"credits": job.submission.bill.credits}
        if job.phase is Phase.RENDERING:
            task["progress"] = round(job.progress, 4)
        elif job.phase is Phase.SUCCEEDED:
            task["output"] = [self._signed_url(job, request)]
        elif job.phase is Phase.FAILED:
            task["failureCode"], task["failure"] = FAILURES[job.submission.failure or JobFailure.INTERNAL]
        return task

    async def cancel(self, request: Request) -> Response:
        """Cancel an unfinished task; delete a finished one."""
        job = self.job(request)
        if job.script.has("no-cancel"):
            raise Problem(400, "This task can no longer be cancelled.")
        if job.phase.final:
            self.sandbox.store.delete(job)
        else:
            self.sandbox.store.cancel(job, refund=job.phase is not Phase.RENDERING)
        return Response(status_code=204)

    async def organization(self, request: Request) -> Response:
        """The account's credit balance, limits and usage."""
        del request
        settings, store = self.sandbox.settings, self.sandbox.store
        used = {name: store.accepted(self.name, name) for name in MODELS}
        limits = {
            "maxConcurrentGenerations": settings.runway_concurrency,
            "maxDailyGenerations": DAILY_GENERATIONS,
        }
        return json_reply(
            {
                "creditBalance": CREDIT_BALANCE,
                "tier": {"maxMonthlyCreditSpend": CREDIT_BALANCE, "models": dict.fromkeys(MODELS, limits)},
                "usage": {"models": {name: {"dailyGenerations": count} for name, count in used.items()}},
            }
        )

    async def result(self, request: Request) -> Response:
        """A finished video, by a signed URL that has not expired."""
        remote_id, query = request.path_params["remote_id"], request.query_params
        expires, nonce = query.get("expires", ""), query.get("nonce", "")
        job = self.sandbox.store.find(self.name, remote_id)
        signed = hmac.compare_digest(query.get("signature", "").encode(), self._sign(remote_id, expires, nonce))
        return await self.deliver_stored(job, readable=signed and int(expires) >= time.time() * 1000)

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"No task with id {remote_id} was found.")

    def refused(self, refusal: Refusal) -> Problem:
        if refusal is Refusal.QUOTA:
            return Problem(429, "You have reached your daily generation limit for this model.")
        if refusal is Refusal.CONTENT_POLICY:
            return Problem(400, "The prompt violates our content policy.")
        return super().refused(refusal)

    def error(self, problem: Problem) -> Response:
        body: dict[str, Any] = {"error": problem.message}
        if problem.field is not None:
            body["issues"] = [{"path": [problem.field], "message": problem.message}]
        return json_reply(body, problem.status, problem.headers)

    def _signed_url(self, job: RemoteJob, request: Request) -> str:
        lifetime = 0 if job.script.has("expired") else self.sandbox.settings.result_url_seconds
        expires, nonce = str(int((time.time() + lifetime) * 1000) - 1), secrets.token_hex(4)
        signature = self._sign(job.id, expires, nonce).decode()
        path = f"{self.name}/results/{quote(job.id)}.mp4?expires={expires}&nonce={nonce}&signature={signature}"
        return f"{request.url.scheme}://{request.url.netloc}/{path}"

    def _sign(self, *parts: str) -> bytes:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest().encode()


def _invalid(field: str, message: str) -> Problem:
    return Problem(400, f"Validation of body failed: {field} {message}.", field=field)


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _check_extras(fields: dict[str, Any]) -> None:
    seed = fields.get("seed", 0)
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise _invalid("seed", f"must be an integer from 0 to {MAX_SEED}")
    if not isinstance(fields.get("audio", True), bool):
        raise _invalid("audio", "must be true or false")
    if not isinstance(fields.get("negativePrompt", ""), str):
        raise _invalid("negativePrompt", "must be a string")
    moderation = fields.get("contentModeration", {})
    if not isinstance(moderation, dict) or moderation.get("publicFigureThreshold", "auto") not in {"auto", "low"}:
        raise _invalid("contentModeration", "must hold publicFigureThreshold auto or low")


def _final_credits(job: RemoteJob) -> int:
    return int((job.submission.final_cost or Decimal(0)) / USD_PER_CREDIT)
