"""Scripted misbehaviour of a server: odd ids, refusals in foreign shapes, incomplete lists, echoed headers.

The dialects write remote jobs as their servers do; the changes that a script asks for are applied here.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.counts import Counts
from app.sandbox.script import Script
from app.sandbox.store import RemoteJob
from app.sandbox.wire import json_reply

LONG_ID = 242
CUT_AT = 100
ENTITY_HEADERS = {"content-length", "content-type"}

#: Refusals in the shapes of other servers, by the argument of ``[refuse:…]``.
REFUSALS: Mapping[str, Mapping[str, Any]] = {
    "flat": {"code": "invalid_request", "message": "the field seconds is invalid", "data": None},
    "object": {
        "object": "error",
        "message": "seconds: Input should be a valid number",
        "type": "BadRequestError",
        "code": 400,
    },
    "zod": {"success": False, "error": {"issues": [{"path": ["seconds"], "message": "Expected number"}]}},
    "text": {"error": True, "message": "The field seconds is invalid"},
    "timeout": {"code": "do_request_failed", "message": "upstream request timed out", "data": None},
}


def accepted_id(remote_id: str, script: Script) -> str:
    """The id of a new job, as its script wants it."""
    form = script.asked.get("id")
    if form == "long":
        return (remote_id + secrets.token_hex(LONG_ID))[:LONG_ID]
    if form == "odd":
        return f"{remote_id[:8]} {remote_id[8:]}"
    return remote_id


def listed(jobs: Iterable[RemoteJob], counts: Counts) -> list[RemoteJob]:
    """The jobs that a list or a look-up by reference shows now, in the order given."""
    now = time.time()
    shown: list[RemoteJob] = []
    last: list[RemoteJob] = []
    for job in jobs:
        if job.script.asked and not _is_listed(job, counts, now):
            continue
        (last if job.script.asked.get("list") == "last" else shown).append(job)
        if job.script.asked.get("list") == "double":
            shown.append(job)
    return shown + last


def record(fields: dict[str, Any], job: RemoteJob, request: Request) -> dict[str, Any]:
    """A remote job as a list shows it. Fields that the dialect does not have are not added."""
    form = job.script.asked.get("list", "")
    changes = CHANGES.get(form, {})
    fields |= {name: change(fields[name]) for name, change in changes.items() if name in fields}
    if form == "omit":
        fields.pop("prompt", None)
    return echoed(fields, job, request)


def echoed(fields: dict[str, Any], job: RemoteJob, request: Request) -> dict[str, Any]:
    """The fields, plus the headers of the request if the job's script contains ``[echo]``."""
    return fields | {"request_headers": dict(request.headers)} if job.script.asked.get("echo") == "" else fields


def note_echo(request: Request, script: Script) -> None:
    """Mark the request for :func:`echoed_reply` if the script contains ``[echo]``."""
    request.state.echo = script.asked.get("echo") == ""


def echoed_reply(reply: Response, request: Request) -> Response:
    """The reply, plus the headers of a request that :func:`note_echo` marked."""
    if not getattr(request.state, "echo", False) or reply.media_type != "application/json":
        return reply
    body = json.loads(bytes(reply.body)) | {"request_headers": dict(request.headers)}
    headers = {name: value for name, value in reply.headers.items() if name not in ENTITY_HEADERS}
    return json_reply(body, reply.status_code, headers)


def _is_listed(job: RemoteJob, counts: Counts, now: float) -> bool:
    early = now - job.submission.accepted_at.timestamp() < job.script.number("unlisted")
    return not early and counts.reaches_home(job.id, job.script, "list")


def _cut(prompt: str) -> str:
    return prompt[: CUT_AT if len(prompt) > CUT_AT else len(prompt) // 2]


#: How ``[list:…]`` changes the fields of a remote job, by its argument.
CHANGES: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "rename": {"model": lambda model: f"{model}-2025-12-08"},
    "round": {"seconds": lambda seconds: f"{float(seconds) + 1:g}", "duration": lambda seconds: seconds + 1},
    "decimal": {"seconds": lambda seconds: f"{float(seconds):.1f}"},
    "trim": {"prompt": str.strip},
    "cut": {"prompt": _cut},
    "unsized": {"size": lambda _size: None},
    "rotate": {"size": lambda size: "x".join(reversed(size.split("x")))},
}
