"""The OpenAPI document: the routes that FastAPI describes, and the webhooks that the gateway sends.

It is written for generators of clients: see ``_published`` for what they read differently from FastAPI.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from app.events.types import OCCASIONS, EventType
from app.jobs.errors import CODES as JOB_CODES
from app.jobs.payloads import JobEvent
from app.jobs.states import WEBHOOK_EVENTS
from app.web.problems import CODES as PROBLEM_CODES
from app.web.problems import operations

_INTRODUCTION = """
A gateway in front of video-generation providers. A posted prompt becomes a durable **job**. The gateway submits it to a
provider, with **at most one live submission** at a time, copies the video to storage that you own, and reports the end
of the job by a signed webhook.

* **202 means committed.** A retry with the same `Idempotency-Key` returns the same job.
* **`succeeded` means stored, checked and playable.**
* **`fallbacks`** name other models for the same job, tried when a provider rejects it or is unavailable. Every
  submission is in the job's ledger, and all together stay within `max_cost`.
* **`cost.certainty`** says what is known about charges: `none`, `possible` or `certain`.

Send `Authorization: Bearer fgk_…`. Times are RFC 3339, money is decimal strings in USD. Errors are RFC 9457 problems.
"""


#: Schemas by the names of our classes, and what clients call them.
NAMES = {
    "JobRequest": "JobCreate",
    "JobView": "Job",
    "Page_JobView_": "JobList",
    "Status": "JobStatus",
    "Phase": "JobPhase",
    "Waiting": "JobQueue",
    "FallbackView": "Fallback",
    "SubmissionView": "Submission",
    "ModelView": "Model",
    "Kind": "AssetKind",
    "Attempt": "DeliveryAttempt",
    "Check": "ReadinessCheck",
}
#: Schemas of what clients send.
INPUTS = ("JobRequest",)
INT32 = 2**31 - 1


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_PROBLEMS = _table(
    ["code", "status", "meaning"], [[f"`{known.code}`", str(known.status), known.title] for known in PROBLEM_CODES]
)
_JOB_ERRORS = _table(["code", "meaning"], [[f"`{code}`", meaning] for code, meaning in sorted(JOB_CODES.items())])

_EVENTS = _table(
    ["type", "sent to the webhook", "meaning"],
    [[f"`{event}`", "yes" if event in WEBHOOK_EVENTS else "no", OCCASIONS[event]] for event in EventType],
)

DESCRIPTION: dict[str, Any] = {
    "title": "Filmgate",
    "version": version("filmgate"),
    "summary": "One contract for every video-generation provider.",
    "description": "\n\n".join(
        [
            _INTRODUCTION.strip(),
            "## Problems",
            _PROBLEMS,
            "## Job error codes (`error.code`)",
            _JOB_ERRORS,
            "## Events (`type`)",
            _EVENTS,
        ]
    ),
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "openapi_tags": [
        {"name": "jobs", "description": "Create jobs and follow them."},
        {"name": "assets", "description": "The stored videos."},
        {"name": "models", "description": "The available models with their limits and prices."},
        {"name": "webhooks", "description": "Signed notifications that the gateway sends when a job ends."},
        {"name": "callbacks", "description": "Notifications sent by providers; not needed by clients."},
        {"name": "operations", "description": "Health and metrics."},
    ],
}


def install(app: FastAPI) -> None:
    """Add the webhooks that the gateway sends to the document."""
    webhooks = APIRouter()
    for event_type in sorted(WEBHOOK_EVENTS):
        webhooks.add_api_route(
            event_type,
            _receive,
            methods=["POST"],
            operation_id=f"on_{event_type.replace('.', '_')}",
            summary=OCCASIONS[event_type],
            description=(
                "Sent to the job's `webhook_url` until it responds with 2xx, with the headers `webhook-id`, "
                "`webhook-timestamp` and `webhook-signature` of Standard Webhooks 1.0.0. An event may arrive more than "
                "once, always with the same `webhook-id`. A response with 410 stops further attempts."
            ),
            responses={200: {"description": "Any 2xx acknowledges the event."}},
            tags=["webhooks"],
        )
    app.webhooks.include_router(webhooks)
    generate = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        return _published(generate())

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _receive(event: JobEvent) -> None:
    """Documentation only: implemented by the receiver."""
    del event


def _published(schema: dict[str, Any]) -> dict[str, Any]:
    """The document as generators need it.

    Top-level webhooks with bodies make openapi-generator write Python that cannot be imported: they are callbacks of
    the operation whose body names their URL. An integer without a format is 32 bits wide in Go and Java. An operation
    without ``security`` is open for some generators, and inherits for others.
    """
    schema["paths"]["/v1/jobs"]["post"]["callbacks"] = {
        name: {"{$request.body#/webhook_url}": item} for name, item in schema.pop("webhooks").items()
    }
    for operation in operations(schema["paths"]):
        operation.setdefault("security", [])
        for response in operation["responses"].values():
            # `itemSchema` is a keyword of OpenAPI 3.2, which FastAPI uses in a 3.1 document.
            stream = response.get("content", {}).get("text/event-stream")
            if stream and stream.pop("itemSchema", None):
                stream["schema"] = {"type": "string"}
    for node in _nodes(schema):
        if node.get("type") == "integer" and "format" not in node:
            node["format"] = "int32" if node.get("maximum", INT32 + 1) <= INT32 else "int64"
    for name in INPUTS:
        for field in schema["components"]["schemas"][name]["properties"].values():
            _say_default(field)
    _rename(schema)
    return schema


def _say_default(field: dict[str, Any]) -> None:
    default = field.pop("default", None)
    if default not in (None, [], {}):
        field["description"] = f"{field.get('description', '')} Default: `{json.dumps(default)}`.".strip()


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(item)


def _rename(schema: dict[str, Any]) -> None:
    """Give the schemas the names that a client's code should have."""
    for node in _nodes(schema):
        prefix, _, name = str(node.get("$ref", "")).rpartition("/")
        if name in NAMES:
            node["$ref"] = f"{prefix}/{NAMES[name]}"
    renamed = {NAMES.get(name, name): item for name, item in schema["components"]["schemas"].items()}
    for name, item in renamed.items():
        item["title"] = name
    schema["components"]["schemas"] = dict(sorted(renamed.items()))


def document() -> dict[str, Any]:
    """The document of this version, as committed in ``openapi/gateway.json``."""
    from app.api.main import describe  # noqa: PLC0415  # main imports this module

    return describe().openapi()


def render(generated: dict[str, Any]) -> str:
    """The document as text with stable formatting, so that diffs are readable."""
    return json.dumps(generated, indent=2, ensure_ascii=False) + "\n"
