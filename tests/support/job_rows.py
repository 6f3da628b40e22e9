"""Jobs that are written down without a caller."""

from uuid import UUID

from app.events.repository import Fact
from app.ids import new_id
from app.jobs.records import Choice, Draft, Ordered


def a_draft(job_id: UUID, account_id: UUID, model: str) -> tuple[Draft, Fact]:
    """The plainest order there is, with its first event."""
    draft = Draft(
        id=job_id,
        account_id=account_id,
        chosen=Choice(model, Ordered("a film", 1, 128, 96), None, []),
        fallbacks=(),
        fallback_on_refusal=False,
        max_cost=None,
        priority=0,
        metadata={},
        webhook_url=None,
        notice=None,
        deadline_seconds=60,
    )
    return draft, Fact(new_id(), account_id, job_id, "job.queued", 1, {})
