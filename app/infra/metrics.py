"""Prometheus metrics.

Labels have few values, none chosen by callers: route templates, names of connections, states, results. Ids and URLs are
never labels.
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
    "Requests to the API, in seconds until the last byte of the response.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
STEP_SECONDS = Histogram(
    "filmgate_step_seconds",
    "Steps of jobs run by workers, in seconds.",
    ["step", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
SUBMISSIONS = Counter(
    "filmgate_submissions",
    "Paid requests sent to providers, by known result.",
    ["connection", "outcome"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "filmgate_webhook_attempts", "Attempts to deliver webhooks, by result.", ["outcome"], registry=REGISTRY
)
RINGS = Counter(
    "filmgate_rings", "Notifications sent to workers through Redis, by result.", ["outcome"], registry=REGISTRY
)
STORED_BYTES = Counter("filmgate_stored_bytes", "Bytes of videos and posters stored.", registry=REGISTRY)
JOBS = Gauge("filmgate_jobs", "Jobs that are not final, by state.", ["state"], registry=REGISTRY)
QUEUE_AGE_SECONDS = Gauge(
    "filmgate_queue_age_seconds",
    "Seconds that the longest overdue step has been waiting, by lane.",
    ["lane"],
    registry=REGISTRY,
)
TASKS = Gauge("filmgate_tasks", "Unfinished tasks of the event loop.", registry=REGISTRY)
SCRAPE_FAILURES = Counter(
    "filmgate_scrape_failures",
    "Scrapes without jobs and queue ages (Postgres unavailable).",
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class Levels:
    """Gauges read at each scrape: jobs by state, and seconds overdue by lane (0 when nothing is due)."""

    jobs: Mapping[str, int]
    queue_age: Mapping[str, float]


async def scrape(accept: str | None, measure: Callable[[], Awaitable[Levels]]) -> tuple[bytes, str]:
    """All metrics, with gauges collected by ``measure``: (body, content type).

    If ``measure`` fails, its gauges are omitted rather than reported with old values.
    """
    try:
        levels = await measure()
    except Exception:  # the counters must stay readable
        log.warning("gauges not collected", exc_info=True)
        SCRAPE_FAILURES.inc()
        levels = Levels(jobs={}, queue_age={})
    TASKS.set(len(asyncio.all_tasks()))
    _fill(JOBS, levels.jobs)
    _fill(QUEUE_AGE_SECONDS, levels.queue_age)
    return render(accept)


def render(accept: str | None) -> tuple[bytes, str]:
    """All metrics in the format that the scraper accepts (Prometheus text or OpenMetrics): (body, content type)."""
    encoder, content_type = choose_encoder(accept or "")
    return encoder(REGISTRY), content_type


def _fill(gauge: Gauge, values: Mapping[str, float]) -> None:
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)
