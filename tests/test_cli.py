"""The command line says what is wrong in plain lines, and tells scripts by its exit code."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.commands import filmgate

SECRET = "a-secret-of-more-than-32-characters-for-tests"


@pytest.fixture
def environment(postgres_url: str, redis_url: str) -> dict[str, str]:
    """The settings of a production gateway."""
    return {
        "FILMGATE_DATABASE_URL": postgres_url,
        "FILMGATE_REDIS_URL": redis_url,
        "FILMGATE_SECRET_KEY": SECRET,
    }


async def test_help_names_every_command(tmp_path: Path) -> None:
    help_ = await filmgate("--help", directory=tmp_path)
    assert help_.code == 0
    for command in ("dev", "demo", "api", "worker", "migrate", "sandbox", "keys", "generate", "openapi"):
        assert f" {command} " in help_.out


@pytest.mark.parametrize("command", [("api",), ("worker",), ("migrate",), ("keys", "list")])
async def test_missing_settings_are_named_one_per_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = await filmgate(*command, directory=tmp_path)
    assert ended.code == 2
    assert ended.out == ""
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["secret_key", "database.url", "redis.url"]


async def test_a_development_secret_is_refused_in_production(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = await filmgate(
        "api", directory=tmp_path, environment={**environment, "FILMGATE_SECRET_KEY": f"dev-{SECRET}"}
    )
    assert ended.code == 2
    assert ended.err.startswith("secret_key: a development secret in production mode")
    assert SECRET not in ended.err


async def test_the_clients_key_is_no_setting(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = await filmgate(
        "migrate", "--check", directory=tmp_path, environment={**environment, "FILMGATE_API_KEY": "fgk_x"}
    )
    assert (ended.code, ended.err) == (0, "")


async def test_migrate_says_in_one_line_that_the_database_is_away(
    tmp_path: Path, environment: dict[str, str], unused_tcp_port: int
) -> None:
    away = f"postgresql://filmgate@127.0.0.1:{unused_tcp_port}/filmgate"
    ended = await filmgate("migrate", directory=tmp_path, environment={**environment, "FILMGATE_DATABASE_URL": away})
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "the database" in ended.err


@pytest.mark.usefixtures("database")
async def test_a_key_is_made_listed_and_revoked(tmp_path: Path, environment: dict[str, str]) -> None:
    async def keys(*arguments: str) -> str:
        ended = await filmgate("keys", *arguments, directory=tmp_path, environment=environment)
        assert ended.code == 0, ended.err
        return ended.out

    created = await keys("create", "--account", "acme", "--name", "shop", "--scope", "jobs:read")
    words = dict(line.split(": ") for line in created.replace("id:  ", "id: ").splitlines()[:2])
    listed = await keys("list")
    assert words["id"] in listed
    assert words["key"] not in listed
    assert " live " in listed
    assert "jobs:read" in listed
    await keys("revoke", words["id"])
    assert "revoked" in await keys("list")
    again = await filmgate("keys", "revoke", words["id"], directory=tmp_path, environment=environment)
    assert (again.code, again.err) == (1, f"there is no live key {words['id']}; see: filmgate keys list\n")


async def test_an_unknown_scope_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = await filmgate(
        *("keys", "create", "--account", "acme", "--name", "shop", "--scope", "everything"),
        directory=tmp_path,
        environment=environment,
    )
    assert ended.code == 1
    assert "jobs:read" in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_missing_development_package_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['psutil'] = None; from app.cli import app; app(['dev'])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (1, "psutil is missing; install filmgate[dev]\n")


async def test_generate_needs_a_key(tmp_path: Path) -> None:
    ended = await filmgate("generate", "a film", directory=tmp_path)
    assert ended.code == 2
    assert "FILMGATE_API_KEY" in ended.err


async def test_generate_wants_a_prompt_or_a_job(tmp_path: Path) -> None:
    for arguments in ([], ["a film", "--resume", "job_x"]):
        ended = await filmgate("generate", "--key", "fgk_x", *arguments, directory=tmp_path)
        assert ended.code == 2
        assert "--resume" in ended.err


async def test_generate_says_that_the_gateway_is_away(tmp_path: Path, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    ended = await filmgate("generate", "a film", "--url", url, "--key", "fgk_x", directory=tmp_path)
    assert ended.code == 1
    assert ended.err.startswith(f"{url} cannot be reached")


async def test_openapi_check_tells_when_the_file_is_out_of_date(tmp_path: Path) -> None:
    missing = await filmgate("openapi", "--check", directory=tmp_path)
    assert (missing.code, missing.err) == (1, "openapi/gateway.json is not what the code says; run: filmgate openapi\n")
    assert (await filmgate("openapi", directory=tmp_path)).code == 0
    assert (await filmgate("openapi", "--check", directory=tmp_path)).code == 0
    file = tmp_path / "openapi" / "gateway.json"
    document = json.loads(file.read_text())
    assert document["paths"]["/v1/jobs"]["post"]["operationId"] == "create_job"
    file.write_text(json.dumps(document | {"paths": {}}))
    assert (await filmgate("openapi", "--check", directory=tmp_path)).code == 1
