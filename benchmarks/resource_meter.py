"""CPU and memory use of processes, as counted by the kernel."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds used so far, by part; ``machine`` is the sum of all processes of the machine."""

    at: float
    cpu: Mapping[str, float]
    machine: float

    def since(self, before: "Reading") -> "Used":
        return Used(
            self.at - before.at,
            {name: self.cpu[name] - before.cpu[name] for name in self.cpu},
            self.machine - before.machine,
        )


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds used in ``seconds``."""

    seconds: float
    cpu: Mapping[str, float]
    machine: float

    def share(self, name: str) -> float:
        """The share of one core."""
        return self.cpu[name] / self.seconds

    def each(self, count: int) -> dict[str, float]:
        """Milliseconds for each of ``count`` operations, by part."""
        return {name: seconds * 1000 / max(1, count) for name, seconds in self.cpu.items()}


class Meter:
    """Reads the CPU time of parts: groups of processes with all their children."""

    def __init__(self, parts: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._parts = parts

    def read(self) -> Reading:
        cpu = {name: sum(map(tree_cpu, processes)) for name, processes in self._parts.items()}
        times = psutil.cpu_times()
        return Reading(time.perf_counter(), cpu, times.user + times.system + times.nice + times.irq + times.softirq)


def tree_cpu(process: psutil.Process) -> float:
    """CPU seconds of a process, its running descendants and the children that it has reaped."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
            if one == process:
                total += times.children_user + times.children_system
    return total


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process in MB: resident, proportional (shared pages divided among their users) and unique."""

    rss: float
    pss: float
    uss: float

    @classmethod
    def of(cls, process: psutil.Process) -> "Memory":
        full = process.memory_full_info()
        return cls(full.rss / 2**20, full.pss / 2**20, full.uss / 2**20)
