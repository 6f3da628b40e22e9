"""``filmgate dev`` and ``demo``: everything comes up, does its work, and goes away whole."""

import asyncio
import re
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import av
import psutil
import pytest
from sqlalchemy import text

from app.client import Client
from app.embedded.processes import PortUnusable
from app.embedded.servers import Postgres
from app.embedded.stack import PartEnded, Stack
from app.embedded.workspace import Ports, Workspace
from app.infra import migrate
from tests.support import command_runner
from tests.support.command_runner import filmgate

pytestmark = [pytest.mark.servers, pytest.mark.xdist_group("stack")]

GONE_TIMEOUT = 120


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A running stack, started by somebody whose shell and directory have settings of another gateway."""
    directory = tmp_path_factory.mktemp("stack")
    (directory / "filmgate.toml").write_text("mode = 'no such mode'")
    stack = Stack(Workspace(directory / ".filmgate"), Ports.free())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("FILMGATE_DATABASE_URL", "postgresql://production.example/videos")
        patch.setenv("FILMGATE_WORKER_PORT", "1")
        async with stack.running(lambda _text: None):
            patch.undo()
            yield stack


@pytest.fixture
async def environment(stack: Stack) -> dict[str, str]:
    """What a client of the stack has in its environment."""
    return {"FILMGATE_URL": stack.url, "FILMGATE_API_KEY": await stack.api_key()}


def family(pid: int) -> list[psutil.Process]:
    processes: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return processes


async def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=GONE_TIMEOUT)
    assert not alive


def options(ports: Ports) -> list[str]:
    return [
        *("--port", str(ports.api)),
        *("--worker-port", str(ports.worker)),
        *("--sandbox-port", str(ports.sandbox)),
        *("--postgres-port", str(ports.postgres)),
        *("--valkey-port", str(ports.valkey)),
    ]


async def test_demo_ends_with_a_verified_webhook_and_a_playable_video(tmp_path: Path) -> None:
    """Takes about 7 s of CPU: the whole stack as processes, and a real render."""
    ended = await filmgate("demo", "--seconds", "1", "--size", "640x360", directory=tmp_path)
    assert ended.code == 0, ended.err
    job, webhook, video = ended.out.splitlines()
    job_id = job.removeprefix("job: ")
    assert re.fullmatch(r"job_[0-9a-z]{26}", job_id)
    assert re.fullmatch(r"webhook: verified job\.succeeded \(evt_[0-9a-z]{26}\)", webhook)
    file = Path(".filmgate") / "demo" / f"{job_id}.mp4"
    size = (tmp_path / file).stat().st_size
    assert video == f"video: {file} (h264, 640x360, 1.0 s, {size} bytes)"
    with av.open(str(tmp_path / file)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 20
    running = [str(process.info["cwd"]) for process in psutil.process_iter(["cwd"])]
    assert not [directory for directory in running if directory.startswith(str(tmp_path))]


async def test_a_demo_that_is_told_to_stop_leaves_nothing_running(tmp_path: Path) -> None:
    demo = await command_runner.start("demo", "--prompt", "[never] a video", directory=tmp_path)
    await command_runner.line_with(demo, "rendering", progress=True)
    started = family(demo.pid)
    demo.send_signal(signal.SIGTERM)
    ended = await command_runner.ended(demo)
    assert (ended.code, ended.out) == (143, "")
    assert "Traceback" not in ended.err
    await assert_gone(started)


async def test_a_killed_demo_leaves_nothing_running(tmp_path: Path) -> None:
    demo = await command_runner.start("demo", directory=tmp_path)
    await command_runner.line_with(demo, "Starting API and worker", progress=True)
    started = family(demo.pid)
    demo.kill()
    await demo.wait()
    await assert_gone(started)


async def test_dev_shows_how_to_order_keeps_its_key_and_stops_whole(tmp_path: Path) -> None:
    """Takes about 12 s of CPU: two starts of the whole stack. Ctrl-C ends the first, the death of a part the second."""
    ports = Ports.free()
    keys = set()
    for interrupted in (True, False):
        dev = await command_runner.start("dev", *options(ports), directory=tmp_path)
        key = (await command_runner.line_with(dev, "  key ")).split()[1]
        await command_runner.line_with(dev, f"curl -s http://127.0.0.1:{ports.api}/v1/jobs/$JOB")
        doctor = await command_runner.line_with(dev, " filmgate doctor")
        keys.add(key)
        started = family(dev.pid)
        second = await filmgate("dev", *options(Ports.free()), directory=tmp_path)
        assert (second.code, "is already running in" in second.err, second.out) == (1, True, "")
        if interrupted:
            found = await command_runner.shell(doctor, directory=tmp_path)
            assert (found.code, found.out, found.err) == (0, "nothing found\n", "")
            dev.send_signal(signal.SIGINT)
            ended = await command_runner.ended(dev)
            assert ended.code == 130
            assert [line for line in ended.err.splitlines() if not line.endswith(" …")] == ["Everything has stopped."]
        else:
            (worker,) = [process for process in started if process.cmdline()[-1:] == ["worker"]]
            worker.kill()
            ended = await command_runner.ended(dev)
            assert ended.code == 1
            assert "worker ended with exit code -9" in ended.err
        await assert_gone(started)
    assert len(keys) == 1
    for secret in ("key", "secret", "filmgate.toml"):
        assert (tmp_path / ".filmgate" / secret).stat().st_mode & 0o777 == 0o600


async def test_dev_names_the_taken_ports_and_a_command_line_that_works(tmp_path: Path) -> None:
    ports = Ports.free()
    with socket.socket() as first, socket.socket() as second:
        for listener, port in ((first, ports.api), (second, ports.sandbox)):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        ended = await filmgate("dev", *options(ports), directory=tmp_path)
        *taken, advice = ended.err.splitlines()
        assert (ended.code, ended.out) == (1, "")
        assert taken == [f"port {port} on 127.0.0.1 is in use" for port in (ports.api, ports.sandbox)]
        command, *advised = advice.removeprefix("Choose others: ").split(" --")
        assert command == "filmgate dev"
        words = dict(option.split(" ") for option in advised)
        assert words["worker-port"] == str(ports.worker)
        parts = ("port", "worker-port", "sandbox-port", "postgres-port", "valkey-port")
        Ports(*(int(words[part]) for part in parts)).require_free()


async def test_a_port_can_be_given_once() -> None:
    port = Ports.free().api
    with pytest.raises(PortUnusable, match=rf"port {port} is given twice\nChoose others: .* --worker-port \d+ "):
        replace(Ports.free(), api=port, worker=port).require_free()


async def test_no_port_is_out_of_range(tmp_path: Path) -> None:
    ended = await filmgate("dev", "--valkey-port", "99999", directory=tmp_path)
    assert ended.code == 2
    assert "65535" in ended.err


async def test_dev_refuses_a_database_of_another_version(tmp_path: Path) -> None:
    server = Postgres(tmp_path / ".filmgate" / "postgres", durable=False)
    await server.start()
    await migrate.upgrade(server.url)
    async with migrate.connect(server.url) as conn:
        await conn.execute(text("alter table jobs drop column progress"))
        await conn.commit()
    await server.stop()
    ended = await filmgate("dev", *options(Ports.free()), directory=tmp_path)
    assert ended.code == 1
    assert "\nthe database was made by another version of filmgate" in ended.err
    assert f"Remove {server.home} " in ended.err


async def test_settings_of_another_gateway_do_not_leak_in(stack: Stack) -> None:
    assert await stack.api_key()
    assert (stack.workspace.root.parent / "filmgate.toml").read_text() == "mode = 'no such mode'"


async def test_generate_saves_the_video(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await filmgate("generate", "a red kite", "--seconds", "1", directory=tmp_path, environment=environment)
    assert ended.code == 0, ended.err
    job, video = ended.out.splitlines()
    assert job.startswith("job: job_")
    assert video == "video: video.mp4"
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (1280, 720)


async def test_generate_can_fetch_the_video_of_an_earlier_job(environment: dict[str, str], tmp_path: Path) -> None:
    order = ("a red kite", "--seconds", "1", "--size", "640x360")
    first = await filmgate("generate", *order, directory=tmp_path, environment=environment)
    assert first.code == 0, first.err
    job_id = first.out.splitlines()[0].removeprefix("job: ")
    again = await filmgate(
        "generate", "--resume", job_id, "--out", "again.mp4", directory=tmp_path, environment=environment
    )
    assert again.code == 0, again.err
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "video.mp4").read_bytes()
    assert not (tmp_path / ".again.mp4.part").exists()


async def test_generate_names_the_field_that_was_refused(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await filmgate(
        *("generate", "a red kite", "--model", "sandbox/short", "--seconds", "7"),
        directory=tmp_path,
        environment=environment,
    )
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("seconds: ")


async def test_generate_names_every_field_that_was_refused(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await filmgate(
        *("generate", "a red kite", "--model", "sandbox/short", "--seconds", "7", "--size", "640x480"),
        directory=tmp_path,
        environment=environment,
    )
    assert ended.code == 1
    said, *fields = ended.err.splitlines()
    assert not said.startswith(" ")
    assert sorted(line.split(":")[0] for line in fields) == ["  seconds", "  size"]


async def test_generate_says_why_a_job_failed(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await filmgate("generate", "[fail:moderation] a kite", directory=tmp_path, environment=environment)
    assert ended.code == 1
    assert re.search(r"^job job_\w+ failed: .* \(prompt_refused\)\n\Z", ended.err, re.MULTILINE)
    assert "--resume" not in ended.err
    assert not (tmp_path / "video.mp4").exists()


async def test_an_interrupted_generate_says_how_to_go_on(environment: dict[str, str], tmp_path: Path) -> None:
    process = await command_runner.start(
        "generate", "[slow:30] a kite", "--seconds", "1", directory=tmp_path, environment=environment
    )
    await command_runner.line_with(process, "rendering", progress=True)
    process.send_signal(signal.SIGINT)
    ended = await command_runner.ended(process)
    assert ended.code == 130
    assert re.fullmatch(r"job: job_\w+\n", ended.out)
    url = environment["FILMGATE_URL"]
    again = re.search(rf"filmgate generate --resume (job_\w+) --out video.mp4 --url {url}\n", ended.err)
    assert again
    assert f'curl -X POST {url}/v1/jobs/{again[1]}/cancel -H "Authorization: Bearer $FILMGATE_API_KEY"' in ended.err


async def test_the_same_idempotency_key_gives_the_same_job(environment: dict[str, str], tmp_path: Path) -> None:
    order = ("generate", "a red kite", "--seconds", "1", "--size", "640x360", "--idempotency-key", str(uuid.uuid4()))
    first, again = [await filmgate(*order, directory=tmp_path, environment=environment) for _ in range(2)]
    assert (first.code, again.code) == (0, 0)
    assert first.out.splitlines()[0] == again.out.splitlines()[0]


async def test_a_video_that_cannot_be_saved_is_not_ordered(environment: dict[str, str], tmp_path: Path) -> None:
    async with Client(environment["FILMGATE_URL"], environment["FILMGATE_API_KEY"]) as client:
        job = await client.create_job({"model": "default", "prompt": "[never] a kite"}, str(uuid.uuid4()))
        for out in ("nowhere/video.mp4", "."):
            for command in (("a video",), ("--resume", job.id)):
                ended = await filmgate(
                    *("generate", *command, "--out", out), directory=tmp_path, environment=environment
                )
                assert ended.code == 1
                assert "name " in ended.err
                assert ended.out == ""


async def test_a_key_may_come_with_the_end_of_its_line(environment: dict[str, str], tmp_path: Path) -> None:
    with_newline = {**environment, "FILMGATE_API_KEY": environment["FILMGATE_API_KEY"] + "\n"}
    ended = await filmgate(
        *("generate", "a red kite", "--seconds", "1", "--size", "640x360"), directory=tmp_path, environment=with_newline
    )
    assert ended.code == 0, ended.err


async def test_a_dead_key_is_replaced(stack: Stack) -> None:
    first = await stack.api_key()
    stack.workspace.keep("key", first[:-1] + ("0" if first[-1] != "0" else "1"))
    second = await stack.api_key()
    assert second != first
    assert stack.workspace.api_key() == second
    async with Client(stack.url, second) as client:
        assert await client.accepts_key()


async def test_following_a_job_survives_a_restart_of_the_api(stack: Stack) -> None:
    order = {"model": "default", "prompt": "[slow:3] a kite", "seconds": 1, "size": "640x360"}
    async with Client(stack.url, await stack.api_key()) as client:
        job = await client.create_job(order, str(uuid.uuid4()))
        following = aiter(client.follow(job))
        while (await anext(following)).phase != "rendering":
            pass
        await stack.api.stop()
        _, seen = await asyncio.gather(stack.api.start(), anext(following))
        async for job in following:
            seen = job
    assert seen.status == "succeeded"


async def test_work_is_given_up_when_a_part_ends(stack: Stack) -> None:
    await stack.sandbox.process.kill()
    with pytest.raises(PartEnded, match="sandbox ended with exit code -9"):
        await stack.guard(asyncio.Event().wait())
    await stack.sandbox.start()
