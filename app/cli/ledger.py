"""Show the history of one job: its submissions with the providers' messages, its events, its cost."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console

from app.cli._database import database_errors
from app.cli._settings import load_settings
from app.events import repository as event_log
from app.events.repository import Event
from app.ids import Prefix, decode, encode
from app.infra.db import Database
from app.jobs.db import repository, submissions
from app.jobs.payloads import money
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty
from app.settings import Settings
from app.terminal import CommandError, UsageError, run, say

MAX_EVENTS = 1000


def ledger(job_id: Annotated[str, typer.Argument(metavar="JOB_ID")]) -> None:
    run(show_ledger(load_settings(), job_id, Console()))


async def show_ledger(settings: Settings, job_id: str, console: Console) -> None:
    """Print a job, its submissions with the providers' messages, and its events."""
    identifier = decode(Prefix.JOB, job_id)
    if identifier is None:
        raise UsageError(f"{job_id} is not the id of a job, such as job_01h455vb4pex5vsknk084sn02q")
    database = Database.open(settings.database, application="filmgate ledger")
    try:
        with database_errors():
            async with database.read() as conn:
                job = await repository.get(conn, identifier)
                if job is None:
                    raise CommandError(f"there is no job {job_id}")
                past = await submissions.ledger_of(conn, identifier)
                events = await event_log.after(conn, job.account_id, identifier, 0, MAX_EVENTS)
    finally:
        await database.close()
    say(console, *_job_lines(job), "", *_submission_lines(past), "", *_event_lines(events))


def _job_lines(job: Job) -> Iterator[str]:
    yield f"{encode(Prefix.JOB, job.id)} {job.state}: {job.model}"
    if job.error:
        yield f"  {job.error['code']}: {job.error['message']}"
    yield f"  cost {_usd(job.cost, job.charge_certainty)}, estimated {money(job.spec.estimated_cost) or 'unknown'}"
    yield f"  created {job.created_at:%Y-%m-%d %H:%M:%S}, deadline {job.deadline_at:%Y-%m-%d %H:%M:%S} UTC"


def _submission_lines(past: Sequence[Submission]) -> Iterator[str]:
    yield "Submissions" if past else "No submissions."
    for one in past:
        late = ", late" if one.late else ""
        yield f"  {one.number}. {encode(Prefix.SUBMISSION, one.id)} {one.state}{late}: {one.model} on {one.connection}"
        yield f"     remote id {one.remote_id or 'unknown'}, cost {_usd(one.cost, one.charge_certainty)}"
        if one.failure:
            yield f"     {one.failure['code']}"
        if one.detail:
            yield f"     {one.detail}"


def _event_lines(events: Sequence[Event]) -> Iterator[str]:
    yield "Events"
    for event in events:
        notice = event.data.get("notice")
        yield f"  {event.created_at:%H:%M:%S} {event.type}{f': {notice}' if notice else ''}"


def _usd(cost: Decimal | None, certainty: ChargeCertainty) -> str:
    known = "unknown" if cost is None else f"{money(cost)} USD"
    return f"{known} ({certainty})"
