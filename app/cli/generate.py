"""Order a film from a gateway, wait for it, save it."""

import asyncio
import os
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.cli._options import Model, Seconds, Size, order_of
from app.client import ApiError, Client, Job
from app.ids import Prefix, decode
from app.terminal import CommandError, fail, program, run, say

DEFAULT_URL = "http://127.0.0.1:8080"


class NoFilm(ApiError):
    """The job has ended, and there is nothing to come back for."""


def generate(  # noqa: PLR0917  # typer names the options after the parameters
    prompt: Annotated[str | None, typer.Argument(help="What the film shows.")] = None,
    model: Model = "default",
    seconds: Seconds = None,
    size: Size = None,
    out: Annotated[Path, typer.Option(help="Where the film goes.")] = Path("film.mp4"),
    resume: Annotated[str | None, typer.Option(metavar="JOB_ID", help="Wait for a job that is there already.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same order with the same key buys once; a new key otherwise.")
    ] = None,
    url: Annotated[str | None, typer.Option(envvar="FILMGATE_URL", help="The gateway; dev's otherwise.")] = None,
    key: Annotated[str | None, typer.Option(envvar="FILMGATE_API_KEY", help="The API key.")] = None,
) -> None:
    key = (key or "").strip()  # of a file's last line, perhaps
    url = url or DEFAULT_URL
    if not key:
        fail("no API key; set FILMGATE_API_KEY or pass --key (`filmgate dev` shows one)", 2)
    if prompt is not None and resume is None:
        order = order_of(prompt, model, seconds, size)
        once = idempotency_key or str(uuid.uuid4())
        run(order_and_save(url, key, order, out, Console(), idempotency_key=once))
    elif resume is None or prompt is not None:
        fail("say what the film shows, or name a job with --resume", 2)
    elif decode(Prefix.JOB, resume) is None:
        fail(f"{resume} is not the id of a job; one looks like job_01h455vb4pex5vsknk084sn02q", 2)
    else:
        run(wait_and_save(url, key, resume, out, Console()))


async def order_and_save(
    url: str, key: str, order: Mapping[str, Any], out: Path, console: Console, *, idempotency_key: str
) -> None:
    """Order a film, wait for it, and save it.

    Raises:
        CommandError: ``out`` cannot be written; nothing was ordered.
        ApiError: refused, failed or out of reach.
    """
    _require_writable(out)
    async with Client(url, key) as client:
        try:
            job = await client.create_job(order, idempotency_key)
        except (ApiError, asyncio.CancelledError) as error:
            if not isinstance(error, ApiError) or error.uncertain:
                say(
                    console,
                    "The order may have been taken. To find out, and never buy twice, give the same command again with",
                    f"  --idempotency-key {shlex.quote(idempotency_key)}",
                )
            raise
        say(console, f"job: {job.id}")
        await _finish(client, job, out, console)


async def wait_and_save(url: str, key: str, job_id: str, out: Path, console: Console) -> None:
    """Wait for a job that is there already, and save its film.

    Raises:
        CommandError: ``out`` cannot be written.
        ApiError: no such job, failed or out of reach.
    """
    _require_writable(out)
    async with Client(url, key) as client:
        await _finish(client, await client.job(job_id), out, console)


def _require_writable(out: Path) -> None:
    """Before money is spent on a film that could not be saved."""
    if out.is_dir():
        raise CommandError(f"{out} is a directory; name a file with --out")
    if not out.parent.is_dir():
        raise CommandError(f"{out.parent} is not a directory; make it, or name another file with --out")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise CommandError(f"{out.parent} may not be written to; name another file with --out")


async def _finish(client: Client, job: Job, out: Path, console: Console) -> None:
    try:
        job = await watch(client, job, console)
        assert job.film_id is not None
        await client.download(job.film_id, out)
    except NoFilm:
        raise
    except (ApiError, asyncio.CancelledError):
        again = [program(), "generate", "--resume", job.id, "--out", str(out)]
        if client.url != DEFAULT_URL:
            again += ["--url", client.url]
        cancel = shlex.quote(f"{client.url}/v1/jobs/{job.id}/cancel")
        say(
            console,
            "The job goes on without you.",
            f"  its film:  {shlex.join(again)}",
            f'  cancel it: curl -X POST {cancel} -H "Authorization: Bearer $FILMGATE_API_KEY"',
        )
        raise
    say(console, f"film: {out}")


async def watch(client: Client, job: Job, console: Console) -> Job:
    """Show the job's phase and progress until it has ended; plain lines where the output is no terminal.

    Raises:
        NoFilm: it ended without a film.
        ApiError: the gateway went away.
    """
    if console.is_terminal:
        job = await _with_bar(client, job, console)
    else:
        job = await _with_lines(client, job, console)
    if job.status != "succeeded":
        raise NoFilm(f"job {job.id} {job.status}" + (f": {job.error}" if job.error else ""))
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
