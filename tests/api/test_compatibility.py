"""What counts as breaking: mutations of the document, each with the line that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.api.compatibility import breaking_changes, says_so
from app.api.openapi import document

Document = dict[str, Any]
Mutation = Callable[[Document], object]
CREATE = "POST /v1/jobs"
RELEASED = Path(__file__).parents[2] / "openapi" / "released.json"


@pytest.fixture(scope="module")
def published() -> Document:
    return document()


def copy_of(document: Document) -> Document:
    copy: Document = json.loads(json.dumps(document))
    return copy


def operation(document: Document, method: str = "post", path: str = "/v1/jobs") -> Document:
    found: Document = document["paths"][path][method]
    return found


def fields(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]["properties"]
    return found


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def parameter(document: Document, name: str) -> Document:
    (found,) = [one for one in operation(document, "get")["parameters"] if one["name"] == name]
    named: Document = found
    return named


def without_header(callback: Document, name: str) -> None:
    (sent,) = callback.values()
    sent["post"]["parameters"] = [one for one in sent["post"]["parameters"] if one["name"] != name]


def renamed(document: Document) -> None:
    text = json.dumps(document).replace('schemas/Asset"', 'schemas/File"')
    document.update(json.loads(text))
    document["components"]["schemas"]["File"] = document["components"]["schemas"].pop("Asset")


BREAKING: dict[str, tuple[Mutation, str]] = {
    "a path is gone": (lambda d: d["paths"].pop("/v1/models"), "GET /v1/models: is gone"),
    "a method is gone": (lambda d: d["paths"]["/v1/jobs"].pop("get"), "GET /v1/jobs: is gone"),
    "an operation is renamed": (
        lambda d: operation(d).update(operationId="make_job"),
        f"{CREATE}: operationId was create_job, is make_job",
    ),
    "an open operation needs a key": (
        lambda d: operation(d, "get", "/healthz").update(security=[{"ApiKey": []}]),
        "GET /healthz: needs another kind of credential",
    ),
    "a parameter is gone": (
        lambda d: operation(d, "get")["parameters"].remove(parameter(d, "cursor")),
        "GET /v1/jobs: parameter cursor in query is gone",
    ),
    "a parameter is required": (
        lambda d: parameter(d, "cursor").update(required=True),
        "GET /v1/jobs: parameter cursor in query is required",
    ),
    "a parameter is new and required": (
        lambda d: operation(d, "get")["parameters"].append(
            {"name": "tenant", "in": "query", "required": True, "schema": {"type": "string"}}
        ),
        "GET /v1/jobs: parameter tenant in query is new and required",
    ),
    "a page is smaller": (
        lambda d: parameter(d, "limit")["schema"].update(maximum=50),
        "GET /v1/jobs: parameter limit in query: maximum differs: 100 and 50",
    ),
    "an input is gone": (lambda d: fields(d, "JobCreate").pop("seed"), f"{CREATE}: body.seed: is gone"),
    "an input is required": (
        lambda d: schema(d, "JobCreate")["required"].append("seconds"),
        f"{CREATE}: body.seconds: is required",
    ),
    "an input has another type": (
        lambda d: fields(d, "JobCreate").update(prompt={"type": "array", "items": {"type": "string"}}),
        f"{CREATE}: body.prompt: string is no longer accepted",
    ),
    "an input may no longer be null": (
        lambda d: fields(d, "JobCreate").update(seed={"type": "integer", "format": "int64"}),
        f"{CREATE}: body.seed: null is no longer accepted",
    ),
    "an input has one choice less": (
        lambda d: fields(d, "JobCreate")["priority"]["enum"].remove("low"),
        f"{CREATE}: body.priority: low is no longer accepted",
    ),
    "an input is shorter": (
        lambda d: fields(d, "JobCreate")["prompt"].update(maxLength=1000),
        f"{CREATE}: body.prompt: maxLength differs: 32000 and 1000",
    ),
    "an input must match a pattern": (
        lambda d: fields(d, "JobCreate")["model"].update(pattern="^[a-z]+$"),
        f"{CREATE}: body.model: pattern differs: None and ^[a-z]+$",
    ),
    "the items of an input are shorter": (
        lambda d: fields(d, "JobCreate")["fallbacks"]["items"].update(maxLength=20),
        f"{CREATE}: body.fallbacks[]: maxLength differs: 200 and 20",
    ),
    "a body is no longer JSON": (
        lambda d: operation(d)["requestBody"]["content"].pop("application/json"),
        f"{CREATE}: body: application/json is gone",
    ),
    "an output is gone": (lambda d: fields(d, "Job").pop("version"), "GET /v1/jobs: 200.data[].version: is gone"),
    "an output may be missing": (
        lambda d: schema(d, "Job")["required"].remove("prompt"),
        f"{CREATE}: 202.prompt: may be missing",
    ),
    "an output may be null": (
        lambda d: fields(d, "Job").update(model={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        f"{CREATE}: 202.model: null is new",
    ),
    "an output has one choice more": (
        lambda d: schema(d, "JobStatus")["enum"].append("paused"),
        f"{CREATE}: 202.status: paused is new",
    ),
    "an output has one choice less": (
        lambda d: schema(d, "JobStatus")["enum"].remove("canceled"),
        f"{CREATE}: 202.status: canceled is gone",
    ),
    "an output is wider": (
        lambda d: fields(d, "Asset")["width"].update(format="int64", maximum=2**63 - 1),
        "GET /v1/assets/{asset_id}: 200.width: format differs: int64 and int32",
    ),
    "a nested output is gone": (
        lambda d: fields(d, "JobAssets").pop("poster"),
        "GET /v1/jobs/{job_id}: 200.assets.poster: is gone",
    ),
    "a response has another status": (
        lambda d: operation(d)["responses"].update({"200": operation(d)["responses"].pop("202")}),
        f"{CREATE}: no longer responds with 202",
    ),
    "a media type is gone": (
        lambda d: operation(d, "get", "/v1/assets/{asset_id}/content")["responses"]["200"]["content"].pop("video/mp4"),
        "GET /v1/assets/{asset_id}/content: 200: video/mp4 is gone",
    ),
    "a problem is no longer one": (
        lambda d: operation(d)["responses"]["422"]["content"].pop("application/problem+json"),
        f"{CREATE}: 422: application/problem+json is gone",
    ),
    "a webhook is gone": (
        lambda d: operation(d)["callbacks"].pop("job.failed"),
        f"{CREATE}: callback job.failed is gone",
    ),
    "a webhook says less": (
        lambda d: fields(d, "JobEventData").pop("cost"),
        f"{CREATE}: callback job.failed.data.cost: is gone",
    ),
    "a code of a problem is gone": (
        lambda d: fields(d, "Problem")["code"]["x-extensible-enum"].remove("gone"),
        f"{CREATE}: 422.code: gone is gone",
    ),
    "a code of an error is gone": (
        lambda d: fields(d, "JobError")["code"]["x-extensible-enum"].remove("timeout"),
        f"{CREATE}: 202.error.code: timeout is gone",
    ),
    "signed URLs need a key too": (
        lambda d: operation(d, "get", "/v1/assets/{asset_id}/content").update(security=[{"ApiKey": []}]),
        "GET /v1/assets/{asset_id}/content: needs another kind of credential",
    ),
    "keys are sent elsewhere": (
        lambda d: d["components"]["securitySchemes"].update(ApiKey={"type": "apiKey", "in": "header", "name": "X-Key"}),
        f"{CREATE}: needs another kind of credential",
    ),
    "a webhook has no signature": (
        lambda d: without_header(operation(d)["callbacks"]["job.failed"], "webhook-signature"),
        f"{CREATE}: callback job.failed: header webhook-signature is gone",
    ),
    "a response has a header less": (
        lambda d: operation(d)["responses"]["202"]["headers"].pop("Location"),
        f"{CREATE}: 202: header Location is gone",
    ),
    "a header has another type": (
        lambda d: operation(d)["responses"]["202"]["headers"]["Location"].update(schema={"type": "integer"}),
        f"{CREATE}: 202: header Location: integer is new",
    ),
    "a filter is written in another way": (
        lambda d: parameter(d, "metadata").update(style="form"),
        "GET /v1/jobs: parameter metadata in query is written in another way",
    ),
    "a repeated filter is one list": (
        lambda d: parameter(d, "status").update(explode=False),
        "GET /v1/jobs: parameter status in query is written in another way",
    ),
    "a page has another size by default": (
        lambda d: parameter(d, "limit")["schema"].update(default=50),
        "GET /v1/jobs: parameter limit in query: default was 20, is 50",
    ),
    "a name of an input is shorter": (
        lambda d: fields(d, "JobCreate")["metadata"]["propertyNames"].update(maxLength=10),
        f"{CREATE}: body.metadata.*: maxLength differs: 40 and 10",
    ),
    "an input may not be open": (
        lambda d: fields(d, "JobCreate")["provider_options"].update(additionalProperties=False),
        f"{CREATE}: body.provider_options.*: any other value is no longer accepted",
    ),
    "an input must be even": (
        lambda d: fields(d, "JobCreate")["seconds"]["anyOf"][0].update(multipleOf=2),
        f"{CREATE}: body.seconds: multipleOf differs: None and 2",
    ),
    "an input may not repeat an item": (
        lambda d: fields(d, "JobCreate")["fallbacks"].update(uniqueItems=True),
        f"{CREATE}: body.fallbacks: may not repeat an item",
    ),
    "events are told apart by another field": (
        lambda d: schema(d, "JobEvent")["discriminator"].update(propertyName="kind"),
        "GET /v1/jobs/{job_id}/events: 200: type no longer tells the members apart",
    ),
    "a schema is renamed": (renamed, "schema Asset: is gone"),
    "an operation moves to another class": (
        lambda d: operation(d).update(tags=["orders"]),
        f"{CREATE}: has another tag, by which generators group operations",
    ),
    "a type of event is gone": (
        lambda d: schema(d, "JobEvent")["discriminator"]["mapping"].pop("job.progress"),
        "GET /v1/jobs/{job_id}/events: 200: job.progress is gone",
    ),
}


def without_required(document: Document) -> None:
    schema(document, "JobCreate")["required"].remove("model")


def with_a_new_event(document: Document) -> None:
    document["components"]["schemas"]["JobPausedEvent"] = schema(document, "JobQueuedEvent")
    schema(document, "JobEvent")["discriminator"]["mapping"]["job.paused"] = "#/components/schemas/JobPausedEvent"


def of_the_path(document: Document) -> None:
    """Say of a path what each of its operations says."""
    item = document["paths"]["/v1/jobs/{job_id}"]
    item["parameters"] = [one for one in item["get"]["parameters"] if one["in"] == "path"]
    item["get"]["parameters"] = [one for one in item["get"]["parameters"] if one["in"] != "path"]


def by_reference(document: Document) -> None:
    parameters = operation(document, "get")["parameters"]
    document["components"]["parameters"] = {"First": parameters[0]}
    parameters[0] = {"$ref": "#/components/parameters/First"}
    responses = operation(document)["responses"]
    document["components"]["responses"] = {"Created": responses["202"]}
    responses["202"] = {"$ref": "#/components/responses/Created"}


def with_content(document: Document) -> None:
    cursor = parameter(document, "cursor")
    cursor["content"] = {"text/plain": {"schema": cursor.pop("schema")}}


def with_other_names(document: Document) -> None:
    text = json.dumps(document).replace('"ApiKey"', '"Bearer"')
    document.update(json.loads(text))


HARMLESS: dict[str, Mutation] = {
    "a key is optional": lambda d: operation(d, "get", "/v1/models").update(security=[{"ApiKey": []}, {}]),
    "another name of the way to authenticate": with_other_names,
    "parameters of the path": of_the_path,
    "parameters and responses by reference": by_reference,
    "anything is `true`": lambda d: fields(d, "JobCreate")["provider_options"].update(additionalProperties=True),
    "the default way to write a filter": lambda d: parameter(d, "status").update(style="form", explode=True),
    "nothing": lambda d: d,
    "a new path": lambda d: d["paths"].update({"/v1/batches": d["paths"]["/v1/models"]}),
    "a new optional parameter": lambda d: operation(d, "get")["parameters"].append(
        {"name": "order", "in": "query", "schema": {"type": "string"}}
    ),
    "a new optional input": lambda d: fields(d, "JobCreate").update(still={"type": "boolean"}),
    "an input that may be left out": without_required,
    "an input with one choice more": lambda d: fields(d, "JobCreate")["priority"]["enum"].append("urgent"),
    "a longer input": lambda d: fields(d, "JobCreate")["prompt"].update(maxLength=64_000),
    "a new output": lambda d: fields(d, "Job").update(batch_id={"type": "string"}),
    "an output that is always there": lambda d: schema(d, "JobAssets")["required"].append("poster"),
    "a new code of an error": lambda d: fields(d, "JobError")["code"]["x-extensible-enum"].append("too_odd"),
    "a new problem": lambda d: operation(d)["responses"].update({"402": operation(d)["responses"]["422"]}),
    "a new type of event": with_a_new_event,
    "other words": lambda d: schema(d, "Job").update(description="Something else."),
    "headers have no case": lambda d: next(
        one for one in operation(d)["parameters"] if one["name"] == "Idempotency-Key"
    ).update(name="idempotency-key"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_clients_is_named(published: Document, name: str) -> None:
    mutate, line = BREAKING[name]
    changed = copy_of(published)
    mutate(changed)
    assert line in breaking_changes(published, changed)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_breaks_no_client_is_not(published: Document, name: str) -> None:
    changed = copy_of(published)
    HARMLESS[name](changed)
    assert breaking_changes(published, changed) == []


def test_a_parameter_may_be_one_document(published: Document) -> None:
    changed = copy_of(published)
    with_content(changed)
    assert breaking_changes(changed, changed) == []
    assert breaking_changes(published, changed) == ["GET /v1/jobs: parameter cursor in query is written in another way"]


def test_a_schema_that_refers_to_itself_is_compared_to_its_end(published: Document) -> None:
    recursive = copy_of(published)
    fields(recursive, "Job")["parent"] = {"anyOf": [{"$ref": "#/components/schemas/Job"}, {"type": "null"}]}
    changed = copy_of(recursive)
    fields(changed, "Job").pop("model")
    assert breaking_changes(recursive, recursive) == []
    assert f"{CREATE}: 202.model: is gone" in breaking_changes(recursive, changed)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.2.0", "0.2.1", False),
        ("0.2.0", "0.3.0", True),
        ("0.9.0", "0.10.0", True),
        ("0.9.0", "1.0.0", True),
        ("1.2.0", "1.3.0", False),
        ("1.2.0", "2.0.0", True),
        ("2.0.0", "1.9.0", False),
        ("0.3.0", "0.2.0", False),
    ],
)
def test_a_version_says_that_it_breaks_clients(old: str, new: str, *, said: bool) -> None:
    assert says_so(old, new) is said


def test_the_version_says_what_has_changed_since_the_last_release(published: Document) -> None:
    released = json.loads(RELEASED.read_text())
    versions = (released["info"]["version"], published["info"]["version"])
    assert says_so(*versions) or breaking_changes(released, published) == []
