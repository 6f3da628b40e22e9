"""What is counted."""

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from app.infra import metrics
from app.infra.metrics import Levels


def samples(body: bytes) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(body: bytes, name: str, **labels: str) -> float | None:
    return samples(body).get((name, frozenset(labels.items())))


async def levels() -> Levels:
    return Levels(jobs={"queued": 3, "running": 2}, queue_age={"submit": 1.5})


async def away() -> Levels:
    raise ConnectionRefusedError("postgres")


async def test_the_levels_are_those_of_the_moment_of_the_scrape() -> None:
    body, _ = await metrics.scrape(None, levels)
    assert value(body, "filmgate_jobs", state="queued") == 3
    assert value(body, "filmgate_jobs", state="running") == 2
    assert value(body, "filmgate_queue_age_seconds", lane="submit") == 1.5

    async def later() -> Levels:
        return Levels(jobs={"running": 5}, queue_age={})

    body, _ = await metrics.scrape(None, later)
    assert value(body, "filmgate_jobs", state="running") == 5
    assert value(body, "filmgate_jobs", state="queued") is None
    assert value(body, "filmgate_queue_age_seconds", lane="submit") is None


async def test_levels_that_cannot_be_measured_leave_a_gap_and_not_an_old_value() -> None:
    before, _ = await metrics.scrape(None, levels)
    with capture_logs() as logs:
        body, _ = await metrics.scrape(None, away)
    assert value(body, "filmgate_jobs", state="queued") is None
    failures = value(body, "filmgate_scrape_failures_total")
    assert failures == (value(before, "filmgate_scrape_failures_total") or 0) + 1
    assert value(body, "filmgate_rings_total", outcome="rung") == value(before, "filmgate_rings_total", outcome="rung")
    assert [line["event"] for line in logs] == ["gauges not collected"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain"),
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("nonsense;;;q=x", "text/plain"),
        ("application/openmetrics-text; version=1.0.0,text/plain;q=0.5", "application/openmetrics-text"),
    ],
)
def test_the_scraper_gets_the_format_it_asks_for(accept: str | None, content_type: str) -> None:
    body, answered = metrics.render(accept)
    assert answered.startswith(content_type)
    assert (b"# EOF" in body) == (content_type == "application/openmetrics-text")


def test_every_metric_says_what_it_is() -> None:
    ours = [family for family in metrics.REGISTRY.collect() if family.name.startswith("filmgate_")]
    assert {family.name for family in ours} == {
        "filmgate_http_request_seconds",
        "filmgate_step_seconds",
        "filmgate_submissions",
        "filmgate_webhook_attempts",
        "filmgate_rings",
        "filmgate_stored_bytes",
        "filmgate_jobs",
        "filmgate_queue_age_seconds",
        "filmgate_scrape_failures",
        "filmgate_tasks",
    }
    assert all(len(family.documentation) > 20 and family.documentation.endswith(".") for family in ours)


def test_counting_shows_up() -> None:
    def counted(body: bytes) -> list[float]:
        return [
            value(body, "filmgate_submissions_total", connection="acme", outcome="accepted") or 0,
            value(body, "filmgate_webhook_attempts_total", outcome="delivered") or 0,
            value(body, "filmgate_stored_bytes_total") or 0,
            value(body, "filmgate_step_seconds_count", step="poll", outcome="done") or 0,
        ]

    before = counted(metrics.render(None)[0])
    metrics.SUBMISSIONS.labels(connection="acme", outcome="accepted").inc()
    metrics.WEBHOOK_ATTEMPTS.labels(outcome="delivered").inc()
    metrics.STORED_BYTES.inc(1000)
    metrics.STEP_SECONDS.labels(step="poll", outcome="done").observe(0.2)
    after = counted(metrics.render(None)[0])
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1000, 1]


def test_the_process_itself_is_watched() -> None:
    assert value(metrics.render(None)[0], "process_resident_memory_bytes")
