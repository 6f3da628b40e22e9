"""The body of ``filmgate generate``: order, watch, fetch."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.client import ApiError, Client, Job
from app.console import say


async def generate(url: str, key: str, order: Mapping[str, Any], out: Path, console: Console) -> None:
    """Order a film, wait for it, and save it.

    Raises:
        ApiError: refused, failed or out of reach.
    """
    async with Client(url, key) as client:
        await _finish(client, await client.create_job(order), out, console)


async def resume(url: str, key: str, job_id: str, out: Path, console: Console) -> None:
    """Wait for a job that is there already, and save its film.

    Raises:
        ApiError: no such job, failed or out of reach.
    """
    async with Client(url, key) as client:
        await _finish(client, await client.job(job_id), out, console)


async def _finish(client: Client, job: Job, out: Path, console: Console) -> None:
    try:
        job = await watch(client, job, console)
        assert job.film_id is not None
        await client.download(job.film_id, out)
    except asyncio.CancelledError:
        say(
            console,
            "The job goes on without you.",
            f"  its film:  filmgate generate --resume {job.id} --out {out}",
            f"  cancel it: curl -X POST {client.url}/v1/jobs/{job.id}/cancel -H 'Authorization: Bearer …'",
        )
        raise
    say(console, f"job: {job.id}", f"film: {out}")


async def watch(client: Client, job: Job, console: Console) -> Job:
    """Show the job's phase and progress until it has ended; plain lines where the output is no terminal.

    Raises:
        ApiError: it ended without a film.
    """
    if console.is_terminal:
        job = await _with_bar(client, job, console)
    else:
        job = await _with_lines(client, job, console)
    if job.status != "succeeded":
        raise ApiError(f"job {job.id} {job.status}" + (f": {job.error}" if job.error else ""))
    return job


async def _with_bar(client: Client, job: Job, console: Console) -> Job:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[notice]}", style="dim"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(job.phase, total=100, notice="")
        async for seen in client.follow(job):
            progress.update(bar, description=seen.phase, completed=seen.progress, notice=seen.notice or "")
            job = seen
    return job


async def _with_lines(client: Client, job: Job, console: Console) -> Job:
    phase = ""
    async for seen in client.follow(job):
        if seen.phase != phase:
            say(console, f"{seen.phase} ({seen.progress} %)")
        phase, job = seen.phase, seen
    return job
