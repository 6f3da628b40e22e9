"""One module per figure, each of which measures and returns its sections of the report."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from benchmarks.report import Section
from benchmarks.rows import (
    completion_lag,
    floods,
    growth,
    idle,
    large_files,
    latency,
    renders_in_flight,
    storm,
    throughput,
    webhooks,
    whole_jobs,
)
from benchmarks.session import Bench

Measure = Callable[[Bench], Awaitable[list[Section]]]

TOGETHER = ("ceilings", "rivals", "p1", "p2")
OPTIONAL = ("rivals",)
APART: dict[str, tuple[str, Measure]] = {
    "p3": ("P3: growth", growth.measure),
    "p4": ("P4: create to upstream", latency.measure),
    "p5": ("P5: upstream finished to webhook", completion_lag.measure),
    "p6": ("P6: jobs in flight", renders_in_flight.measure),
    "p7": ("P7: webhooks", webhooks.measure),
    "p8": ("P8: videos of 1 GB", large_files.measure),
    "p9": ("P9 and P10: idle, and start", idle.measure),
    "whole": ("Whole jobs", whole_jobs.measure),
    "storm": ("R17: a storm of clients", storm.measure),
    "floods": ("S9: one account's flood", floods.measure),
}
FIGURES = tuple(figure for figure in (*TOGETHER, *APART) if figure not in OPTIONAL)


def sections(figures: Sequence[str]) -> list[tuple[str, Measure]]:
    """The measurements for these figures in order, each with its title."""
    chosen: list[tuple[str, Measure]] = []
    if both := [figure for figure in TOGETHER if figure in figures]:
        chosen.append(("Creates and reads", partial(throughput.measure, figures=both)))
    return [*chosen, *(APART[figure] for figure in APART if figure in figures)]
