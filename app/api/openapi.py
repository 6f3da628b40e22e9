"""The OpenAPI document: the routes that FastAPI describes, and the webhooks that the gateway sends.

It is written for generators of clients: see ``_published`` for what they read differently from FastAPI.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from app.api import examples
from app.events.types import OCCASIONS, EventType
from app.jobs.errors import CODES as JOB_CODES
from app.jobs.payloads import JobEvent
from app.jobs.states import WEBHOOK_EVENTS
from app.web.problem_codes import CODES as PROBLEM_CODES
from app.web.problems import operations
from app.web.schema_types import MAX_INT32, MAX_INT64

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
    "Page_File_": "FileList",
    "Status": "JobStatus",
    "Phase": "JobPhase",
    "Waiting": "JobQueue",
    "FallbackView": "Fallback",
    "SubmissionView": "Submission",
    "ModelView": "Model",
    "InputView": "JobInput",
    "InputRequest": "JobCreateInput",
    "AcceptedInput": "ModelInput",
    "Kind": "AssetKind",
    "Attempt": "DeliveryAttempt",
    "Check": "ReadinessCheck",
}
#: Schemas of what clients send.
INPUTS = ("JobRequest",)
#: Of the committed document. A gateway's own names the prefix behind which it is, if any.
SERVERS = [{"url": "http://127.0.0.1:8080", "description": "The gateway that `make dev` starts."}]
#: Of every response.
REQUEST_ID = {
    "schema": {"type": "string"},
    "required": True,
    "description": "The id of the request, in the gateway's log too: yours, if you sent one, or a new one.",
}
#: The event's schema, of which each type of event has one.
EVENT = "JobEvent"


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
    "contact": {"name": "The operator of this gateway"},
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "openapi_tags": [
        {"name": "jobs", "description": "Create jobs and follow them."},
        {"name": "files", "description": "What you give: pictures, videos and sounds for your jobs."},
        {"name": "assets", "description": "The stored videos."},
        {"name": "models", "description": "The available models with their limits and prices."},
        {"name": "webhooks", "description": "Signed notifications that the gateway sends when a job ends."},
        {"name": "inputs", "description": "Files that providers fetch; not needed by clients."},
        {"name": "callbacks", "description": "Notifications sent by providers; not needed by clients."},
        {"name": "operations", "description": "Health and metrics."},
    ],
}


def install(app: FastAPI) -> None:
    """Add the webhooks that the gateway sends to the document."""
    webhooks = APIRouter()
    webhooks.add_api_route("job_event", _receive, methods=["POST"], operation_id="on_job_event")
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
    the operation whose body names their URL. An operation without ``security`` is open for some generators, and
    inherits for others.
    """
    schemas = schema["components"]["schemas"]
    del schema["webhooks"]
    schema["paths"]["/v1/jobs"]["post"]["callbacks"] = {event: _callback(event) for event in sorted(WEBHOOK_EVENTS)}
    schema["components"]["headers"] = {"RequestId": REQUEST_ID}
    schemas.update(_events(schemas.pop(EVENT)))
    del schemas["EventType"]  # each event names its own
    for operation in operations(schema["paths"]):
        operation.setdefault("security", [])
        operation["responses"] = dict(sorted(operation["responses"].items()))
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _not_null(parameter["schema"])
        for response in operation["responses"].values():
            response.setdefault("headers", {})["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
        _type_stream(operation)
        _show_examples(operation)
    for node in _nodes(schema):
        if node.get("type") == "integer":
            _bound(node)
    for name in INPUTS:
        for field in schemas[name]["properties"].values():
            _say_default(field)
    _rename(schema)
    return schema


def _callback(event: EventType) -> dict[str, Any]:
    headers = [
        ("webhook-id", "The id of the event; the same on every attempt."),
        ("webhook-timestamp", "When this attempt was made, in Unix time."),
        ("webhook-signature", "One or more signatures of this attempt, separated by spaces: `v1,` and base64."),
    ]
    operation = {
        "tags": ["webhooks"],
        "summary": OCCASIONS[event],
        "description": (
            "Sent to the job's `webhook_url` until it responds with 2xx, signed by Standard Webhooks 1.0.0. An event "
            "may arrive more than once, always with the same `webhook-id`."
        ),
        "operationId": f"on_{event.replace('.', '_')}",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in headers
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _reference(_schema_of(event)), "example": examples.event(event)}
            },
        },
        "responses": {
            "2XX": {"description": "Any 2xx acknowledges the event."},
            "410": {"description": "No further attempts are wanted."},
        },
    }
    return {"{$request.body#/webhook_url}": {"post": operation}}


def _events(event: dict[str, Any]) -> dict[str, Any]:
    """A schema for each type of event, and their union under the name that they have in common."""
    by_type = {
        _schema_of(type_): {
            **event,
            "description": OCCASIONS[type_],
            "properties": {**event["properties"], "type": {"type": "string", "enum": [type_.value]}},
        }
        for type_ in EventType
    }
    union = {
        "description": event["description"],
        "oneOf": [_reference(name) for name in by_type],
        "discriminator": {
            "propertyName": "type",
            "mapping": {type_.value: _reference(_schema_of(type_))["$ref"] for type_ in EventType},
        },
    }
    return {**by_type, EVENT: union}


def _schema_of(event: EventType) -> str:
    """`job.video_late`: `JobVideoLateEvent`."""
    return "".join(word.capitalize() for word in event.replace(".", "_").split("_")) + "Event"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _type_stream(operation: dict[str, Any]) -> None:
    """Replace a keyword of OpenAPI 3.2 that FastAPI uses. Generators that know streams give `schema` to each event."""
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if content.pop("itemSchema", None):
                content["schema"] = _reference(EVENT)


def _show_examples(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            if status.startswith("2") and media_type in {"application/json", "text/plain", "text/event-stream"}:
                content["example"] = examples.RESPONSES[name]
    if shown := examples.REQUESTS.get(name):
        body = operation["requestBody"]["content"]["application/json"]
        body["examples"] = {title: {"value": value} for title, value in shown.items()}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not: null is how FastAPI says that it may be left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **choices[0]}


def _bound(integer: dict[str, Any]) -> None:
    """Say how wide an integer is: without a format it has 32 bits in Go and Java. Bounds are integers, too."""
    for bound in ("minimum", "maximum"):
        if bound in integer:
            integer[bound] = min(int(integer[bound]), MAX_INT64)  # pydantic's are floats, and one of 2^63 is too much
    integer.setdefault("format", "int32" if integer["maximum"] <= MAX_INT32 else "int64")


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

    published = describe().openapi()
    return {"openapi": published["openapi"], "info": published["info"], "servers": SERVERS, **published}


def render(generated: dict[str, Any]) -> str:
    """The document as text with stable formatting, so that diffs are readable."""
    return json.dumps(generated, indent=2, ensure_ascii=False) + "\n"
