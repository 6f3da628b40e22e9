"""Jobs that are written down without a caller."""

from uuid import UUID

from app.events.repository import NewEvent
from app.ids import new_id
from app.jobs.records import AcceptedRequest
from app.providers.job_spec import JobSpec


def a_draft(job_id: UUID, account_id: UUID, model: str) -> tuple[AcceptedRequest, NewEvent]:
    """The plainest order there is, with its first event."""
    accepted = AcceptedRequest(
        id=job_id,
        account_id=account_id,
        spec=JobSpec(model, "a video", 1, 128, 96),
        fallbacks=(),
        fallback_on_refusal=False,
        max_cost=None,
        priority=0,
        metadata={},
        webhook_url=None,
        notice=None,
        deadline_seconds=60,
    )
    return accepted, NewEvent(new_id(), account_id, job_id, "job.queued", 1, {})
