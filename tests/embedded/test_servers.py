"""Postgres and Valkey from wheels survive what happens to a developer's machine."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from app.embedded.processes import Identity, PortUnusable, Process, StartFailed
from app.embedded.servers import Postgres, Server, Valkey

pytestmark = pytest.mark.servers

GONE_TIMEOUT = 120

STARTS_BOTH_AND_WAITS = """
import asyncio, sys
from pathlib import Path
from app.embedded.servers import Postgres, Valkey

async def main():
    servers = [kind(Path(sys.argv[1]) / kind.name) for kind in (Postgres, Valkey)]
    for server in servers:
        await server.start()
        print(server.process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(params=[Postgres, Valkey])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    kind: type[Server] = request.param
    return kind(tmp_path / kind.name)


async def write(server: Server) -> None:
    if isinstance(server, Postgres):
        connection = await asyncpg.connect(server.url)
        await connection.execute("create table kept as select 'video' as word")
        await connection.close()
    else:
        async with Redis.from_url(server.url) as redis:
            await redis.set("kept", "video")


async def read(server: Server) -> str:
    if isinstance(server, Postgres):
        connection = await asyncpg.connect(server.url)
        word: str = await connection.fetchval("select word from kept")
        await connection.close()
        return word
    async with Redis.from_url(server.url, decode_responses=True) as redis:
        return str(await redis.get("kept"))


async def test_data_survives_a_stop(server: Server) -> None:
    await server.start()
    await write(server)
    await server.stop()
    await server.stop()
    await server.start()
    try:
        assert await read(server) == "video"
    finally:
        await server.stop()


async def test_postgres_data_survives_a_kill(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", durable=False)
    await server.start()
    await write(server)
    await server.kill()
    await server.start()
    assert await read(server) == "video"
    await server.stop()


async def test_a_leftover_of_a_killed_run_is_stopped_first(server: Server) -> None:
    await server.start()
    leftover = psutil.Process(server.process.pid)
    again = type(server)(server.home, port=server.port)
    await again.start()
    try:
        assert not leftover.is_running() or leftover.status() == psutil.STATUS_ZOMBIE
    finally:
        await again.stop()


async def test_a_stale_pid_file_that_names_another_program_is_no_obstacle(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", durable=False)
    await server.start()
    pid_file = server.home / "data" / "postmaster.pid"
    words = pid_file.read_text()
    owner = Identity(user=server.home.stat().st_uid) if os.geteuid() == 0 else Identity()
    await server.kill()
    bystander = await Process.start("sleep", [shutil.which("sleep") or "", "60"], log=tmp_path / "log", identity=owner)
    pid_file.write_text(words.replace(words.split("\n")[0], str(bystander.pid), 1))
    await server.start()
    await server.stop()
    assert bystander.running
    await bystander.kill()


async def test_a_killed_parent_takes_its_servers_along(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTS_BOTH_AND_WAITS, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    servers = [psutil.Process(int(await parent.stdout.readline())) for _ in range(2)]
    parent.kill()
    await parent.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, servers, timeout=GONE_TIMEOUT)
    assert not alive


async def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(postgres: Postgres, valkey: Valkey) -> None:
    assert os.getsid(0) not in {os.getsid(postgres.process.pid), os.getsid(valkey.process.pid)}


async def test_servers_listen_on_loopback_only(postgres: Postgres, valkey: Valkey) -> None:
    for server in (postgres, valkey):
        connections = psutil.Process(server.process.pid).net_connections()
        listening = {item.laddr for item in connections if item.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", server.port)}


async def test_postgres_is_never_root(postgres: Postgres) -> None:
    process = psutil.Process(postgres.process.pid)
    assert 0 not in process.uids()
    assert 0 not in process.gids()


async def test_postgres_asks_for_its_password(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="guess")
    assert (postgres.home / "password").stat().st_mode & 0o777 == 0o600
    assert postgres.home.stat().st_mode & 0o777 == 0o700


async def test_postgres_works_below_a_directory_that_it_may_not_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Postgres(closed / "postgres", durable=False)
    await server.start()
    await server.stop()
    await server.start()
    await server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_a_half_made_cluster_is_never_taken_up(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", durable=False)
    half_made = tmp_path / "postgres.new" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    await server.start()
    await server.stop()
    assert not half_made.exists()


async def test_a_taken_port_is_named(server: Server) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", server.port))
        listener.listen()
        with pytest.raises(PortUnusable, match=f"port {server.port} on 127.0.0.1 is in use"):
            await server.start()


async def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", durable=False)
    await server.start()
    await server.stop()
    (server.home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartFailed, match=r"(?s)postgres ended with exit code 1\..*postgres\.log.*version 9"):
        await server.start()
    assert not server.process.running


async def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    log = tmp_path / "log"
    child = await Process.start("deaf", [sys.executable, "-c", code], log=log)

    async def is_deaf() -> bool:
        return log.read_text() == "deaf\n"

    await child.ready(is_deaf, timeout=GONE_TIMEOUT)
    await child.stop(patience=0.1)
    assert await child.wait() == -signal.SIGKILL


async def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    child = await Process.start("idle", [sys.executable, "-c", "input()"], log=tmp_path / "log")

    async def never() -> bool:
        return False

    with pytest.raises(StartFailed, match=r"idle (ended with exit code 1|was not ready within)"):
        await child.ready(never, timeout=GONE_TIMEOUT)
    await child.stop()
