"""Ceilings: the maximum throughput of the parts of the stack, measured in the same rounds."""

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from app.embedded.processes import free_port
from benchmarks.child_processes import Peer
from benchmarks.load_generator import MARK, Count, Plan
from benchmarks.rows.latency import ledger
from benchmarks.session import Bench, Client
from benchmarks.stack import SANDBOX_KEY, Part, Site
from benchmarks.stats import Measured

CALLERS = 16
BARE = "bare ASGI on uvicorn"
FRAMEWORK = "FastAPI, pydantic body and response, no I/O"
INSERTS = "asyncpg: insert + commit"
SANDBOX_READ = "sandbox alone: status of a job"
SANDBOX_CREATE = "sandbox alone: create"

Windows = dict[str, Callable[[], Awaitable[Measured]]]


def server(bench: Bench, name: str) -> Part:
    """An application of :mod:`benchmarks.ceiling_apps` on uvicorn, not started."""
    port = free_port()
    options = (
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
        "--lifespan",
        "off",
    )
    command = [sys.executable, "-P", "-m", "uvicorn", f"benchmarks.ceiling_apps:{name}", "--port", str(port), *options]
    probe = "/" if name == "bare" else "/healthz"
    return Part(
        name, list(command), port, probe, log=bench.stack.directory / f"{name}.log", environment=dict(os.environ)
    )


@asynccontextmanager
async def windows(bench: Bench, site: Site, body: str) -> AsyncIterator[Windows]:
    """One window per ceiling; their servers run until the block ends. ``body`` is the body of a create."""
    async with AsyncExitStack() as stack:
        bare, framework = server(bench, "bare"), server(bench, "framework")
        for part in (bare, framework):
            await part.start()
            stack.push_async_callback(part.stop)
        inserts = await stack.enter_async_context(Peer.running("insert_ceiling"))
        remote = await _remote_job_path(bench)
        seconds, key = bench.options.seconds, {"Authorization": f"Bearer {SANDBOX_KEY}"}
        sandbox = bench.stack.sandbox
        request = json.dumps({"model": "sandbox-video", "prompt": f"a fox {MARK}", "seconds": "4", "size": "1280x720"})
        plans = {
            BARE: (bare, Plan(bare.port, ["/"], callers=CALLERS, seconds=seconds)),
            FRAMEWORK: (framework, Plan(framework.port, ["/"], "POST", {}, body, 202, CALLERS, seconds)),
            SANDBOX_READ: (sandbox, Plan(sandbox.port, [remote], headers=key, callers=CALLERS, seconds=seconds)),
            SANDBOX_CREATE: (
                sandbox,
                Plan(sandbox.port, ["/openai/v1/videos"], "POST", key, request, callers=CALLERS, seconds=seconds),
            ),
        }
        found: Windows = {name: _window(bench, *planned) for name, planned in plans.items()}

        async def inserting() -> Count:
            return Count(**await inserts.ask({"url": site.url, "callers": CALLERS, "seconds": seconds}))

        yield {**found, INSERTS: lambda: bench.measured(inserting(), bench.meter(api=inserts.process))}


def _window(bench: Bench, part: Part, plan: Plan) -> Callable[[], Awaitable[Measured]]:
    return lambda: bench.window(plan, bench.meter(api=part.process))


async def _remote_job_path(bench: Bench) -> str:
    """Create a job; returns the path of its finished remote job in the sandbox."""
    async with Client.of(bench.site) as client:
        await bench.site.worker.start()
        await client.reached((await client.create())["id"], "succeeded")
        await bench.site.worker.stop()
    return f"/openai/v1/videos/{(await ledger(bench))[-1]['remote_id']}"
