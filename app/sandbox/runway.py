"""Runway's task API, version 2024-11-06 (SDK 5.24): tasks, signed results, and strict validation per model.

A task above the concurrency limit is accepted as THROTTLED and starts later. ``estimatedCost`` is charged on
acceptance; a failure by ``INTERNAL`` or ``ASSET.INVALID`` is refunded, a cancel only before the task runs.

An asset that cannot be fetched or used fails the task with ``ASSET.INVALID``. URLs are fetched before the reply to the
create, or, if a script says so, before the render.
"""

import hashlib
import hmac
import math
import secrets
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.create_request import CreateRequest
from app.sandbox.dialect import Dialect, Sandbox
from app.sandbox.inputs import InputRules, InputSource, Role
from app.sandbox.ledger import Bill
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem
from app.sandbox.runway_inputs import RULES, Uploads, read_sources
from app.sandbox.runway_models import (
    ENDPOINTS,
    MODELS,
    check_extras,
    read_duration,
    read_model,
    read_prompt,
    read_ratio,
)
from app.sandbox.script import JobFailure, Refusal
from app.sandbox.store import RemoteJob
from app.sandbox.wire import json_reply, read_json

API_VERSION = "2024-11-06"
USD_PER_CREDIT = Decimal("0.01")
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
REFUNDED = frozenset({JobFailure.INTERNAL, JobFailure.INVALID_INPUT})
FAILURES = {
    JobFailure.INPUT_MODERATION: ("SAFETY.INPUT.TEXT", "The prompt was flagged by our content moderation."),
    JobFailure.OUTPUT_MODERATION: ("SAFETY.OUTPUT.VIDEO", "The generated video was flagged by our content moderation."),
    JobFailure.INTERNAL: ("INTERNAL", "An unexpected error occurred."),
    JobFailure.INVALID_INPUT: ("ASSET.INVALID", "An input asset was invalid."),
}


class Runway(Dialect):
    """``/runway``."""

    name: ClassVar[str] = "runway"
    odd_status: ClassVar[str] = "RETICULATING"
    input_rules: ClassVar[InputRules] = RULES
    accepts_invalid_inputs: ClassVar[bool] = True
    fetches_later: ClassVar[bool] = True

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._secret = secrets.token_bytes(32)
        self._uploads = Uploads(sandbox.input_files, sandbox.settings.upload_seconds)

    def routes(self) -> list[Route]:
        return [
            *(self.route(f"/v1/{endpoint}", "POST", self.create) for endpoint in ENDPOINTS),
            self.route("/v1/uploads", "POST", self.create_upload),
            Route("/uploads/{upload_id}", self._uploads.receive, methods=["POST"]),
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
        endpoint = request.url.path.rpartition("/")[2]
        name, model = read_model(fields, endpoint)
        prompt = read_prompt(fields, model)
        seconds = read_duration(fields, model)
        sources = read_sources(fields, endpoint, model, self._uploads)
        follows_source = any(source.role is Role.SOURCE_VIDEO for source in sources)
        width, height = read_ratio(fields, model, follows_source=follows_source)
        check_extras(fields)
        return CreateRequest(prompt, name, width, height, seconds, sources=sources, follows_source=follows_source)

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        return Problem(400, f"Invalid asset for {source.field}: {reason}.", field=source.field)

    def bill(self, create: CreateRequest) -> Bill:
        amount = MODELS[create.model].credits_per_second * math.ceil(create.billed_seconds)
        return Bill(amount * USD_PER_CREDIT, amount, refunded=REFUNDED)

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

    async def create_upload(self, request: Request) -> Response:
        """Where to send a file, and the URI that it has for a day afterwards."""
        base_url = f"{request.url.scheme}://{request.url.netloc}/{self.name}"
        return json_reply(self._uploads.create(await read_json(request), base_url))

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


def _final_credits(job: RemoteJob) -> int:
    return int((job.submission.final_cost or Decimal(0)) / USD_PER_CREDIT)
