"""The load generator against a real server: it counts what was answered, and one failed request spoils a window."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.child_processes import Generator, WindowInvalid
from benchmarks.http_server import Connection, Handler, Request, reply
from benchmarks.load_generator import MARK, Plan, prepared, run

WELL = reply(200, b'{"ok":true}')


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(answer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_every_response_is_counted_once() -> None:
    asked: list[Request] = []

    def answer(one: Request) -> bytes:
        asked.append(one)
        return WELL

    async with serving(answer) as port:
        count = await run(Plan(port, ["/a", "/b"], callers=2, requests=10))
    assert (count.requests, count.total, count.failure) == (10, 10, None)
    assert sorted(one.path for one in asked) == ["/a"] * 5 + ["/b"] * 5
    assert count.bytes == 10 * len(WELL)


async def test_one_request_that_fails_spoils_the_window() -> None:
    answers = iter([WELL, WELL, reply(503, b"busy")])
    async with serving(lambda _: next(answers, WELL)) as port, Generator.running() as generator:
        with pytest.raises(WindowInvalid, match="HTTP 503"):
            await generator.run(Plan(port, ["/"], callers=1, requests=5))


async def test_an_unexpected_success_is_a_failure_too() -> None:
    async with serving(lambda _: WELL) as port:
        count = await run(Plan(port, ["/"], "POST", body="{}", expect=202, callers=1, requests=1))
    assert count.failure is not None
    assert count.failure.startswith("HTTP 200")


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    async with serving(lambda _: WELL) as port:
        pass
    count = await run(Plan(port, ["/"], callers=1, requests=1))
    assert count.failure is not None


def test_no_two_requests_are_equal_where_a_mark_stands() -> None:
    plan = Plan(1, ["/v1/jobs"], "POST", {"Idempotency-Key": f"k-{MARK}"}, f'{{"prompt": "{MARK}"}}')
    requests = prepared(plan)
    made = [next(requests) for _ in range(3)]
    assert len(set(made)) == 3
    assert len({len(one) for one in made}) == 1
    assert MARK.encode() not in made[0]
