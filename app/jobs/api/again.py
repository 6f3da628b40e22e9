"""``POST /v1/jobs/{id}/again``: the request of an earlier job, with changes."""

from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from app.ids import Prefix, encode
from app.jobs.api.requests import PRIORITIES, JobOptions, JobRequest, Text
from app.jobs.payloads import money
from app.jobs.records import Job
from app.providers.inputs import JobInput
from app.web.field_errors import in_body


class JobChanges(JobOptions):
    """What is to be different. Everything else is as in the earlier job, but for the seed: that is a new one."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text | None = Field(default=None, min_length=1, max_length=32_000, description="What the video shows.")
    model: Text | None = Field(default=None, min_length=1, max_length=200, description="A model or an alias.")


def ordered_again(job: Job, changes: JobChanges) -> JobRequest:
    """The request of a job, as far as it is kept, with changes.

    What ``mode: adjust`` changed stays as it was made; then other models may adjust it, too. A size replaces a ratio.

    Raises:
        RequestValidationError: the changes contradict each other.
    """
    spec = job.spec
    adjusts = any(one.adjustments for one in job.specs) or any(one.adjust for one in spec.inputs)
    wanted = changes.model_dump(mode="json", exclude_unset=True)
    kept: dict[str, Any] = {
        "model": spec.model,
        "prompt": spec.prompt,
        "seconds": spec.seconds,
        "size": spec.size,
        "negative_prompt": spec.negative_prompt,
        "audio": spec.audio,
        "inputs": [_given(one) for one in spec.inputs],
        "provider_options": dict(spec.options),
        "mode": "adjust" if adjusts else "strict",
        "max_cost": money(job.max_cost),
        "fallbacks": [other.model for other in job.fallbacks],
        "fallback_on_refusal": job.fallback_on_refusal,
        "priority": PRIORITIES[job.priority],
        "webhook_url": job.webhook_url,
        "metadata": dict(job.metadata),
    }
    if {"aspect_ratio", "resolution"} & wanted.keys():
        del kept["size"]
    if wanted.get("model", spec.model) != spec.model:
        del kept["provider_options"]
    values = {name: value for name, value in {**kept, **wanted}.items() if value is not None}
    try:
        return JobRequest.model_validate(values)
    except ValidationError as error:
        raise in_body(error, values) from None


def _given(one: JobInput) -> dict[str, Any]:
    if one.file is not None:
        return {"role": one.role.value, "file_id": encode(Prefix.FILE, one.file.id)}
    if one.job_id is not None:
        return {"role": one.role.value, "job_id": encode(Prefix.JOB, one.job_id), "use": one.use}
    return {"role": one.role.value, "url": one.url}
