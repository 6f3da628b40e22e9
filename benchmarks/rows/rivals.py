"""LiteLLM's proxy in its best case: one process, no database, the same upstream, the same rounds.

It is a relay: it stores nothing, and every read is a request to the upstream. ``make bench-rivals`` creates its
environment.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from app.embedded.processes import free_port
from benchmarks.load_generator import MARK, Plan
from benchmarks.resource_meter import Meter
from benchmarks.session import PROMPT, Bench
from benchmarks.stack import ROOT, SANDBOX_KEY, Part
from benchmarks.stats import Measured

ENVIRONMENT = ROOT / ".peers"
NAME = "LiteLLM"
CALLERS = (1, 16, 64)
#: Its responses take more than a second at c = 64; a window must include several per caller.
SHORTEST_SECONDS, WARMUP_SECONDS = 5.0, 1.5
CONFIGURATION = """
model_list:
  - model_name: sandbox-video
    litellm_params:
      model: openai/sandbox-video
      api_base: http://127.0.0.1:{port}/openai/v1
      api_key: {key}
"""
PATHS = {"p1": f"{NAME} `POST /v1/videos`", "p2": f"{NAME} `GET /v1/videos/{{id}}`"}
Windows = dict[tuple[str, str, int], Callable[[], Awaitable[Measured]]]


def version() -> str:
    """The installed version.

    Raises:
        RuntimeError: it is not installed.
    """
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/litellm-*.dist-info"))
    if not found:
        raise RuntimeError(f"{NAME} is not installed; run: make bench-rivals")
    return found[-1].name.removeprefix("litellm-").removesuffix(".dist-info")


@asynccontextmanager
async def windows(bench: Bench) -> AsyncIterator[Windows]:
    """Start the proxy until the block ends; yields its windows by figure, name and callers."""
    version()
    key, port = f"sk-{secrets.token_hex(24)}", free_port()
    file = bench.stack.directory / "rival.yaml"
    file.write_text(CONFIGURATION.format(port=bench.stack.sandbox.port, key=SANDBOX_KEY))
    # Use the bundled price list: downloading a newer one would delay the start.
    environment = {**os.environ, "LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command: list[str | Path] = [ENVIRONMENT / "bin" / "litellm", "--config", file, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    part = Part(
        "rival", command, port, "/health/liveliness", log=bench.stack.directory / "rival.log", environment=environment
    )
    try:
        bench.say(f"{NAME} {version()} started in {await part.start():.1f} s")
        yield await _windows(bench, part, {"Authorization": f"Bearer {key}"})
    finally:
        await part.stop()


async def _windows(bench: Bench, part: Part, headers: dict[str, str]) -> Windows:
    body = {"model": "sandbox-video", "prompt": f"{PROMPT}, take {MARK}", "seconds": "4", "size": "1280x720"}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{part.port}", headers=headers) as session,
        session.post("/v1/videos", json=body) as reply,
    ):
        assert reply.status == 200, await reply.text()
        path = f"/v1/videos/{(await reply.json())['id']}"
    found: Windows = {}
    meter = bench.meter(api=part.process)
    seconds = max(SHORTEST_SECONDS, bench.options.seconds)
    for callers in CALLERS:
        create = Plan(
            part.port, ["/v1/videos"], "POST", headers, json.dumps(body), 200, callers, seconds, WARMUP_SECONDS
        )
        read = Plan(part.port, [path], headers=headers, callers=callers, seconds=seconds, warmup=WARMUP_SECONDS)
        found["rivals", PATHS["p1"], callers] = _window(bench, create, meter)
        found["rivals", PATHS["p2"], callers] = _window(bench, read, meter)
    return found


def _window(bench: Bench, plan: Plan, meter: Meter) -> Callable[[], Awaitable[Measured]]:
    return lambda: bench.window(plan, meter)
