"""The body of ``filmgate ledger``: what happened to one job and what it cost, for an operator."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console

from app.administer import explained
from app.console import CommandError, say
from app.db import Database
from app.events import repository as event_log
from app.events.repository import Event
from app.ids import Prefix, decode, encode
from app.jobs import ledger, repository
from app.jobs.records import Job, Submission
from app.jobs.schemas import money
from app.jobs.states import ChargeCertainty
from app.settings import Settings

MANY = 1000


async def tell(settings: Settings, job_id: str, console: Console) -> None:
    """Print a job, its purchases with the providers' own words, and its events."""
    identifier = decode(Prefix.JOB, job_id)
    if identifier is None:
        raise CommandError(f"{job_id} is not the id of a job; one looks like job_01h455vb4pex5vsknk084sn02q")
    database = Database.open(settings.database, application="filmgate ledger")
    try:
        with explained():
            async with database.read() as connection:
                job = await repository.get(connection, identifier)
                if job is None:
                    raise CommandError(f"there is no job {job_id}")
                past = await ledger.past_of(connection, identifier)
                events = await event_log.after(connection, job.account_id, identifier, 0, MANY)
    finally:
        await database.close()
    say(console, *_of_job(job), "", *_of_purchases(past), "", *_of_events(events))


def _of_job(job: Job) -> Iterator[str]:
    yield f"{encode(Prefix.JOB, job.id)} {job.state}: {job.model}"
    if job.error:
        yield f"  {job.error['code']}: {job.error['message']}"
    yield f"  cost {_usd(job.cost, job.charge_certainty)}, estimated {money(job.estimated_cost) or 'unknown'}"
    yield f"  ordered {job.created_at:%Y-%m-%d %H:%M:%S}, deadline {job.deadline_at:%Y-%m-%d %H:%M:%S} UTC"


def _of_purchases(past: Sequence[Submission]) -> Iterator[str]:
    yield "Purchases" if past else "Nothing was ever sent to a provider."
    for one in past:
        late = ", late" if one.late else ""
        yield f"  {one.number}. {encode(Prefix.SUBMISSION, one.id)} {one.state}{late}: {one.model} on {one.connection}"
        yield f"     remote id {one.remote_id or 'unknown'}, cost {_usd(one.cost, one.charge_certainty)}"
        if one.failure:
            yield f"     {one.failure['code']}"
        if one.detail:
            yield f"     {one.detail}"


def _of_events(events: Sequence[Event]) -> Iterator[str]:
    yield "Events"
    for event in events:
        notice = event.data.get("notice")
        yield f"  {event.created_at:%H:%M:%S} {event.type}{f': {notice}' if notice else ''}"


def _usd(cost: Decimal | None, certainty: ChargeCertainty) -> str:
    known = "unknown" if cost is None else f"{money(cost)} USD"
    return f"{known} ({certainty})"
