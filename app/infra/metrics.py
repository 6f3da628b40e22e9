"""What Filmgate counts, for Prometheus.

Labels take few values, all of our own making: routes as templates, names of connections, states, outcomes. No id, no
URL and nothing that a caller chose is ever a label.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

log = structlog.get_logger()

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

HTTP_SECONDS = Histogram(
    "filmgate_http_request_seconds",
    "Requests answered by the API, and the seconds until the last byte of the answer.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
STEP_SECONDS = Histogram(
    "filmgate_step_seconds",
    "Steps of jobs taken by workers, and the seconds each took.",
    ["step", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
SUBMISSIONS = Counter(
    "filmgate_submissions",
    "Paid requests sent to providers, by what is known of their outcome.",
    ["connection", "outcome"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "filmgate_webhook_attempts", "Webhooks sent, by outcome of the attempt.", ["outcome"], registry=REGISTRY
)
RINGS = Counter(
    "filmgate_rings", "Times the worker's doorbell was rung through Redis, by outcome.", ["outcome"], registry=REGISTRY
)
STORED_BYTES = Counter("filmgate_stored_bytes", "Bytes of films and posters put into storage.", registry=REGISTRY)
JOBS = Gauge("filmgate_jobs", "Jobs that are not final, by state.", ["state"], registry=REGISTRY)
QUEUE_AGE_SECONDS = Gauge(
    "filmgate_queue_age_seconds",
    "How long the step that is due longest has been waiting, by lane.",
    ["lane"],
    registry=REGISTRY,
)
TASKS = Gauge("filmgate_tasks", "Tasks of the event loop: what a process has begun and not ended.", registry=REGISTRY)
SCRAPE_FAILURES = Counter(
    "filmgate_scrape_failures", "Scrapes that had to leave out jobs and queue ages.", registry=REGISTRY
)


@dataclass(frozen=True, slots=True)
class Levels:
    """What is true at the moment of a scrape: jobs by state, and seconds overdue by lane (0 when nothing is due)."""

    jobs: Mapping[str, int]
    queue_age: Mapping[str, float]


async def scrape(accept: str | None, measure: Callable[[], Awaitable[Levels]]) -> tuple[bytes, str]:
    """Everything, with the levels measured now: (body, content type).

    When they cannot be measured they are left out, and the rest is shown: a dashboard with a gap tells the truth.
    """
    try:
        levels = await measure()
    except Exception:  # whatever it is, the counters must still be readable
        log.warning("levels not measured", exc_info=True)
        SCRAPE_FAILURES.inc()
        levels = Levels(jobs={}, queue_age={})
    TASKS.set(len(asyncio.all_tasks()))
    _fill(JOBS, levels.jobs)
    _fill(QUEUE_AGE_SECONDS, levels.queue_age)
    return render(accept)


def render(accept: str | None) -> tuple[bytes, str]:
    """Every metric as the scraper likes it (Prometheus text or OpenMetrics): (body, content type)."""
    encoder, content_type = choose_encoder(accept or "")
    return encoder(REGISTRY), content_type


def _fill(gauge: Gauge, values: Mapping[str, float]) -> None:
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)
