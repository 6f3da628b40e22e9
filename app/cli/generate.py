"""Create a video through a running gateway, wait for it and save it."""

import asyncio
import shlex
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.cli._options import DEFAULT_URL, Key, Model, Seconds, Size, Url, gateway, job_request
from app.client import ApiError, Client, Job, part_of
from app.ids import Prefix, decode
from app.terminal import MESSAGES, RESULTS, CommandError, fail, program, run, say

PICTURE = "PICTURE"
PROGRESS_STEP = 10  # percent between two lines of a phase


class NoVideo(ApiError):
    """The job has ended without a video, so there is nothing to resume."""


def generate(  # noqa: PLR0917  # typer names the options after the parameters
    prompt: Annotated[str | None, typer.Argument(help="What the video shows.")] = None,
    model: Model = "default",
    seconds: Seconds = None,
    size: Size = None,
    first_frame: Annotated[
        str | None, typer.Option(metavar=PICTURE, help="Begin with this picture: a file, a URL or the id of a file.")
    ] = None,
    last_frame: Annotated[str | None, typer.Option(metavar=PICTURE, help="End with this picture.")] = None,
    reference_image: Annotated[
        list[str] | None, typer.Option(metavar=PICTURE, help="Show what is in this picture; repeatable.")
    ] = None,
    adjust: Annotated[
        bool, typer.Option("--adjust", help="Change what the model does not take, such as the size of a picture.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The file to save the video to.")] = Path("video.mp4"),
    resume: Annotated[str | None, typer.Option(metavar="JOB_ID", help="Wait for an existing job.")] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Repeating a command with the same key creates no second job; default: a new key."),
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    url, key = gateway(url, key)
    if prompt is not None and resume is None:
        body = job_request(prompt, model, seconds, size)
        if adjust:
            body["mode"] = "adjust"
        given = [("first_frame", first_frame), ("last_frame", last_frame)]
        given += [("reference_image", picture) for picture in reference_image or ()]
        pictures = [(role, picture) for role, picture in given if picture is not None]
        run(
            create_and_save(
                url, key, body, out, pictures=pictures, idempotency_key=idempotency_key or str(uuid.uuid4())
            )
        )
    elif resume is None or prompt is not None:
        fail("give either a prompt or --resume JOB_ID", 2)
    elif decode(Prefix.JOB, resume) is None:
        fail(f"{resume} is not the id of a job, such as job_01h455vb4pex5vsknk084sn02q", 2)
    else:
        run(wait_and_save(url, key, resume, out))


async def create_and_save(
    url: str,
    key: str,
    body: Mapping[str, Any],
    out: Path,
    *,
    pictures: Sequence[tuple[str, str]] = (),
    idempotency_key: str,
) -> None:
    """Create a job, wait for its video and save it. ``pictures`` are its inputs, each a role and where the picture is.

    Raises:
        CommandError: ``out`` cannot be written, or a picture cannot be read; no job was created.
        ApiError: the job was rejected or failed, or the gateway cannot be reached.
    """
    _require_writable(out)
    async with Client(url, key) as client:
        if pictures:
            body = {**body, "inputs": [{"role": role, **await _source(client, where)} for role, where in pictures]}
        try:
            job = await client.create_job(body, idempotency_key)
        except (ApiError, asyncio.CancelledError) as error:
            if not isinstance(error, ApiError) or error.uncertain:
                say(
                    MESSAGES,
                    "The job may have been created. To continue without creating a second one, repeat the command with",
                    f"  --idempotency-key {shlex.quote(idempotency_key)}",
                )
            raise
        say(RESULTS, f"job: {job.id}")
        for adjustment in job.adjustments:
            say(MESSAGES, f"adjusted: {adjustment}")
        await _finish(client, job, out)


async def _source(client: Client, where: str) -> dict[str, str]:
    """A picture as an input names it. One on this machine is uploaded first."""
    if where.startswith(("https://", "http://")):
        return {"url": where}
    if decode(Prefix.FILE, where) is not None:
        return {"file_id": where}
    return {"file_id": (await client.upload(Path(where))).id}


async def wait_and_save(url: str, key: str, job_id: str, out: Path) -> None:
    """Wait for an existing job and save its video.

    Raises:
        CommandError: ``out`` cannot be written.
        ApiError: the job does not exist or failed, or the gateway cannot be reached.
    """
    _require_writable(out)
    async with Client(url, key) as client:
        await _finish(client, await client.job(job_id), out)


def _require_writable(out: Path) -> None:
    """Create the file of the download and delete it, before money is spent on a video that could not be saved.

    Permissions alone do not tell: root may write to a directory of a read-only file system.
    """
    try:
        if out.is_dir():
            raise CommandError(f"{out} is a directory; name a file with --out")
        if not out.parent.is_dir():
            raise CommandError(f"{out.parent} is not a directory; create it, or name another file with --out")
        part = part_of(out)
        part.open("xb").close()
        part.unlink()
    except FileExistsError:
        pass  # another download to this file has created it
    except OSError as error:
        raise CommandError(f"{out} cannot be created: {error.strerror}; name another file with --out") from error


async def _finish(client: Client, job: Job, out: Path) -> None:
    try:
        job = await watch(client, job)
        assert job.video_id is not None
        await client.download(job.video_id, out)
    except NoVideo:
        raise
    except (ApiError, asyncio.CancelledError):
        again = [program(), "generate", "--resume", job.id, "--out", str(out)]
        if client.url != DEFAULT_URL:
            again += ["--url", client.url]
        cancel = shlex.quote(f"{client.url}/v1/jobs/{job.id}/cancel")
        say(
            MESSAGES,
            "The job continues in the gateway.",
            f"  its video:  {shlex.join(again)}",
            f'  cancel it: curl -X POST {cancel} -H "Authorization: Bearer $FILMGATE_API_KEY"',
        )
        raise
    say(RESULTS, f"video: {out}")


async def watch(client: Client, job: Job) -> Job:
    """Show the job's phase and progress on standard error until it ends: a bar on a terminal, plain lines elsewhere.

    Raises:
        NoVideo: the job ended without a video.
        ApiError: the gateway cannot be reached.
    """
    job = await (_with_bar(client, job) if MESSAGES.is_terminal else _with_lines(client, job))
    if job.status != "succeeded":
        raise NoVideo(f"job {job.id} {job.status}" + (f": {job.error}" if job.error else ""))
    return job


async def _with_bar(client: Client, job: Job) -> Job:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[notice]}", style="dim"),
    )
    with Progress(*columns, console=MESSAGES) as progress:
        bar = progress.add_task(job.phase, total=100, notice="")
        async for seen in client.follow(job):
            progress.update(bar, description=seen.phase, completed=seen.progress, notice=seen.notice or "")
            job = seen
    return job


async def _with_lines(client: Client, job: Job) -> Job:
    """One line for each phase and each ten percent of it: a log is not filled by a long render."""
    shown: tuple[str, int] | None = None
    async for seen in client.follow(job):
        step = seen.phase, seen.progress // PROGRESS_STEP
        if step != shown:
            say(MESSAGES, f"{seen.phase} ({seen.progress} %)")
        shown, job = step, seen
    return job
