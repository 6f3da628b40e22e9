"""The command line says what is wrong in plain lines, and tells scripts by its exit code."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from app.clock import utc_now
from app.embedded.servers import Postgres
from tests.support import command_runner
from tests.support.command_runner import Ended, filmgate
from tests.support.raw_server import Say, Then, reply, running_raw_server
from tests.support.sample_files import picture

pytestmark = pytest.mark.servers

SECRET = "a-secret-of-more-than-32-characters-for-tests"
JOB = "job_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
def environment(postgres_url: str, redis_url: str) -> dict[str, str]:
    """The settings of a production gateway."""
    return {
        "FILMGATE_DATABASE_URL": postgres_url,
        "FILMGATE_REDIS_URL": redis_url,
        "FILMGATE_SECRET_KEY": SECRET,
        # A stack of `make dev` may have the usual ones.
        "FILMGATE_API_PORT": "0",
        "FILMGATE_WORKER_PORT": "0",
    }


async def test_help_names_every_command(tmp_path: Path) -> None:
    help_ = await filmgate("--help", directory=tmp_path)
    assert help_.code == 0
    servers, tools = ("dev", "demo", "api", "worker", "sandbox"), ("keys", "generate", "doctor", "ledger", "openapi")
    for command in (*servers, "migrate", *tools):
        assert f" {command} " in help_.out


@pytest.mark.parametrize("command", [("api",), ("worker",), ("migrate",), ("keys", "list")])
async def test_missing_settings_are_named_one_per_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = await filmgate(*command, directory=tmp_path)
    assert ended.code == 2
    assert ended.out == ""
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["secret_key", "database.url", "redis.url"]


@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
async def test_a_port_in_use_names_the_setting(
    tmp_path: Path, environment: dict[str, str], command: str, host: str
) -> None:
    with socket.create_server(
        (host or "127.0.0.1", 0), family=socket.AF_INET6 if host == "::1" else socket.AF_INET
    ) as taken:
        port = taken.getsockname()[1]
        own = {f"FILMGATE_{command.upper()}_HOST": host, f"FILMGATE_{command.upper()}_PORT": str(port)}
        ended = await filmgate(command, directory=tmp_path, environment={**environment, **own})
    assert ended.code == 2
    assert ended.err.startswith(f"{command}.port: cannot listen on ")
    assert f"FILMGATE_{command.upper()}_PORT" in ended.err
    assert len(ended.err.splitlines()) == 1


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
    assert (ended.code, ended.err) == (1, "the database cannot be reached: connection refused\n")


async def test_a_database_that_was_never_migrated_is_told_so(
    tmp_path: Path, environment: dict[str, str], postgres: Postgres
) -> None:
    empty = await postgres.create_database("never_migrated")
    ended = await filmgate(
        "keys", "list", directory=tmp_path, environment={**environment, "FILMGATE_DATABASE_URL": empty}
    )
    assert (ended.code, ended.err) == (1, "the database has no tables; run: filmgate migrate\n")


@pytest.mark.parametrize("command", ["api", "worker"])
async def test_settings_that_lead_nowhere_are_told_in_words(
    tmp_path: Path, environment: dict[str, str], command: str
) -> None:
    (tmp_path / "filmgate.toml").write_text("[connections.runway]\nprovider = 'runway'\n")
    misspelt = {"FILMGATE_CONNECTION_RUNWY_API_KEY": "a-credential-of-nobody"}
    ended = await filmgate(command, directory=tmp_path, environment={**environment, **misspelt})
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == (
        "connections.runway.api_key: is not set; set FILMGATE_CONNECTION_RUNWAY_API_KEY"
    )
    lines = [json.loads(line) for line in ended.err.splitlines()[:-1]]
    [warning] = [line for line in lines if line["level"] == "warning"]
    assert warning["variables"] == ["FILMGATE_CONNECTION_RUNWY_API_KEY"]
    assert "a-credential-of-nobody" not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["api", "worker"])
async def test_a_store_that_cannot_be_used_is_told_in_words(
    tmp_path: Path, environment: dict[str, str], command: str
) -> None:
    (tmp_path / "file").touch()
    store = {"FILMGATE_ASSETS_STORE": (tmp_path / "file" / "videos").as_uri()}
    ended = await filmgate(command, directory=tmp_path, environment={**environment, **store})
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(f"assets.store: {tmp_path}/file/videos cannot be made: ")
    assert "Traceback" not in ended.err


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
    assert "\tlive\t" in listed
    assert "jobs:read" in listed
    await keys("revoke", words["id"])
    assert "revoked" in await keys("list")
    again = await filmgate("keys", "revoke", words["id"], directory=tmp_path, environment=environment)
    assert (again.code, again.err) == (1, f"there is no live key {words['id']}; see: filmgate keys list\n")


@pytest.mark.usefixtures("database")
async def test_rotate_counts_what_it_encrypted_again(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = await filmgate("rotate", directory=tmp_path, environment=environment)
    assert (ended.code, ended.out) == (0, "0 webhook secrets are encrypted with the current key\n")


async def test_an_unknown_scope_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = await filmgate(
        *("keys", "create", "--account", "acme", "--name", "shop", "--scope", "everything"),
        directory=tmp_path,
        environment=environment,
    )
    assert ended.code == 2
    assert "jobs:read" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("--nonsense",),
        ("nonsense",),
        ("dev", "--port", "8123", "--worker-port", "8123"),
        ("generate", "a video", "another", "--key", "k"),
        ("health", "--host", "a b"),
        ("health", "--host", "["),
        ("health", "--port", "0"),
        ("keys", "create", "--account", "", "--name", "shop"),
        ("ledger", "job_1"),
        ("migrate", "--to", "nonsense"),
        ("sandbox", "--port", "99999"),
    ],
    ids=" ".join,
)
async def test_wrong_usage_exits_with_2(tmp_path: Path, environment: dict[str, str], command: tuple[str, ...]) -> None:
    ended = await filmgate(*command, directory=tmp_path, environment=environment)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err
    assert "Traceback" not in ended.err


async def test_a_sandbox_whose_port_is_taken_exits_with_1(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await filmgate("sandbox", "--port", port, directory=tmp_path, environment=environment)
    assert ended.code == 1
    assert "address already in use" in ended.err


@pytest.mark.parametrize("out", [".", "/proc/gateway.json"])
async def test_openapi_says_that_its_file_cannot_be_written(tmp_path: Path, out: str) -> None:
    ended = await filmgate("openapi", "--out", out, directory=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"{out} cannot be written: ")


async def test_health_of_what_is_not_http_exits_with_1(tmp_path: Path) -> None:
    async with running_raw_server(Say(b"nonsense\r\n")) as server:
        ended = await filmgate("health", "--port", str(server.port), directory=tmp_path)
    assert ended.code == 1
    assert ended.err.startswith(f"no healthy process at 127.0.0.1:{server.port}: ")


async def test_a_missing_development_package_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['psutil'] = None; from app.cli.main import app; app(['dev'])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode() == (
        "psutil is not installed: it is one of the development packages; "
        'to install them, run in a checkout of the repository: pip install -e ".[dev]" '
        "(`make demo` makes a new .venv)\n"
    )


async def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    ended = await filmgate("--version", directory=tmp_path)
    assert (ended.code, ended.out, ended.err) == (0, f"filmgate {metadata.version('filmgate')}\n", "")


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("--size", "abc", "size"),
        ("--size", "", "size"),
        ("--seconds", "abc", "seconds"),
        ("--seconds", "0", "seconds"),
        ("--seconds", "86401", "seconds"),
        ("--prompt", "", "prompt"),
    ],
)
async def test_a_demo_of_an_impossible_video_starts_nothing(
    tmp_path: Path, option: str, value: str, field: str
) -> None:
    ended = await filmgate("demo", option, value, directory=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert field in ended.err
    assert "Starting" not in ended.err
    assert not await asyncio.to_thread(os.listdir, tmp_path)


@pytest.mark.usefixtures("database")
async def test_a_key_may_expire(tmp_path: Path, environment: dict[str, str]) -> None:
    async def keys(*arguments: str) -> Ended:
        return await filmgate("keys", *arguments, directory=tmp_path, environment=environment)

    create = ("create", "--account", "acme", "--name", "shop", "--expires")
    created = await keys(*create, "2099-01-31T12:00:00+01:00")
    assert created.code == 0, created.err
    assert "\nexpires: 2099-01-31 11:00 UTC\n" in created.out
    assert (await keys(*create, "30d")).code == 0
    states = [line.split("\t")[3] for line in (await keys("list")).out.splitlines()]
    assert states[0] == "until 2099-01-31 11:00 UTC"
    until = datetime.strptime(states[1], "until %Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert abs(until - utc_now() - timedelta(days=30)) < timedelta(days=1)


async def test_an_expiry_that_is_past_or_not_a_time_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    create = ("keys", "create", "--account", "acme", "--name", "shop", "--expires")
    for expires in (
        "2020-01-31T12:00:00Z",
        "0d",
        "2099-01-31T12:00:00",
        "2099-01-31",
        "9999-12-31T23:59:59-12:00",
    ):
        ended = await filmgate(*create, expires, directory=tmp_path, environment=environment)
        assert (ended.code, ended.out) == (2, "")
        assert "Invalid value for '--expires'" in ended.err


async def test_generate_needs_a_key(tmp_path: Path) -> None:
    ended = await filmgate("generate", "a video", directory=tmp_path)
    assert ended.code == 2
    assert "FILMGATE_API_KEY" in ended.err


async def test_generate_wants_a_prompt_or_a_job(tmp_path: Path) -> None:
    for arguments in ([], ["a video", "--resume", "job_x"]):
        ended = await filmgate("generate", "--key", "fgk_x", *arguments, directory=tmp_path)
        assert ended.code == 2
        assert "--resume" in ended.err


async def test_generate_says_that_the_gateway_is_away(tmp_path: Path, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    ended = await filmgate("generate", "a video", "--url", url, "--key", "fgk_x", directory=tmp_path)
    assert ended.code == 1
    assert ended.err == f"{url} cannot be reached: connection refused\n"
    assert ended.out == ""


@pytest.mark.parametrize("url", ["nonsense", "ftp://videos.example"])
async def test_generate_says_what_a_url_is(tmp_path: Path, url: str) -> None:
    ended = await filmgate("generate", "a video", "--url", url, "--key", "fgk_x", directory=tmp_path)
    assert (ended.code, ended.err) == (2, f"{url} is not a URL; a URL begins with http:// or https://\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(b"<html>", "Content-Type: text/html"), "returned text/html: it is not Filmgate; check the URL"),
        (reply(b"{}", "Content-Type: application/json"), "returned something that is not a job: it is not Filmgate"),
        (reply(b"[]", "Content-Type: application/json"), "returned something that is not a job: it is not Filmgate"),
        (reply(b"{", "Content-Type: application/json"), "returned application/json: it is not Filmgate"),
        (Say(), "cannot be reached: it closed the connection"),
    ],
)
async def test_generate_says_that_the_order_may_have_been_taken(tmp_path: Path, answer: Say, said: str) -> None:
    async with running_raw_server(answer) as server:
        ended = await filmgate("generate", "a video", "--url", server.url, "--key", "fgk_x", directory=tmp_path)
        assert (ended.code, ended.out) == (1, "")
        *_, advice, error = ended.err.splitlines()
        assert error.startswith(f"{server.url} {said}")
        keys = {heard.headers["idempotency-key"] for heard in server.heard}
        assert advice == f"  --idempotency-key {keys.pop()}"
        assert not keys


async def test_an_interrupted_order_says_how_to_check(tmp_path: Path) -> None:
    async with running_raw_server(Say(then=Then.HANG)) as server:
        process = await command_runner.start(
            "generate", "a video", "--url", server.url, "--key", "k", directory=tmp_path
        )
        [order] = await server.wait_for(1)
        process.send_signal(signal.SIGINT)
        ended = await command_runner.ended(process)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err.endswith(f"  --idempotency-key {order.headers['idempotency-key']}\n")


@pytest.mark.parametrize("out", ["/proc/video.mp4", f"{'v' * 250}.mp4"])
async def test_generate_creates_no_job_whose_video_it_could_not_save(tmp_path: Path, out: str) -> None:
    """Root may write to any directory, says its permissions: only the attempt tells that a file cannot be created."""
    async with running_raw_server(reply()) as server:
        for what in ("a video", f"--resume={JOB}"):
            ended = await filmgate(
                *("generate", what, "--out", out, "--url", server.url, "--key", "k"), directory=tmp_path
            )
            assert (ended.code, ended.out) == (1, "")
            [line] = ended.err.splitlines()
            assert re.match(r"\S+ cannot be created: .*; name another file with --out", line)
        assert not server.heard
    assert not await asyncio.to_thread(os.listdir, tmp_path)


async def test_generate_shows_a_line_for_each_phase_and_each_ten_percent(tmp_path: Path) -> None:
    def job(status: str, phase: str, progress: int) -> Say:
        fields = {"id": JOB, "status": status, "phase": phase, "progress": progress}
        assets = {"video": {"id": "ast_01h455vb4pex5vsknk084sn02q"}} if status == "succeeded" else None
        return reply(json.dumps({**fields, "assets": assets}).encode(), "Content-Type: application/json")

    rendering = [job("running", "rendering", progress) for progress in (0, 3, 9, 10, 14, 37, 38)]
    script = [job("queued", "queued", 0), *rendering, job("running", "storing", 38), job("succeeded", "succeeded", 100)]
    async with running_raw_server(*script, reply(b"a video")) as server:
        ended = await filmgate("generate", "a video", "--url", server.url, "--key", "k", directory=tmp_path)
    assert (ended.code, ended.out) == (0, f"job: {JOB}\nvideo: video.mp4\n")
    assert ended.err.splitlines() == [
        "queued (0 %)",
        "rendering (0 %)",
        "rendering (10 %)",
        "rendering (37 %)",
        "storing (38 %)",
        "succeeded (100 %)",
    ]
    assert (tmp_path / "video.mp4").read_bytes() == b"a video"


FILE = "file_01h455vb4pex5vsknk084sn02q"


def file_reply(**fields: Any) -> Say:
    shown = {"id": FILE, "kind": "image", "name": "photo.png", "size_bytes": 2_500_000, "width": 640, "height": 360}
    return json_reply({**shown, "expires_at": "2026-12-24T10:00:00Z", **fields})


def json_reply(body: Any) -> Say:
    return reply(json.dumps(body).encode(), "Content-Type: application/json")


async def test_generate_uploads_a_picture_and_names_others(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(picture("PNG"))
    refused = reply(b'{"detail": "No."}', "Content-Type: application/json", status="422 Unprocessable Content")
    async with running_raw_server(file_reply(), refused) as server:
        ended = await filmgate(
            *("generate", "a video", "--first-frame", "photo.png", "--last-frame", "https://shop.example/last.png"),
            *("--reference-image", FILE, "--adjust", "--url", server.url, "--key", "k"),
            directory=tmp_path,
        )
        upload, order = server.heard
    assert (ended.code, ended.err) == (1, "No.\n")
    assert upload.line.startswith("POST /v1/files ")
    assert picture("PNG") in upload.body
    body = json.loads(order.body)
    assert body["mode"] == "adjust"
    assert body["inputs"] == [
        {"role": "first_frame", "file_id": FILE},
        {"role": "last_frame", "url": "https://shop.example/last.png"},
        {"role": "reference_image", "file_id": FILE},
    ]


async def test_generate_orders_nothing_without_its_picture(tmp_path: Path) -> None:
    async with running_raw_server(reply()) as server:
        ended = await filmgate(
            *("generate", "a video", "--first-frame", "none.png", "--url", server.url, "--key", "k"), directory=tmp_path
        )
        assert not server.heard
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "none.png cannot be read: No such file or directory\n"


async def test_files_are_uploaded_listed_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    command = ("--key", "k")
    async with running_raw_server(file_reply()) as server:
        uploaded = await filmgate("files", "upload", "a.png", "--url", server.url, *command, directory=tmp_path)
        assert (uploaded.code, uploaded.out) == (0, f"{FILE}  a.png\n")
        one = json.loads(file_reply().data.partition(b"\r\n\r\n")[2])
        server.will_say(
            json_reply({"data": [one], "has_more": True, "next_cursor": "abc"}),
            json_reply({"data": [{**one, "kind": "audio", "width": None}], "has_more": False, "next_cursor": None}),
        )
        listed = await filmgate("files", "list", "--url", server.url, *command, directory=tmp_path)
        assert listed.out.splitlines() == [
            f"{FILE}\timage\t640x360\t2.5\t2026-12-24\tphoto.png",
            f"{FILE}\taudio\t-\t2.5\t2026-12-24\tphoto.png",
        ]
        assert server.heard[-1].line.startswith("GET /v1/files?limit=100&cursor=abc ")
        server.will_say(reply(b"", status="204 No Content"))
        deleted = await filmgate("files", "delete", FILE, "--url", server.url, *command, directory=tmp_path)
        assert (deleted.code, deleted.out) == (0, f"deleted: {FILE}\n")
    for arguments in (("delete", "x", *command), ("list",)):
        assert (await filmgate("files", *arguments, directory=tmp_path)).code == 2


async def test_generate_asks_for_nothing_but_jobs(tmp_path: Path) -> None:
    ended = await filmgate("generate", "--resume", "../../healthz", "--key", "fgk_x", directory=tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("../../healthz is not the id of a job")


async def test_openapi_check_tells_when_the_file_is_out_of_date(tmp_path: Path) -> None:
    missing = await filmgate("openapi", "--check", directory=tmp_path)
    assert (missing.code, missing.err) == (1, "openapi/gateway.json is out of date; run: filmgate openapi\n")
    assert (await filmgate("openapi", directory=tmp_path)).code == 0
    file = tmp_path / "openapi" / "gateway.json"
    alike = ("openapi", "--check", "--released", str(file))
    assert (await filmgate(*alike, directory=tmp_path)).code == 0
    document = json.loads(file.read_text())
    assert document["paths"]["/v1/jobs"]["post"]["operationId"] == "create_job"
    file.write_text(json.dumps(document | {"paths": {}}))
    assert (await filmgate(*alike, directory=tmp_path)).code == 1


async def test_openapi_check_names_what_breaks_clients_of_the_last_release(tmp_path: Path) -> None:
    assert (await filmgate("openapi", directory=tmp_path)).code == 0
    released = tmp_path / "openapi" / "released.json"
    unreadable = await filmgate("openapi", "--check", directory=tmp_path)
    assert unreadable.err.startswith("openapi/released.json does not exist; name the last release's document")
    document = json.loads((tmp_path / "openapi" / "gateway.json").read_text())
    document["paths"]["/v1/videos"] = document["paths"]["/v1/models"]
    released.write_text(json.dumps(document))
    version = document["info"]["version"]
    broken = await filmgate("openapi", "--check", directory=tmp_path)
    said = f"version {version} breaks clients of {version} without saying so:\n  GET /v1/videos: is gone\n"
    assert (broken.code, broken.err) == (1, said)
    document["info"]["version"] = "0.0.1"
    released.write_text(json.dumps(document))
    assert (await filmgate("openapi", "--check", directory=tmp_path)).code == 0
    released.write_text("[]")
    assert "is not an OpenAPI document" in (await filmgate("openapi", "--check", directory=tmp_path)).err
