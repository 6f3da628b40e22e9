"""How often each bracket has had its effect.

A count is kept per dialect and prompt, or per remote job, for the life of the process or until the ledger is forgotten.
"""

from collections import Counter
from enum import StrEnum

from app.sandbox.script import Refusal, Script


class Reading(StrEnum):
    """What comes of one status read."""

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
        """Whether this create is turned down, and why."""
        if self._take(dialect, prompt, script, "500"):
            return Refusal.SERVER_ERROR
        if self._take(dialect, prompt, script, "429"):
            return Refusal.RATE_LIMIT
        return script.refusal

    def loses_reply(self, dialect: str, prompt: str, script: Script, reference: str | None) -> bool:
        """Whether the reply to this accepted create is lost: once per prompt and reference."""
        return script.has("lose-reply") and self._once(dialect, prompt, "lose-reply", reference or "")

    def dooms(self, dialect: str, prompt: str, script: Script) -> bool:
        """Whether the job of this accepted create is lost after its first status read: the first one of its prompt."""
        return script.has("forget") and self._once(dialect, prompt, "forget")

    def reading(self, dialect: str, prompt: str, script: Script) -> Reading:
        """What comes of this status read."""
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
        """Whether this request of a kind reaches the replica that has the job: the first of every ``[replicas:n]``."""
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
