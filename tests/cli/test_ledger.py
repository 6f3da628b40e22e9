"""One job's story, for an operator: what was bought, what the provider said, what it cost."""

from io import StringIO

import pytest
from rich.console import Console

from app.cli.ledger import show_ledger
from app.terminal import CommandError
from tests.support.gateway import Gateway


async def told(gateway: Gateway, job_id: str) -> list[str]:
    out = StringIO()
    await show_ledger(gateway.settings, job_id, Console(file=out))
    return out.getvalue().splitlines()


async def test_the_ledger_command_tells_what_happened_and_what_it_cost(gateway: Gateway) -> None:
    job = await gateway.create("a lighthouse [fail:internal]")
    await gateway.ended(job["id"])
    (submission,) = await gateway.submissions(job["id"])
    lines = await told(gateway, job["id"])
    assert lines[:2] == [
        f"{job['id']} failed: sandbox/video",
        "  provider_error: The provider failed to render the video.",
    ]
    assert "  cost unknown (certain), estimated 0.01" in lines
    assert f"  1. {submission['id']} done: sandbox/video on sandbox" in lines
    assert f"     remote id {submission['remote_id']}, cost unknown (certain)" in lines
    steps = [line.split()[1] for line in lines[lines.index("Events") + 1 :]]
    # A poll that meets the render before its end tells of progress: none, or some.
    assert [step for step in steps if step != "job.progress"] == [
        "job.queued",
        "job.submitting",
        "job.started",
        "job.failed",
    ]


async def test_a_job_that_was_never_submitted_says_so(gateway: Gateway) -> None:
    await gateway.stop_workers()
    job = await gateway.create()
    assert "No submissions." in await told(gateway, job["id"])


@pytest.mark.parametrize(
    ("job_id", "words"), [("job_1", "is not the id of a job"), ("job_01h455vb4pex5vsknk084sn02q", "there is no job")]
)
async def test_an_id_that_leads_nowhere_is_an_error_in_words(gateway: Gateway, job_id: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        await told(gateway, job_id)
