"""The OpenAPI document: the routes that FastAPI describes, and the webhooks that the gateway sends."""

import json
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from app.events.types import OCCASIONS, EventType
from app.jobs.errors import CODES as JOB_CODES
from app.jobs.payloads import JobEvent
from app.jobs.states import WEBHOOK_EVENTS
from app.web.problems import CODES as PROBLEM_CODES

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

    def openapi() -> dict[str, Any]:
        return _in_3_1(generate())

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _receive(event: JobEvent) -> None:
    """Documentation only: implemented by the receiver."""
    del event


def _in_3_1(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace `itemSchema`, an OpenAPI 3.2 keyword that FastAPI uses for event streams in a 3.1 document."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                stream = response.get("content", {}).get("text/event-stream")
                if stream and stream.pop("itemSchema", None):
                    stream["schema"] = {"type": "string"}
    return schema


def document() -> dict[str, Any]:
    """The document of this version, as committed in ``openapi/gateway.json``."""
    from app.api.main import describe  # noqa: PLC0415  # main imports this module

    return describe().openapi()


def render(generated: dict[str, Any]) -> str:
    """The document as text with stable formatting, so that diffs are readable."""
    return json.dumps(generated, indent=2, ensure_ascii=False) + "\n"
