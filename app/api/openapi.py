"""The OpenAPI document: what FastAPI knows, and what it cannot know (the webhooks that we send)."""

import json
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from app.jobs.failures import CODES as JOB_CODES
from app.jobs.payloads import JobEvent
from app.jobs.states import FILM_LATE, WEBHOOK_EVENTS
from app.web.problems import CODES as PROBLEM_CODES

_INTRODUCTION = """
A gateway in front of video-generation providers. Post a prompt: it becomes a durable **job**, is bought from an
upstream provider **at most once**, and ends as a film in storage that you own, with a signed webhook.

* **202 means committed.** A retry with the same `Idempotency-Key` finds the same job.
* **`succeeded` means stored, checked and playable.**
* **`fallbacks`** let a job go on, under the same id, when a provider says no. Never silently, never above `max_cost`.
* **`charge_certainty`** says what is known about money: `none`, `possible` or `certain`.

Send `Authorization: Bearer fgk_…`. Times are RFC 3339, money is decimal strings in USD. Errors are RFC 9457 problems.
"""


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_PROBLEMS = _table(
    ["code", "status", "meaning"], [[f"`{known.code}`", str(known.status), known.title] for known in PROBLEM_CODES]
)
_JOB_ERRORS = _table(["code", "meaning"], [[f"`{code}`", meaning] for code, meaning in sorted(JOB_CODES.items())])

DESCRIPTION: dict[str, Any] = {
    "title": "Filmgate",
    "version": version("filmgate"),
    "summary": "One contract for every video-generation provider.",
    "description": "\n\n".join(
        [_INTRODUCTION.strip(), "## Problems", _PROBLEMS, "## Why a job failed (`error.code`)", _JOB_ERRORS]
    ),
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "openapi_tags": [
        {"name": "jobs", "description": "Order films and follow them."},
        {"name": "assets", "description": "The stored films."},
        {"name": "models", "description": "What can be ordered."},
        {"name": "webhooks", "description": "How we call you back."},
        {"name": "callbacks", "description": "How providers call us: no customer needs this."},
        {"name": "operations", "description": "For operators."},
    ],
}


_OCCASIONS = {FILM_LATE: "The film of a job that had failed came out after all"}


def install(app: FastAPI) -> None:
    """Describe the webhooks that we send."""
    webhooks = APIRouter()
    for event_type in sorted(WEBHOOK_EVENTS):
        webhooks.add_api_route(
            event_type,
            _receive,
            methods=["POST"],
            operation_id=f"on_{event_type.replace('.', '_')}",
            summary=f"{_OCCASIONS.get(event_type, 'A job has ended')}: {event_type}",
            description=(
                "Sent to the job's `webhook_url` until it answers 2xx, with the headers `webhook-id`, "
                "`webhook-timestamp` and `webhook-signature` of Standard Webhooks 1.0.0. The same event may arrive "
                "more than once: its `webhook-id` is the same. 410 stops further attempts."
            ),
            responses={200: {"description": "Any 2xx: received."}},
            tags=["webhooks"],
        )
    app.webhooks.include_router(webhooks)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        return _in_3_1(generate())

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _receive(event: JobEvent) -> None:
    """Documentation only: this is the receiver's side."""
    del event


def _in_3_1(schema: dict[str, Any]) -> dict[str, Any]:
    """FastAPI describes event streams with `itemSchema`, a word of OpenAPI 3.2, in a document that says it is 3.1."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                stream = answer.get("content", {}).get("text/event-stream")
                if stream and stream.pop("itemSchema", None):
                    stream["schema"] = {"type": "string"}
    return schema


def document() -> dict[str, Any]:
    """The document of this version, as committed in ``openapi/gateway.json``."""
    from app.api.main import describe  # noqa: PLC0415  # main imports this module

    return describe().openapi()


def render(generated: dict[str, Any]) -> str:
    """As it is committed: stable and readable in a diff."""
    return json.dumps(generated, indent=2, ensure_ascii=False) + "\n"
