"""The phases of a remote job, whatever its dialect calls them."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a remote job is."""

    THROTTLED = "throttled"
    WAITING = "waiting"
    RENDERING = "rendering"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        return self in {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELED}
