"""Describes machine, versions and conditions of a run for its report."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.resource_meter import tree_cpu
from benchmarks.session import Options

ROOT = Path(__file__).parents[1]
#: Maximum share of the machine used by other processes in a run whose rates and latencies can be quoted.
QUIET = 0.05
DISTURBED = (
    "Other processes used this machine during the run: do not quote rates, latencies, ratios of rates or targets "
    "reached. CPU per operation is less affected."
)
PACKAGES = ("fastapi", "starlette", "pydantic", "sqlalchemy", "asyncpg", "uvicorn", "uvloop", "aiohttp", "arq")


class Watch:
    """Measures the CPU use of other processes on this machine during the run."""

    def __init__(self) -> None:
        self._before = self._read()

    def others(self) -> float:
        """Approximate share of the machine used by processes outside this run."""
        machine, ours, idle = (now - then for now, then in zip(self._read(), self._before, strict=True))
        return max(0.0, machine - ours) / (machine + idle)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system
        return busy, tree_cpu(psutil.Process()), times.idle + times.iowait


def preface(options: Options, others: float, figures: Sequence[str]) -> str:
    """The machine, the versions, the commit and the method."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    dirty = " with uncommitted changes" if _git("status", "--porcelain", "app", "migrations") else ""
    commit = f"commit {_git('rev-parse', '--short', 'HEAD')}{dirty}"
    code = commit if options.code.root == ROOT else f"the code in {options.code.root.name} (harness: {commit})"
    shared = f"**{DISTURBED}**\n\n" if others > QUIET else ""
    command = "make bench" if len(figures) > 8 else f"python -m benchmarks --only {','.join(figures)}"
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{shared}{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {code}. "
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}, {packages}. Postgres, Valkey, API, worker, upstream and load generator "
        f"share the machine; other processes used {others:.0%} of its CPU during the run. `{command}`.\n\n"
        f"Median of {options.rounds} interleaved windows of {options.seconds:g} s after a warm-up; the spread is half "
        "of (highest − lowest) / median. A window with a failed request ends the run. CPU is user and system time as "
        "counted by the kernel; Postgres includes all its processes. Compare only figures of the same run."
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
