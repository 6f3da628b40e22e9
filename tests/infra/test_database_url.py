"""URLs as hosters give them: libpq's parameters are understood, ignored with a reason, or refused by name."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.database_settings import ENCODE, DatabaseSettings
from app.embedded.servers import Postgres
from app.infra import migrate
from app.infra.db import Database, is_outage
from tests.support.command_runner import filmgate
from tests.support.database import running_postgres

SHOWN = "SELECT current_setting(:name)"


def opened(url: str, **settings: Any) -> Database:
    return Database.open(DatabaseSettings.model_validate({"url": url, **settings}), application="tests of URLs")


async def shown(url: str, name: str) -> str:
    """A setting of the session that this URL leads to."""
    database = opened(url)
    try:
        async with database.read() as conn:
            return str(await conn.scalar(text(SHOWN), {"name": name}))
    finally:
        await database.close()


async def execute(url: str, statement: str) -> None:
    database = opened(url)
    async with database.single() as conn:
        await conn.execute(text(statement))
    await database.close()


def refused(url: str) -> str:
    with pytest.raises(ValidationError) as caught:
        DatabaseSettings.model_validate({"url": url})
    (error,) = caught.value.errors()
    return error["msg"].removeprefix("Value error, ")


IGNORED = (
    "channel_binding=require&gssencmode=prefer&sslcompression=0&sslsni=1&keepalives=1&keepalives_idle=30"
    "&tcp_user_timeout=1000&client_encoding=utf8&fallback_application_name=x&load_balance_hosts=disable"
)


async def test_parameters_of_libpq_reach_the_session(postgres_url: str) -> None:
    url = (
        f"{postgres_url}?sslmode=prefer&application_name=my%20product&connect_timeout=10"
        f"&target_session_attrs=read-write&options=-c%20search_path%3Dother&{IGNORED}"
    )
    assert await shown(url, "search_path") == "other"
    assert await shown(url, "application_name") == "my product"
    assert await shown(postgres_url, "application_name") == "tests of URLs"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_every_usual_scheme_connects(postgres_url: str, scheme: str) -> None:
    assert await shown(re.sub("^[a-z]+", scheme, postgres_url), "server_encoding") == "UTF8"


@pytest.mark.parametrize("parameter", ["sslmode=require", "ssl=require", "ssl=true"])
async def test_tls_that_is_required_is_not_left_out(postgres_url: str, parameter: str) -> None:
    database = opened(f"{postgres_url}?{parameter}")
    with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
        async with database.read():
            pass
    await database.close()


async def test_migrations_use_the_same_url(postgres: Postgres) -> None:
    url = await postgres.create_database("with_parameters")
    await migrate.upgrade(f"{url}?sslmode=prefer&application_name=x&connect_timeout=10&channel_binding=prefer")
    assert await migrate.check(f"{url}?sslmode=prefer&target_session_attrs=primary") == []


async def test_the_host_that_accepts_connections_is_used(postgres: Postgres, unused_tcp_port: int) -> None:
    two = postgres.url.replace("@", f"@127.0.0.1:{unused_tcp_port},")
    assert await shown(two, "port") == str(postgres.port)


async def test_a_frozen_host_does_not_hide_the_next(postgres: Postgres) -> None:
    """The time to connect is a host's, as libpq has it: asyncpg's own limit is that of all hosts together."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        two = postgres.url.replace("@", f"@127.0.0.1:{frozen.getsockname()[1]},")
        assert await shown(f"{two}?connect_timeout=1", "port") == str(postgres.port)


@pytest.mark.servers
async def test_of_several_hosts_the_writable_one_is_used(postgres: Postgres) -> None:
    async with running_postgres() as standby:
        await execute(postgres.url, "CREATE ROLE either LOGIN PASSWORD 'hunter2'")
        await execute(standby.url, "CREATE ROLE either LOGIN PASSWORD 'hunter2'")
        await execute(standby.url, "ALTER ROLE either SET default_transaction_read_only = on")
        url = f"postgresql://either:hunter2@127.0.0.1:{standby.port},127.0.0.1:{postgres.port}/filmgate"
        assert await shown(url, "port") == str(postgres.port)
        assert await shown(f"{url}?target_session_attrs=any", "port") == str(standby.port)
        nothing = opened(
            f"postgresql://either:hunter2@127.0.0.1:{standby.port}/filmgate?target_session_attrs=read-write"
        )
        with pytest.raises(DBAPIError) as caught:
            async with nothing.read():
                pass
        assert is_outage(caught.value)
        await nothing.close()
        await execute(postgres.url, "DROP ROLE either")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("aplication_name=x", "the parameter aplication_name is unknown; remove it, or check its spelling."),
        (
            "pgbouncer=true",
            'the parameter pgbouncer is not supported; remove it and set database.pooler = "transaction"',
        ),
        ("schema=x", "the parameter schema is not supported; use options=-c%20search_path%3D<schema>"),
        ("hostaddr=10.0.0.1", "the parameter hostaddr is not supported; put the address in place of the host"),
        ("sslmode=on", "the parameter sslmode must be one of: disable, allow, prefer, require, verify-ca, verify-full"),
        ("target_session_attrs=standby", "the parameter target_session_attrs must be one of: any, primary, read-write"),
        ("gssencmode=require", "the parameter gssencmode must be one of: disable, prefer"),
        ("connect_timeout=soon", "the parameter connect_timeout must be a number of seconds"),
        ("sslrootcert=/no/where.pem", "the parameter sslrootcert names a file that does not exist or cannot be read"),
        ("sslrootcert=system", "sslrootcert=system is not supported; name the system's file"),
        ("sslmode=require&sslmode=disable", "a parameter is in it twice; remove one"),
        ("sslmode", "must be a URL such as postgresql://user:password@host:5432/database"),
    ],
)
def test_what_cannot_be_followed_is_named(parameter: str, message: str) -> None:
    assert refused(f"postgresql://u:p@db/x?{parameter}").startswith(message)


PASSWORDS = ("p@ss/word#1?", "a@b", "a/b", "a?b", "a#b", "100%sure", "a[b", "x?secret=1", "a@b?secret=1&b=2")


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_that_is_not_encoded_is_told_and_not_shown(password: str) -> None:
    for place in ("db:5432", "h1:5432,h2:5432"):
        assert refused(f"postgresql://u:{password}@{place}/x?sslmode=require") == ENCODE


@pytest.mark.parametrize("place", ["db:x", "db:0", "db:65536", "[::1", "h1:1,,h2", "h1,h2/x?port=1,2,3"])
def test_a_host_that_is_none_is_refused(place: str) -> None:
    assert refused(f"postgresql://u:p@{place}/x").startswith(("must be a URL such as", "a password"))


@pytest.mark.servers
async def test_the_command_line_ends_with_2_and_shows_no_password(tmp_path: Path) -> None:
    environment = {
        "FILMGATE_DATABASE_URL": "postgresql://u:p@ss/word#1?@127.0.0.1:5432/x",
        "FILMGATE_REDIS_URL": "redis://127.0.0.1:1",
        "FILMGATE_SECRET_KEY": "a-secret-of-more-than-32-characters-for-tests",
    }
    for command in ("api", "worker", "migrate", "doctor"):
        ended = await filmgate(command, directory=tmp_path, environment=environment)
        assert (ended.code, ended.err) == (2, f"database.url: {ENCODE}\n")


async def test_the_socket_has_keep_alive(postgres_url: str) -> None:
    database = opened(postgres_url)
    async with database.read() as conn:
        raw = await conn.get_raw_connection()
        sock = raw.driver_connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    await database.close()
