"""PgBouncer from ``.pooler``, before a Postgres: three connections to the server for all clients."""

import asyncio
import os
import pwd
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.embedded.processes import CURRENT_USER, LOCALHOST, Identity, Process, free_port
from app.embedded.servers import Postgres

ENVIRONMENT = Path(__file__).parents[2] / ".pooler"
#: Fewer than clients, and none of their divisors, so that sessions change their owner all the time.
SERVER_CONNECTIONS = 3
SETTINGS = """
[databases]
* = host={host} port={postgres_port} user=filmgate password={password}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {connections}
max_client_conn = 200
server_round_robin = 1
ignore_startup_parameters = {ignored}
"""


@asynccontextmanager
async def running_pgbouncer(postgres: Postgres, *, mode: str = "transaction", ignored: str = "") -> AsyncIterator[str]:
    """The URL of the database behind a PgBouncer. It does not run as root."""
    password = postgres.url.partition("://filmgate:")[2].partition("@")[0]
    root = os.geteuid() == 0
    user = pwd.getpwnam("nobody").pw_uid if root else None
    with tempfile.TemporaryDirectory(prefix="filmgate-pooler-") as directory:
        port, settings = free_port(), Path(directory) / "pgbouncer.ini"
        settings.write_text(
            SETTINGS.format(
                host=LOCALHOST,
                postgres_port=postgres.port,
                password=password,
                port=port,
                mode=mode,
                connections=SERVER_CONNECTIONS,
                ignored=ignored,
            )
        )
        for path in (Path(directory), settings):
            os.chown(path, user if user is not None else -1, -1)
        libraries = next((ENVIRONMENT / "usr/lib").glob("*-linux-gnu"))
        process = await Process.start(
            "pgbouncer",
            [ENVIRONMENT / "usr/sbin/pgbouncer", settings],
            log=Path(directory) / "log",
            environment={"LD_LIBRARY_PATH": str(libraries)},
            identity=Identity(user, reach=True) if root else CURRENT_USER,
        )
        try:
            await process.ready(lambda: _listens(port), 60)
            yield f"postgresql://filmgate@{LOCALHOST}:{port}/filmgate"
        finally:
            await process.kill()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOCALHOST, port)
    except OSError:
        return False
    writer.close()
    return True
