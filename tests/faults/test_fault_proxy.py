"""The proxy does what its modes say: a suite that believes in a fault that never happened proves nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import pytest

from app.embedded.servers import Postgres
from tests.support.fault_proxy import INSTEAD, CommitCutter, FaultProxy, Mode, Side
from tests.support.raw_server import RawServer, reply, running_raw_server

ANSWER = reply(b'{"id": "video_1"}')
REQUEST = b"POST /videos HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Between:
    """A proxy, and the server behind it."""

    proxy: FaultProxy
    server: RawServer

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[asyncio.StreamReader]:
        """Send a request; what comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            writer.write(REQUEST)
            yield reader
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
async def between() -> AsyncIterator[Between]:
    async with running_raw_server(ANSWER) as server, FaultProxy(server.port) as proxy:
        yield Between(proxy, server)


async def test_nothing_happens_until_it_is_told(between: Between) -> None:
    async with between.asking() as reader:
        assert await reader.readexactly(len(ANSWER.data)) == ANSWER.data
    assert not between.proxy.struck.is_set()


async def test_refused_is_refused_and_over_when_it_is_over(between: Between) -> None:
    await between.proxy.switch(Mode.REFUSE)
    with pytest.raises(ConnectionRefusedError):
        async with between.asking():
            pass
    await between.proxy.switch(Mode.PASS)
    async with between.asking() as reader:
        assert await reader.readexactly(len(ANSWER.data)) == ANSWER.data
    assert len(between.server.heard) == 1


async def test_a_black_hole_shows_nothing(between: Between) -> None:
    await between.proxy.switch(Mode.BLACK_HOLE)
    async with between.asking() as reader:
        await between.proxy.struck.wait()
        between.proxy.sever()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert between.server.heard == []


async def test_a_lost_reply_was_heard(between: Between) -> None:
    await between.proxy.switch(Mode.LOSE_REPLY)
    async with between.asking() as reader:
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert len(between.server.heard) == 1


async def test_a_cut_reply_breaks_off(between: Between) -> None:
    await between.proxy.switch(Mode.CUT)
    async with between.asking() as reader:
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(ANSWER.data))
    assert len(between.server.heard) == 1


async def test_a_truncated_reply_ends_as_if_it_were_whole(between: Between) -> None:
    await between.proxy.switch(Mode.TRUNCATE)
    async with between.asking() as reader:
        assert await reader.read() == ANSWER.data[: len(ANSWER.data) // 2]
    assert len(between.server.heard) == 1


async def test_a_dripping_reply_comes_byte_by_byte(between: Between) -> None:
    await between.proxy.switch(Mode.DRIP)
    async with between.asking() as reader:
        assert await reader.read(100) == ANSWER.data[:1]
        assert await reader.read(100) == ANSWER.data[1:2]


@pytest.mark.parametrize("mode", INSTEAD)
async def test_something_else_comes_back_for_what_was_heard(between: Between, mode: Mode) -> None:
    await between.proxy.switch(mode)
    async with between.asking() as reader:
        assert await reader.read() == INSTEAD[mode]
    assert len(between.server.heard) == 1


async def test_a_late_request_arrives_when_no_caller_waits(between: Between) -> None:
    await between.proxy.switch(Mode.LATE)
    async with between.asking():
        await between.proxy.struck.wait()
    assert between.server.heard == []
    await between.server.wait_for(1)


@pytest.mark.parametrize(("side", "kept"), [(Side.BEFORE, []), (Side.AFTER, [2])])
async def test_a_connection_is_cut_exactly_at_its_commit(
    postgres: Postgres, postgres_url: str, side: Side, kept: list[int]
) -> None:
    direct = await asyncpg.connect(postgres_url)
    try:
        await direct.execute("create table fault_proxy_test (number int)")
        async with CommitCutter(postgres.port) as proxy:
            cut = proxy.cut(side, passing=2)
            connection = await asyncpg.connect(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/"))
            async with connection.transaction():
                await connection.execute("insert into fault_proxy_test values (1)")
            assert not cut.is_set()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                async with connection.transaction():
                    await connection.execute("insert into fault_proxy_test values (2)")
            assert cut.is_set()
        rows = await direct.fetch("select number from fault_proxy_test order by number")
        assert [row["number"] for row in rows] == [1, *kept]
    finally:
        await direct.execute("drop table fault_proxy_test")
        await direct.close()
