"""The document as generators of clients read it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import validate

from app.api.main import describe
from app.api.openapi import document
from app.jobs.states import WEBHOOK_EVENTS
from app.web.problem_codes import CODES


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return document()


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for item in document["paths"].values() for operation in item.values()]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(item)


def test_the_document_is_valid_and_every_reference_leads_somewhere(published: dict[str, Any]) -> None:
    validate(published)
    kinds = {kind: published["components"][kind] for kind in ("schemas", "headers")}
    named = {node["$ref"] for node in objects(published) if isinstance(node.get("$ref"), str)}
    assert named == {f"#/components/{kind}/{name}" for kind, members in kinds.items() for name in members}


def test_schemas_have_names_that_a_client_s_code_should_have(published: dict[str, Any]) -> None:
    schemas = published["components"]["schemas"]
    assert {"Job", "JobCreate", "JobList", "JobStatus", "JobEvent", "Asset", "AssetKind", "Problem"} <= set(schemas)
    assert [name for name in schemas if name.endswith(("View", "_")) or "_" in name] == []
    assert [name for name, schema in schemas.items() if schema["title"] != name] == []


def test_the_webhooks_of_a_job_are_callbacks_of_its_create(published: dict[str, Any]) -> None:
    assert "webhooks" not in published
    callbacks = published["paths"]["/v1/jobs"]["post"]["callbacks"]
    assert set(callbacks) == set(WEBHOOK_EVENTS)
    mapping = published["components"]["schemas"]["JobEvent"]["discriminator"]["mapping"]
    for event, callback in callbacks.items():
        body = callback["{$request.body#/webhook_url}"]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": mapping[event]}


def test_every_integer_says_how_wide_it_is(published: dict[str, Any]) -> None:
    integers = [node for node in objects(published) if node.get("type") == "integer"]
    assert {(node["format"], node["maximum"] < 2**31) for node in integers} == {("int32", True), ("int64", False)}
    assert [node for node in integers if {type(node["minimum"]), type(node["maximum"])} != {int}] == []
    assert max(node["maximum"] for node in integers) == 2**63 - 1
    seeds = [
        node for node in objects(published["components"]["schemas"]["Job"]["properties"]["seed"]) if "type" in node
    ]
    assert "int64" in [node.get("format") for node in seeds]


def test_inputs_have_no_defaults_but_in_words(published: dict[str, Any]) -> None:
    fields = published["components"]["schemas"]["JobCreate"]["properties"]
    assert [name for name, field in fields.items() if "default" in field] == []
    assert 'Default: `"strict"`.' in fields["mode"]["description"]


def test_jobs_can_be_filtered_by_metadata(published: dict[str, Any]) -> None:
    parameters = {one["name"]: one for one in published["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert parameters["metadata"]["style"] == "deepObject"
    assert {"status", "model", "cursor", "limit"} <= set(parameters)


def test_a_parameter_is_never_null_and_headers_are_spelled_as_in_their_specifications(
    published: dict[str, Any],
) -> None:
    parameters = [one for operation in operations(published) for one in operation.get("parameters", ())]
    assert [one["name"] for one in parameters if {"type": "null"} in one["schema"].get("anyOf", ())] == []
    headers = {one["name"] for one in parameters if one["in"] == "header"}
    assert headers == {"Idempotency-Key", "Prefer", "Last-Event-ID", "If-None-Match", "Range"}


def test_what_any_request_may_meet_is_declared_everywhere(published: dict[str, Any]) -> None:
    for operation in operations(published):
        responses = operation["responses"]
        assert {"400", "408", "413", "431", "500", "503"} <= responses.keys(), operation["operationId"]
        assert all("X-Request-Id" in response["headers"] for response in responses.values())
        refusals = [responses[status] for status in ("429", "503") if status in responses]
        if operation["operationId"] != "get_readiness":  # its 503 says what is missing
            assert all("Retry-After" in refusal["headers"] for refusal in refusals)


def test_open_operations_say_so_and_a_video_is_bytes_for_every_generator(published: dict[str, Any]) -> None:
    open_to_all = {operation["operationId"] for operation in operations(published) if operation["security"] == []}
    assert open_to_all == {"get_health", "get_readiness", "receive_callback", "get_input", "head_input"}
    content = published["paths"]["/v1/assets/{asset_id}/content"]["get"]["responses"]
    for status in ("200", "206"):
        assert next(iter(content[status]["content"])) == "application/octet-stream"


def test_every_operation_is_described_and_shows_what_is_sent_and_returned(published: dict[str, Any]) -> None:
    for operation in operations(published):
        assert operation["description"], operation["operationId"]
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies += [response for status, response in operation["responses"].items() if status != "304"]
        for body in bodies:
            for media_type, content in body.get("content", {}).items():
                if "json" in media_type or media_type.startswith("text/"):
                    assert content.keys() & {"example", "examples"}, (operation["operationId"], media_type)


def test_every_example_is_valid(published: dict[str, Any]) -> None:
    seen = 0
    for content in objects(published):
        if "schema" in content and content.keys() & {"example", "examples"}:
            values = (
                [content["example"]] if "example" in content else [one["value"] for one in content["examples"].values()]
            )
            schema = {**content["schema"], "components": published["components"]}
            for value in values:
                Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)
                seen += 1
    assert seen > 100


def test_every_problem_has_a_page_to_which_its_type_leads(published: dict[str, Any]) -> None:
    examples = [
        node["value"] for node in objects(published) if str(node.get("value", {}).get("type")).startswith("/docs")
    ]
    client = TestClient(describe(serve_docs=False))
    assert {example["code"] for example in examples} < {code.code for code in CODES}
    for code in CODES:
        page = client.get(f"/docs/problems/{code.code}")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert code.code in page.text
        assert "`" not in page.text
    index = client.get("/docs/problems").text
    assert re.findall('href="problems/([a-z_]+)"', index) == [code.code for code in CODES]
    assert client.get("/docs/problems/nothing").json()["type"] == "/docs/problems/not_found"
