"""Everything that a client does, with code by openapi-python-client. Prints what it saw as one line of JSON."""

import json
import os

from filmgate_client import AuthenticatedClient
from filmgate_client.api.assets import get_asset_content
from filmgate_client.api.jobs import cancel_job, create_job, get_job, list_jobs
from filmgate_client.models import Job, JobCreate, JobList, JobStatus, JobSucceededEvent, Problem

ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED}


def connect(key):
    return AuthenticatedClient(base_url=os.environ["FILMGATE_URL"], token=key)


def order(prompt="a kite", model="sandbox/video"):
    return JobCreate(prompt=prompt, model=model, seconds=1, size="128x96")


def expect(kind, reply):
    assert isinstance(reply, kind), reply
    return reply


client = connect(os.environ["FILMGATE_API_KEY"])
job = expect(Job, create_job.sync(client=client, body=order(), idempotency_key="first"))
again = expect(Job, create_job.sync(client=client, body=order(), idempotency_key="first"))
while job.status not in ENDED:
    job = expect(Job, get_job.sync(job.id, client=client, prefer="wait=30"))
video = get_asset_content.sync_detailed(job.assets.video.id, client=client).parsed.payload.read()

slow = expect(Job, create_job.sync(client=client, body=order("a kite [slow:60]"), idempotency_key="second"))
slow = expect(Job, cancel_job.sync(slow.id, client=client))
while slow.status not in ENDED:
    slow = expect(Job, get_job.sync(slow.id, client=client, prefer="wait=30"))

listed = []
page = expect(JobList, list_jobs.sync(client=client, limit=1))
listed += [one.id for one in page.data]
while page.has_more:
    page = expect(JobList, list_jobs.sync(client=client, limit=1, cursor=page.next_cursor))
    listed += [one.id for one in page.data]

refused = [
    get_job.sync(job.id, client=connect("fgk_nothing")),
    get_job.sync("job_nothing", client=client),
    create_job.sync(client=client, body=order(model="no/such"), idempotency_key="third"),
]

events, event = [], None
with client.get_httpx_client().stream("GET", f"/v1/jobs/{job.id}/events") as stream:
    for line in stream.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            events.append(event["type"])
succeeded = JobSucceededEvent.from_dict(event)

print(
    json.dumps(
        {
            "replayed": again.id == job.id,
            "status": job.status,
            "size": job.assets.video.size_bytes,
            "downloaded": len(video),
            "canceled": slow.status,
            "listed": sorted(listed) == sorted([job.id, slow.id]),
            "problems": {one.status: one.code for one in (expect(Problem, one) for one in refused)},
            "events": events,
            "url": succeeded.data.assets.video.content_url == job.assets.video.content_url,
        }
    )
)
