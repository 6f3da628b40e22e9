"""``filmgate doctor`` as a person and a program run it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.ids import Prefix, encode, new_id
from app.infra import migrate
from app.infra.db import Database
from app.settings import Settings
from tests.doctor.broken_gateway import BrokenGateway
from tests.sandbox.server import connected
from tests.support.command_runner import Ended, filmgate
from tests.support.settings import SECRET

MODEL = "sandbox/video"
CONNECTIONS = """
[connections.kling]
provider = "kling"
base_url = "{0}/kling"

[connections.runway]
provider = "runway"
base_url = "{0}/runway"
"""


class Doctor:
    """The command, with the settings of a production gateway."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment

    async def __call__(self, *options: str, **variables: str) -> Ended:
        environment = {**self._environment, **variables}
        return await filmgate("doctor", *options, directory=self._directory, environment=environment)


@pytest.fixture
def doctor(tmp_path: Path, settings: Settings, sandbox_url: str) -> Doctor:
    (tmp_path / "filmgate.toml").write_text(CONNECTIONS.format(sandbox_url))
    environment = {
        "FILMGATE_DATABASE_URL": settings.database.url.get_secret_value(),
        "FILMGATE_REDIS_URL": settings.redis.url.get_secret_value(),
        "FILMGATE_SECRET_KEY": SECRET.removeprefix("dev-"),
        "FILMGATE_ASSETS_STORE": settings.assets.store,
        "FILMGATE_ASSETS_MIN_FREE_BYTES": "0",
        "FILMGATE_CONNECTION_KLING_API_KEY": "sandbox-key",
        "FILMGATE_CONNECTION_RUNWAY_API_KEY": "sandbox-key",
    }
    return Doctor(tmp_path, environment)


async def contents(database: Database) -> Sequence[Any]:
    """Every row of every table, with the transaction that wrote it."""
    async with database.read() as conn:
        return [
            sorted(await conn.scalars(text(f"SELECT (xmin, t)::text FROM {table} AS t")))
            for table in migrate.all_tables().sorted_tables
        ]


async def test_nothing_found_is_said_and_exits_with_0(doctor: Doctor) -> None:
    ended = await doctor()
    assert (ended.code, ended.out, ended.err) == (0, "nothing found\n", "")
    ended = await doctor("--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {"problems": 0, "notices": 0, "findings": [], "without_list": []}


async def test_findings_are_grouped_with_what_to_do_and_exit_with_1(doctor: Doctor, broken: BrokenGateway) -> None:
    job = encode(Prefix.JOB, await broken.order())
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '5 min'")
    await broken.execute("UPDATE jobs SET created_at = created_at - interval '5 min'")
    await broken.execute("INSERT INTO connections (name, failures, trouble) VALUES ('kling', 1, 'no credit')")
    before = await contents(broken.resources.database)
    ended = await doctor()
    assert ended.code == 1
    assert ended.err == ""
    assert ended.out.splitlines() == [
        "problems",
        f"  job_overdue          The submit lane has 1 job overdue, the oldest by 5 min: {job}.",
        "                       → Start workers (filmgate worker); if they are running, check their logs.",
        f"  line_unserved        The line of {MODEL} has 1 job that no connection serves, the oldest for 5 min: {job}.",
        "                       → Configure a connection for this model; otherwise the jobs fail at their deadline.",
        "",
        "notices",
        "  connection_troubled  Connection kling failed 1 time in a row: no credit.",
        "                       → Check its credentials, its balance and the network.",
        "",
        "2 problems, 1 notice",
    ]
    read = json.loads((await doctor("--json")).out)
    assert (read["problems"], read["notices"]) == (2, 1)
    assert read["findings"][0].keys() == {"code", "severity", "message", "advice", "facts"}
    assert read["findings"][0]["facts"]["jobs"] == [job]
    assert await contents(broken.resources.database) == before


async def test_upstream_asks_the_providers(doctor: Doctor, broken: BrokenGateway, sandbox_url: str) -> None:
    async with connected(sandbox_url) as customer:
        order = {"prompt": "[never]", "options": {"external_task_id": encode(Prefix.SUBMISSION, new_id())}}
        await customer.post("kling/text-to-video/kling-3.0", json=order)
    before = await broken.gateway.purchases()
    ended = await doctor("--upstream")
    assert ended.code == 1
    assert "  remote_job_orphaned  Connection kling holds 1 job with a reference of ours" in ended.out
    assert ended.out.splitlines()[-2:] == ["not compared, because the provider has no list: runway", "1 problem"]
    assert await broken.gateway.purchases() == before


async def test_provider_keys_are_needed_for_upstream_only(doctor: Doctor) -> None:
    without_keys = {"FILMGATE_CONNECTION_KLING_API_KEY": "", "FILMGATE_CONNECTION_RUNWAY_API_KEY": ""}
    ended = await doctor(**without_keys)
    assert (ended.code, ended.out, ended.err) == (0, "nothing found\n", "")
    ended = await doctor("--upstream", **without_keys)
    assert (ended.code, ended.out) == (2, "")
    assert "connections.kling.api_key: is not set" in ended.err


async def test_wrong_settings_exit_with_2_and_are_json_where_json_is_asked_for(doctor: Doctor) -> None:
    missing = {"FILMGATE_CONNECTION_KLING_API_KEY": ""}
    for options, variables, key in (
        ([], {"FILMGATE_SECRET_KEY": "short"}, "secret_key"),
        ([], {"FILMGATE_DATABASE_URL": "postgresql://127.0.0.1:port/filmgate"}, "database.url"),
        ([], {"FILMGATE_REDIS_URL": "redis://127.0.0.1:port"}, "redis.url"),
        (["--upstream"], missing, "connections.kling.api_key"),
    ):
        ended = await doctor(*options, **variables)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"{key}: ")
        as_json = await doctor(*options, "--json", **variables)
        assert (as_json.code, as_json.err) == (2, ended.err)
        assert json.loads(as_json.out) == {"error": {"code": "invalid_settings", "message": ended.err.rstrip("\n")}}


async def test_a_database_that_is_away_is_a_finding(doctor: Doctor, unused_tcp_port: int) -> None:
    away = f"postgresql://filmgate@127.0.0.1:{unused_tcp_port}/filmgate"
    ended = await doctor("--json", FILMGATE_DATABASE_URL=away)
    assert ended.code == 1
    assert [finding["code"] for finding in json.loads(ended.out)["findings"]] == ["database_unusable"]
    assert "Traceback" not in ended.err
