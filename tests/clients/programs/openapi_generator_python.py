"""Everything that a client does, with code by openapi-generator (python). Prints what it saw as one line of JSON."""

import json
import os

import filmgate_client as filmgate

ENDED = {filmgate.JobStatus.SUCCEEDED, filmgate.JobStatus.FAILED, filmgate.JobStatus.CANCELED}


def connect(key):
    configuration = filmgate.Configuration(host=os.environ["FILMGATE_URL"], access_token=key)
    return filmgate.ApiClient(configuration)


def order(prompt="a kite", model="sandbox/video"):
    return filmgate.JobCreate(prompt=prompt, model=model, seconds=1, size="128x96")


def refusal(call):
    try:
        call()
    except filmgate.ApiException as error:
        return {error.status: filmgate.Problem.from_json(error.body).code}
    raise AssertionError("this was not refused")


client = connect(os.environ["FILMGATE_API_KEY"])
jobs, assets = filmgate.JobsApi(client), filmgate.AssetsApi(client)
job = jobs.create_job(order(), idempotency_key="first")
again = jobs.create_job(order(), idempotency_key="first")
while job.status not in ENDED:
    job = jobs.get_job(job.id, prefer="wait=30")
video = assets.get_asset_content(job.assets.video.id)

slow = jobs.create_job(order("a kite [slow:60]"), idempotency_key="second")
slow = jobs.cancel_job(slow.id)
while slow.status not in ENDED:
    slow = jobs.get_job(slow.id, prefer="wait=30")

page = jobs.list_jobs(limit=1)
listed = [one.id for one in page.data]
while page.has_more:
    page = jobs.list_jobs(limit=1, cursor=page.next_cursor)
    listed += [one.id for one in page.data]

problems = {
    **refusal(lambda: filmgate.JobsApi(connect("fgk_nothing")).get_job(job.id)),
    **refusal(lambda: jobs.get_job("job_nothing")),
    **refusal(lambda: jobs.create_job(order(model="no/such"))),
}

events = []
stream = jobs.stream_job_events_without_preload_content(job.id)
for line in stream:
    if line.startswith(b"data: "):
        event = filmgate.JobEvent.from_json(line.removeprefix(b"data: ").decode()).actual_instance
        events.append(event.type)

print(
    json.dumps(
        {
            "replayed": again.id == job.id,
            "status": job.status,
            "size": job.assets.video.size_bytes,
            "downloaded": len(video),
            "canceled": slow.status,
            "listed": sorted(listed) == sorted([job.id, slow.id]),
            "problems": problems,
            "events": events,
            "url": event.data.assets.video.content_url == job.assets.video.content_url,
        }
    )
)
