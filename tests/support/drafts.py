"""Jobs that are written down without a caller."""

from uuid import UUID

from app.jobs.records import Choice, Draft, Ordered


def a_draft(job_id: UUID, account_id: UUID, model: str) -> Draft:
    """The plainest order there is."""
    return Draft(
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
