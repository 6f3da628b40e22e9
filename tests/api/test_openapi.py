"""The document as generators of clients read it."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from app.api.openapi import document
from app.jobs.states import WEBHOOK_EVENTS


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return document()


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(item)


def test_the_document_is_valid_and_every_reference_leads_somewhere(published: dict[str, Any]) -> None:
    validate(published)
    schemas = published["components"]["schemas"]
    named = {node["$ref"] for node in objects(published) if isinstance(node.get("$ref"), str)}
    assert named == {f"#/components/schemas/{name}" for name in schemas}


def test_schemas_have_names_that_a_client_s_code_should_have(published: dict[str, Any]) -> None:
    schemas = published["components"]["schemas"]
    assert {"Job", "JobCreate", "JobList", "JobStatus", "JobEvent", "Asset", "AssetKind", "Problem"} <= set(schemas)
    assert [name for name in schemas if name.endswith(("View", "_")) or "_" in name] == []
    assert [name for name, schema in schemas.items() if schema["title"] != name] == []


def test_the_webhooks_of_a_job_are_callbacks_of_its_create(published: dict[str, Any]) -> None:
    assert "webhooks" not in published
    callbacks = published["paths"]["/v1/jobs"]["post"]["callbacks"]
    assert set(callbacks) == set(WEBHOOK_EVENTS)
    for callback in callbacks.values():
        body = callback["{$request.body#/webhook_url}"]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": "#/components/schemas/JobEvent"}


def test_every_integer_says_how_wide_it_is(published: dict[str, Any]) -> None:
    integers = [node for node in objects(published) if node.get("type") == "integer"]
    assert {node["format"] for node in integers} == {"int32", "int64"}
    assert [node for node in integers if node["format"] == "int32" and node["maximum"] >= 2**31] == []
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


def test_open_operations_say_so_and_a_video_is_bytes_for_every_generator(published: dict[str, Any]) -> None:
    operations = [operation for item in published["paths"].values() for operation in item.values()]
    open_to_all = {operation["operationId"] for operation in operations if operation["security"] == []}
    assert open_to_all == {"get_health", "get_readiness", "receive_callback"}
    content = published["paths"]["/v1/assets/{asset_id}/content"]["get"]["responses"]
    for status in ("200", "206"):
        assert next(iter(content[status]["content"])) == "application/octet-stream"
