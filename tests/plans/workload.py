"""A day in the life of a gateway: everything that clients and workers do all the time, done once by the real thing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.ids import new_id
from app.settings import RetentionSettings, Settings
from tests.support.gateway import Gateway, running_gateway
from tests.support.receiver import running_receiver
from tests.support.sample_files import picture
from tests.support.settings import gateway_settings

#: A little of the past is over.
KEPT_DAYS = 299


def settings_of(postgres_url: str, redis_url: str, sandbox_url: str, directory: Path) -> Settings:
    """With room for everything that is under way."""
    settings = gateway_settings(
        postgres_url=postgres_url, redis_url=redis_url, sandbox_url=sandbox_url, directory=directory
    )
    roomy = {"max_concurrent": 100_000, "requests_per_minute": 100_000}
    return settings.model_copy(
        update={
            "connections": {name: one.model_copy(update=roomy) for name, one in settings.connections.items()},
            "jobs": settings.jobs.model_copy(update={"idempotency_days": KEPT_DAYS}),
            "retention": RetentionSettings(events_days=KEPT_DAYS, deliveries_days=KEPT_DAYS, jobs_days=KEPT_DAYS),
        }
    )


@asynccontextmanager
async def opened(settings: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    """The gateway. Its key is of the account that has most of the jobs."""
    async with running_gateway(settings, sandbox_url) as gateway:
        await gateway.sandbox.delete("/ledger")
        yield gateway


async def live(gateway: Gateway) -> None:
    """Order videos in every way, read in every way, cancel one, and let the workers do the rest."""
    async with running_receiver() as receiver:
        key = str(new_id())
        order: dict[str, Any] = {
            "seconds": 4,
            "webhook_url": receiver.url,
            "metadata": {"order": "7"},
            "fallbacks": ["sandbox/short"],
        }
        job = await gateway.create(key=key, **order)
        assert (await gateway.create(key=key, **order))["id"] == job["id"]
        failed = await gateway.create("[fail:internal] a video", seconds=1)
        slow = await gateway.create("[slow:30] a video", seconds=1)
        lost = await gateway.create("[lose-reply] a video", seconds=1)
        await gateway.client.post(f"/v1/jobs/{slow['id']}/cancel")
        pictured = await _pictured(gateway)
        for one in (job, failed, lost, *pictured):
            await gateway.ended(one["id"])
        await receiver.wait_for(1)
    await gateway.resources.retention.remove()
    for path in ("", "/submissions", "/deliveries", "/events"):
        assert (await gateway.client.get(f"/v1/jobs/{job['id']}{path}")).status_code == 200
    video = (await gateway.get(job["id"]))["assets"]["video"]
    assert (await gateway.client.get(video["content_url"])).status_code == 200
    for query in (*QUERIES, {"parent_id": pictured[0]["id"]}):
        reply = await gateway.client.get("/v1/jobs", params=query)
        assert reply.status_code == 200, reply.text
    assert (await gateway.client.get("/metrics")).status_code == 200
    assert (await gateway.client.get("/readyz")).status_code == 200


async def _pictured(gateway: Gateway) -> list[dict[str, Any]]:
    """A job that begins with a picture, another take of it, and a look at files."""
    content = picture("PNG", size=(128, 96), color=f"#{new_id().hex[-6:]}")  # another one than this database knows
    file = (await gateway.client.post("/v1/files", files={"file": ("a.png", content)})).json()
    job = await gateway.create(inputs=[{"role": "first_frame", "file_id": file["id"]}])
    take = (await gateway.client.post(f"/v1/jobs/{job['id']}/again", json={})).json()
    for path in ("", f"/{file['id']}", f"/{file['id']}/content"):
        assert (await gateway.client.get(f"/v1/files{path}")).status_code == 200
    await gateway.client.delete(f"/v1/files/{file['id']}")
    await gateway.resources.files.expire(10)
    return [job, take]


QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"limit": "100"},
    {"status": "succeeded"},
    {"status": "failed"},
    {"status": "canceled"},
    {"status": "queued"},
    {"status": "running"},
    {"model": "runway/gen4.5"},
    {"metadata[order]": "20"},
    {"metadata[shop]": "3"},
    {"created_after": "2026-01-01T00:00:00Z"},
    {"created_before": "2026-06-01T00:00:00Z"},
    {"status": "failed", "model": "sandbox/video", "metadata[shop]": "1"},
)
