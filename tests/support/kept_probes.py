"""Probe subprocesses that outlive the gateway of one test: to start one costs more CPU than most tests."""

from collections import defaultdict
from typing import Any, ClassVar

from app.media.decode_budget import CPU_SECONDS
from app.media.probe_pool import ProbePool


class KeptProbes(ProbePool):
    """Leaves its idle subprocesses to the next pool of this test process; they end with it."""

    _kept: ClassVar[dict[float, list[Any]]] = defaultdict(list)  # by the CPU seconds that they allow

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS) -> None:
        super().__init__(cpu_seconds=cpu_seconds)
        self._idle = self._kept[cpu_seconds]

    def close(self) -> None:
        """Nothing: the next pool has use for them."""
