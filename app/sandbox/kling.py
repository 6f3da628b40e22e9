"""Kling's new-generation API (document-api, read in 2026-11): text, images and videos to video, tasks, callbacks.

Where the sources are silent, the sandbox behaves as follows and may differ from Kling: a duplicate ``external_task_id``
is refused (1201); the list is newest first; a failed task has no ``billing`` and costs nothing; an undocumented field
is refused (1201). The URLs of inputs are fetched by GET, without redirects, before the reply, and an input that cannot
be used is refused (1201); if a script delays the fetch, the task fails.
"""

import math
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox import misbehavior
from app.sandbox.counts import Reading
from app.sandbox.create_request import CreateRequest
from app.sandbox.dialect import Dialect
from app.sandbox.inputs import InputRules, InputSource, Role
from app.sandbox.kling_models import (
    CONTENTS,
    ENDPOINTS,
    RULES,
    invalid,
    known,
    read_contents,
    read_settings,
)
from app.sandbox.ledger import Bill
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem
from app.sandbox.script import JobFailure, Refusal
from app.sandbox.store import RemoteJob
from app.sandbox.wire import json_reply, read_json

STATUS = {
    Phase.THROTTLED: "submitted",
    Phase.WAITING: "submitted",
    Phase.RENDERING: "processing",
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
    Phase.CANCELED: "failed",
}
FAILURES = {
    JobFailure.INPUT_MODERATION: "Failure to pass the risk control system",
    JobFailure.OUTPUT_MODERATION: "The generated content failed to pass the risk control system",
    JobFailure.INTERNAL: "Internal service error",
    JobFailure.INVALID_INPUT: "Failed to process the input: the image or video is invalid",
}
#: The envelope's code for a problem without one, by HTTP status.
CODES = {400: 1201, 401: 1002, 404: 1203, 405: 1202, 500: 5000, 503: 5001}
LARGEST_PAGE = 500
KIND = {"product_type": "video"}
FILTERS = ("status", *KIND)

OPTIONS = frozenset({"callback_url", "external_task_id", "watermark_info"})


@dataclass(frozen=True, slots=True)
class KlingCreateRequest(CreateRequest):
    """A create with its price."""

    usd_per_second: Decimal = Decimal(0)


class Kling(Dialect):
    """``/kling``."""

    name: ClassVar[str] = "kling"
    input_rules: ClassVar[InputRules] = RULES
    fetches_later: ClassVar[bool] = True

    def routes(self) -> list[Route]:
        return [
            *(self.route(f"/{endpoint}/{{model}}", "POST", self.create) for endpoint in ENDPOINTS),
            self.route("/tasks", "GET", self.query),
            self.route("/tasks", "POST", self.list_tasks),
            Route("/results/{remote_id}.mp4", self.result, methods=["GET"]),
        ]

    async def read_create(self, request: Request) -> CreateRequest:
        name, endpoint = request.path_params["model"], request.url.path.split("/")[-2]
        model = ENDPOINTS[endpoint].get(name)
        if model is None:
            raise Problem(404, f"The model {name} does not exist.", code="1203")
        named = "contents" if endpoint in CONTENTS else "prompt"
        fields = known(await read_json(request), "body", {named, "settings", "options"})
        settings = known(fields.get("settings", {}), "settings", model.settings)
        options = known(fields.get("options", {}), "options", OPTIONS)
        prompt, sources = read_contents(fields, endpoint, model)
        shape = read_settings(settings, model, sources)
        return KlingCreateRequest(
            prompt,
            name,
            shape.width,
            shape.height,
            shape.seconds,
            self._external_id(options),
            _url(options),
            sources,
            follows_source=any(source.role is Role.SOURCE_VIDEO for source in sources),
            usd_per_second=shape.usd_per_second,
        )

    def check_inputs(self, create: CreateRequest) -> None:
        # Another create may have taken the id while the URLs were fetched.
        self._check_unused(create.external_id)

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        return invalid(source.field, f"is invalid. {reason}")

    def bill(self, create: CreateRequest) -> Bill:
        assert isinstance(create, KlingCreateRequest)
        return Bill(create.usd_per_second * math.ceil(create.billed_seconds), refunded=frozenset(JobFailure))

    def new_remote_id(self) -> str:
        return str(10**17 + secrets.randbelow(9 * 10**17))

    def created(self, job: RemoteJob) -> dict[str, Any]:
        # A new task is always `submitted`, even if it finished before the reply was written.
        task = {"id": job.id, "status": "submitted", **_times(job)}
        return _envelope(task if job.external_id is None else task | {"external_id": job.external_id})

    def describe(self, job: RemoteJob, request: Request) -> dict[str, Any]:
        task: dict[str, Any] = {"id": job.id, "status": STATUS[job.phase], "message": "", **_times(job)}
        if job.external_id is not None:
            task["external_id"] = job.external_id
        task |= {"outputs": [], "billing": []}
        if job.phase is Phase.SUCCEEDED:
            url = f"{request.url.scheme}://{request.url.netloc}/{self.name}/results/{quote(job.id)}.mp4"
            video = {"type": "video", "id": f"{job.id}0", "url": url, "duration": f"{job.shot.seconds:.3f}"}
            task["outputs"] = [video]
            cash = {"charge_type": "cash", "cash_type": "balance", "currency": "USD"}
            task["billing"] = [
                cash | {"amount": str(job.submission.bill.usd), "list_price": str(job.submission.bill.usd)}
            ]
        elif job.phase is Phase.FAILED:
            task["message"] = FAILURES[job.submission.failure or JobFailure.INTERNAL]
        return task

    async def query(self, request: Request) -> Response:
        """Tasks by id (a status read, which can be scripted) or by external id."""
        asked = request.query_params
        if ("task_ids" in asked) == ("external_task_ids" in asked):
            raise invalid("task_ids", "or external_task_ids: exactly one must be given")
        if "external_task_ids" in asked:
            names = asked["external_task_ids"].split(",")
            named = [job for name in names for job in self.sandbox.store.named(self.name, name)]
            jobs = misbehavior.listed(named, self.sandbox.counts)
            return json_reply(_envelope([self._record(job, request) for job in jobs]))
        found = [self.find(name) for name in asked["task_ids"].split(",")]
        tasks = [self._status_record(job, request) for job in found if job is not None]
        return json_reply(_envelope([task for task in tasks if task is not None]))

    async def list_tasks(self, request: Request) -> Response:
        """The tasks in pages, newest first. A cursor is the id of the last task of the previous page."""
        fields = known(await read_json(request), "body", {"start_time", "end_time", "cursor", "limit", "filters"})
        limit, cursor = fields.get("limit", 100), fields.get("cursor", "")
        if type(limit) is not int or not 1 <= limit <= LARGEST_PAGE:
            raise invalid("limit", f"must be from 1 to {LARGEST_PAGE}")
        jobs = self.listed(newest_first=True)
        if cursor:
            places = [index for index, job in enumerate(jobs) if job.id == cursor]
            if not places:
                raise invalid("cursor", "is not one of ours")
            jobs = jobs[places[-1] + 1 :]
        else:
            since, until = (_bound(fields, name) for name in ("start_time", "end_time"))
            jobs = [job for job in jobs if (since or 0) <= _milliseconds(job.created_at) <= (until or 10**15)]
        filters = _filters(fields)
        tasks = [self._record(job, request) for job in jobs]
        chosen = [task for task in tasks if all({**task, **KIND}[key] in values for key, values in filters)]
        page, more = chosen[:limit], len(chosen) > limit
        listed = {"result": page, "count": len(page), "has_more": more, "next_cursor": page[-1]["id"] if more else ""}
        return json_reply(_envelope(listed))

    async def result(self, request: Request) -> Response:
        """A finished video; the URL needs no credential."""
        job = self.sandbox.store.find(self.name, request.path_params["remote_id"])
        return await self.deliver_stored(job, readable=job is not None and not job.script.has("expired"))

    def refused(self, refusal: Refusal) -> Problem:
        if refusal is Refusal.RATE_LIMIT:
            # The header is the sandbox's addition; Kling documents none.
            headers = {"retry-after": "1"}
            return Problem(429, "parallel task over resource pack limit", code="1303", headers=headers)
        if refusal is Refusal.QUOTA:
            return Problem(429, "Resource pack exhausted: your quota is used up", code="1102")
        if refusal is Refusal.CONTENT_POLICY:
            return Problem(400, "The content of the request triggered the content safety policy", code="1301")
        return super().refused(refusal)

    def error(self, problem: Problem) -> Response:
        named = problem.code if problem.code and problem.code.isdecimal() else None
        code = int(named) if named else CODES.get(problem.status, 1200)
        body = {"code": code, "message": problem.message, "request_id": str(uuid.uuid4())}
        return json_reply(body, problem.status, problem.headers)

    def _status_record(self, job: RemoteJob, request: Request) -> dict[str, Any] | None:
        """A task as this status read shows it; None if its script hides it."""
        reading = self.sandbox.counts.reading(self.name, job.submission.prompt, job.script)
        if reading is Reading.UNAVAILABLE:
            raise Problem(503, "The service is temporarily unavailable, usually for maintenance")
        if reading is Reading.MISSING:
            return None
        odd = {"status": self.odd_status} if reading is Reading.ODD_STATUS else {}
        task = misbehavior.echoed(self.describe(job, request) | odd, job, request)
        if job.lost_after_read:
            self.sandbox.store.lose(job)
        return task

    def _record(self, job: RemoteJob, request: Request) -> dict[str, Any]:
        return misbehavior.record(self.describe(job, request), job, request)

    def _external_id(self, options: Mapping[str, Any]) -> str | None:
        external_id = options.get("external_task_id")
        if external_id is None:
            return None
        if not isinstance(external_id, str) or not external_id:
            raise invalid("external_task_id", "must be a string")
        self._check_unused(external_id)
        return external_id

    def _check_unused(self, external_id: str | None) -> None:
        if external_id is not None and self.sandbox.store.named(self.name, external_id):
            raise invalid("external_task_id", "is in use already")


def _envelope(data: Any) -> dict[str, Any]:
    return {"code": 0, "message": "SUCCEED", "request_id": str(uuid.uuid4()), "data": data}


def _url(options: Mapping[str, Any]) -> str | None:
    url = options.get("callback_url")
    if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
        raise invalid("callback_url", "must be a URL")
    return url


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _times(job: RemoteJob) -> dict[str, int]:
    return {
        "create_time": _milliseconds(job.created_at),
        "update_time": _milliseconds(job.finished_at or job.created_at),
    }


def _bound(fields: Mapping[str, Any], name: str) -> int | None:
    """A time in milliseconds; documented as a number in one place and as a string in others."""
    value = fields.get(name)
    if value is None:
        return None
    if not str(value).isdecimal():
        raise invalid(name, "must be Unix milliseconds")
    return int(value)


def _filters(fields: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """The conditions for a task to be listed: a field and its allowed values."""
    filters = fields.get("filters", [])
    rules = [rule for rule in filters if isinstance(rule, dict)] if isinstance(filters, list) else [{}]
    if any(rule.get("key") not in FILTERS or not isinstance(rule.get("values"), list) for rule in rules):
        raise invalid("filters", f"must each hold a key ({' or '.join(FILTERS)}) and values")
    return [(rule["key"], rule["values"]) for rule in rules]
