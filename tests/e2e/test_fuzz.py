"""The running product against its own OpenAPI document, and against inputs that break gateways.

Nothing is bought and nobody is called: the gateway of this module has no worker.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.settings import gateway_settings

DOCUMENT = Path(__file__).parents[2] / "openapi" / "gateway.json"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
LONGEST_INT64 = 2**63 - 1
DEEP = 900

CONFIG = """
base-url = {url}
continue-on-failure = true
max-stream-events = 3
request-timeout = 60
suppress-health-check = ["all"]
warnings = false

[auth.openapi.ApiKey]
bearer = {key}

[generation]
deterministic = true
max-examples = {examples}
no-shrink = true

[dictionaries]
jobs = {{ values = [{job}] }}
models = {{ values = ["sandbox/video", "sandbox/short", "default"] }}

# Text by chance is never a model or a job: without these nearly everything would end at the first question.
[parameters]
"body.model" = {{ dictionary = "models", probability = 0.8 }}
"path.job_id" = {{ dictionary = "jobs", probability = 0.5 }}

[checks]
# What a model offers is not in the schema: a request that fits the schema may still be refused.
positive_data_acceptance.expected-statuses = [200, 201, 202, 204, 401, 404, 408, 409, 422, 503]

[[operations]]
include-operation-id = "stream_job_events"
# The schema is that of each event. schemathesis takes it for one of the whole stream.
checks.response_schema_conformance.enabled = false
"""


@pytest.fixture
async def gateway(
    database: object, postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """An API that waits for nothing, without a worker."""
    del database
    settings = gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        api={"max_wait": 0.1},
    )
    async with running_gateway(settings, sandbox_url, workers=0) as running:
        yield running


@pytest.fixture
async def ended(gateway: Gateway) -> str:
    """The id of a job that has ended: its stream ends too."""
    job = await gateway.create()
    await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
    return str(job["id"])


async def fuzzed(gateway: Gateway, job_id: str, directory: Path, *options: str, examples: int) -> None:
    """Run schemathesis with its own configuration; its report is the reason of a failure."""
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    values = {"url": gateway.url, "key": key, "job": job_id, "examples": examples}
    config = directory / "schemathesis.toml"
    config.write_text(CONFIG.format(**{name: json.dumps(value) for name, value in values.items()}))
    process = await asyncio.create_subprocess_exec(
        *(str(SCHEMATHESIS), "--config-file", str(config), "--no-color", "run", str(DOCUMENT), *options),
        cwd=directory,  # it leaves its caches where it runs
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, report.decode()


async def test_every_response_is_as_documented(gateway: Gateway, ended: str, tmp_path: Path) -> None:
    """Takes about 9 s of CPU: ten generated requests for each operation, and each reply validated."""
    await fuzzed(gateway, ended, tmp_path, "--exclude-operation-id", "stream_job_events", examples=10)


async def test_every_stream_is_as_documented(gateway: Gateway, ended: str, tmp_path: Path) -> None:
    only = ("--include-operation-id", "stream_job_events", "--phases", "examples,coverage,fuzzing")
    await fuzzed(gateway, ended, tmp_path, *only, examples=5)


# What chance is unlikely to find --------------------------------------------------------------------------------------


def order(**fields: Any) -> str:
    return json.dumps({"prompt": PROMPT, "model": "sandbox/video", **fields})


def nested(opening: str, closing: str) -> str:
    """An order whose options are nested so deep; ``json.dumps`` would refuse to write it."""
    return order(provider_options={"a": 0}).replace('{"a": 0}', f'{{"a": {opening * DEEP}1{closing * DEEP}}}')


ORDERS = {
    "deep lists": nested("[", "]"),
    "deep objects": nested('{"a": ', "}"),
    "deeper than any parser goes": order(provider_options={"a": 0}).replace("0", "[" * 200_000),
    "NUL in the prompt": order(prompt="\0"),
    "NUL in the negative prompt": order(negative_prompt="\0"),
    "NUL in the model": order(model="\0"),
    "NUL in a metadata value": order(metadata={"a": "\0"}),
    "NUL in a metadata name": order(metadata={"\0": "a"}),
    "NUL in an option": order(provider_options={"a": "\0"}, mode="adjust"),
    "NUL in an option's name": order(provider_options={"\0": "a"}, mode="adjust"),
    "NUL in the webhook": order(webhook_url="https://example.com/\0"),
    "half a pair in the prompt": order(prompt="\ud800"),
    "half a pair in a metadata value": order(metadata={"a": "\ud800"}),
    "half a pair in a metadata name": order(metadata={"\ud800": "a"}),
    "half a pair in an option": order(provider_options={"a": "\ud800"}, mode="adjust"),
    "half a pair in the name of an option": order(provider_options={"\ud800": 1}, mode="adjust"),
    "half a pair in a name inside an option": order(provider_options={"a": {"\ud800": 1}}, mode="adjust"),
    "an endless number": order(seconds=0).replace(": 0", f": {'9' * 5000}"),
    "no number": order(max_cost=float("nan")),
    "infinity in an option": order(provider_options={"a": float("inf")}, mode="adjust"),
    "a picture of no shape": order(aspect_ratio="0:0", mode="adjust"),
    "a host of brackets": order(webhook_url="https://][x@"),
    "not even UTF-8": '{"prompt": "\udcff", "model": "sandbox/video"}',
}


async def test_an_order_that_cannot_be_kept_is_refused(gateway: Gateway) -> None:
    statuses = {}
    for name, body in ORDERS.items():
        content, headers = body.encode(errors="surrogateescape"), {"Content-Type": "application/json"}
        statuses[name] = (await gateway.client.post("/v1/jobs", content=content, headers=headers)).status_code
    assert statuses == dict.fromkeys(ORDERS, 422)


FILTERS = (
    "model=%00",
    "metadata[a]=%00",
    "metadata[%00]=a",
    "created_after=0001-01-01T00:00:00%2B14:00",
    "created_before=9999-12-31T23:59:59-14:00",
    "created_before=0.5",
    "cursor=%F0%9F%98%80",
    "cursor=",
    "limit=99999999999999999999",
)


async def test_a_filter_that_makes_no_sense_is_refused(gateway: Gateway) -> None:
    statuses = {query: (await gateway.client.get(f"/v1/jobs?{query}")).status_code for query in FILTERS}
    assert statuses == dict.fromkeys(FILTERS, 422)


async def test_a_metadata_filter_finds_what_it_says_and_nothing_else(gateway: Gateway) -> None:
    await gateway.create(metadata={"order": "1"})
    for trick in ("'", '"', "\\", "%27%7D::jsonb--", "a]=1&metadata[b", "%25", "_"):
        for query in (f"metadata[order{trick}]=1", f"metadata[order]=1{trick}"):
            answer = await gateway.client.get(f"/v1/jobs?{query}")
            assert answer.status_code in {200, 422}, query
            assert answer.json().get("data", []) == [], query


@pytest.mark.parametrize(
    ("place", "status"), [(LONGEST_INT64, 200), (LONGEST_INT64 + 1, 422), (10**30, 422)], ids=["last", "behind", "far"]
)
async def test_a_stream_of_an_ended_job_ends_wherever_it_begins(
    gateway: Gateway, ended: str, place: int, status: int
) -> None:
    async with asyncio.timeout(60):
        answer = await gateway.client.get(f"/v1/jobs/{ended}/events", headers={"Last-Event-ID": str(place)})
    assert answer.status_code == status


async def test_a_signature_of_nonsense_is_refused(gateway: Gateway) -> None:
    del gateway.client.headers["authorization"]
    for query in ("expires=%00&signature=%00", "expires=1", "signature=%FF", "expires=%F0&signature="):
        answer = await gateway.client.get(f"/v1/assets/ast_01h455vb4pex5vsknk084sn02q/content?{query}")
        assert answer.status_code == 403, query
