"""Counts how often each bracket has been applied.

A count is per dialect and prompt, or per remote job. It lasts until the process ends or the ledger is cleared.
"""

from collections import Counter
from enum import StrEnum

from app.sandbox.script import Refusal, Script


class Reading(StrEnum):
    """The result of one status read."""

    STRAIGHT = "straight"
    UNAVAILABLE = "unavailable"
    MISSING = "missing"
    ODD_STATUS = "odd_status"


class Counts:
    """The counts of one sandbox."""

    def __init__(self) -> None:
        self._used: Counter[tuple[str, ...]] = Counter()

    def forget(self) -> None:
        self._used.clear()

    def refusal(self, dialect: str, prompt: str, script: Script) -> Refusal | None:
        """Why this create is refused; None if it is not."""
        if self._take(dialect, prompt, script, "500"):
            return Refusal.SERVER_ERROR
        if self._take(dialect, prompt, script, "429"):
            return Refusal.RATE_LIMIT
        return script.refusal

    def loses_reply(self, dialect: str, prompt: str, script: Script, reference: str | None) -> bool:
        """Whether the reply to this accepted create is lost: once per prompt and reference."""
        return script.has("lose-reply") and self._once(dialect, prompt, "lose-reply", reference or "")

    def loses_job(self, dialect: str, prompt: str, script: Script) -> bool:
        """Whether the server loses this job after its first status read; true for the first job with the prompt."""
        return script.has("forget") and self._once(dialect, prompt, "forget")

    def reading(self, dialect: str, prompt: str, script: Script) -> Reading:
        """The result of this status read."""
        if not script.asked:
            return Reading.STRAIGHT
        if self._take(dialect, prompt, script, "flaky"):
            return Reading.UNAVAILABLE
        if self._take(dialect, prompt, script, "gone"):
            return Reading.MISSING
        if self._take(dialect, prompt, script, "odd-status"):
            return Reading.ODD_STATUS
        return Reading.STRAIGHT

    def downloads_elsewhere(self, remote_id: str, script: Script) -> bool:
        """Whether this download of a finished video finds no file."""
        return self._take("", remote_id, script, "elsewhere")

    def reaches_home(self, remote_id: str, script: Script, kind: str) -> bool:
        """Whether this request reaches the replica that has the job: the first of every n, for ``[replicas:n]``."""
        if not script.has("replicas"):
            return True
        key = (remote_id, "replicas", kind)
        self._used[key] += 1
        return (self._used[key] - 1) % max(1, int(script.number("replicas"))) == 0

    def _take(self, dialect: str, prompt: str, script: Script, name: str) -> bool:
        return script.has(name) and self._once(dialect, prompt, name, limit=script.number(name))

    def _once(self, *key: str, limit: float = 1) -> bool:
        if self._used[key] >= limit:
            return False
        self._used[key] += 1
        return True
