"""Run a complete local stack until Ctrl-C: Postgres, Valkey, API, worker and a sandbox provider."""

from pathlib import Path
from typing import Annotated

import typer

from app.embedded.stack import Stack
from app.embedded.workspace import Ports, Workspace
from app.terminal import MESSAGES, RESULTS, program, run, say

ROOT = Path(".filmgate")


Port = Annotated[int, typer.Option(min=1, max=65535)]


def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8080,
    worker_port: Port = 9090,
    sandbox_port: Port = 8090,
    postgres_port: Port = 54329,
    valkey_port: Port = 63799,
) -> None:
    ports = Ports(api=port, worker=worker_port, sandbox=sandbox_port, postgres=postgres_port, valkey=valkey_port)
    run(run_dev_stack(ports))


async def run_dev_stack(ports: Ports, root: Path = ROOT) -> None:
    """Run a stack on the given ports until canceled.

    Raises:
        CommandError: a part failed to start or ended; the stack is already stopped.
    """
    stack = Stack(Workspace(root), ports)
    try:
        async with stack.running(lambda text: say(MESSAGES, f"{text} …")):
            say(RESULTS, *_welcome(stack.url, await stack.api_key(), root))
            await stack.watch()
    finally:
        if stack.started:
            say(MESSAGES, "Everything has stopped.")


def _welcome(url: str, key: str, root: Path) -> list[str]:
    authorization = f'-H "Authorization: Bearer {key}"'
    body = """{"model": "default", "prompt": "a purple elephant dancing on a blue beach ball", "seconds": 4}"""
    create = f"curl -s {url}/v1/jobs {authorization} -H 'Content-Type: application/json' -d '{body}'"
    environment = f"FILMGATE_CONFIG={root / 'filmgate.toml'} FILMGATE_SECRET_KEY=$(cat {root / 'secret'})"
    return [
        "",
        "Filmgate is ready. Ctrl-C stops it.",
        "",
        f"  API    {url}",
        f"  docs   {url}/docs",
        f"  key    {key}",
        f"  logs   {root / 'logs'}",
        "",
        "Create a video and wait for it:",
        "",
        f"JOB=$({create} | grep -o 'job_[0-9a-z]*' | head -n 1); echo $JOB",
        f"curl -s {url}/v1/jobs/$JOB {authorization} -H 'Prefer: wait=30'",
        "",
        "Manage the API keys of this gateway, and check its health:",
        "",
        f"{environment} {program()} keys list",
        f"{environment} {program()} doctor",
        "",
    ]
