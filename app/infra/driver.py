"""Opens connections to Postgres with asyncpg: one host after the other, with TCP keep-alive."""

import socket
from collections.abc import Mapping
from typing import Any

import asyncpg

from app.database_settings import DatabaseSettings, DatabaseUrl

#: Seconds without traffic until the kernel probes the peer, and between two probes. A
#: NAT gateway or balancer keeps a connection that is used so often, and a dead one ends after about a minute.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class KeptAlive(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose socket has TCP keep-alive. asyncpg offers no other way to reach the socket."""

    def __init__(self, protocol: Any, transport: Any, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # they are not the same on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def connect(
    url: DatabaseUrl, *, timeout: float, server_settings: Mapping[str, str], **options: Any
) -> asyncpg.Connection:
    """A connection to the first host that accepts one: each has ``timeout`` seconds, as libpq gives it.

    asyncpg's own search has one time limit for all hosts: one that is frozen would hide the others.
    """
    options |= {
        "timeout": timeout,
        "server_settings": {**server_settings, **url.server_settings},
        "connection_class": KeptAlive,
    }
    if not url.hosts:
        return await asyncpg.connect(url.dsn, **options)
    *others, last = url.hosts
    for host, port in others:
        try:
            return await asyncpg.connect(url.dsn, host=host, port=port, **options)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched):
            continue
    return await asyncpg.connect(url.dsn, host=last[0], port=last[1], **options)


def arguments(
    settings: DatabaseSettings, *, application: str, session: Mapping[str, str], command_timeout: float | None
) -> dict[str, Any]:
    """SQLAlchemy's ``connect_args``. ``session`` are settings of the server; behind a pooler they are left out.

    A pooler refuses most settings at the start of a connection, and one made later would stay in a session that other
    clients use. A statement prepared in one transaction is unknown in the next, or another client's: there, statements
    have no name and are prepared each time.
    """
    common = {
        "async_creator_fn": connect,
        "url": DatabaseUrl.read(settings.url.get_secret_value()),
        "timeout": settings.connect_seconds,
        "command_timeout": command_timeout,
        "server_settings": {"application_name": application, **({} if settings.pooled else session)},
    }
    if not settings.pooled:
        return common
    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str, "statement_cache_size": 0}
    return common | unnamed
