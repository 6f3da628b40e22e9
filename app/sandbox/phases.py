"""The phases of a remote job; each dialect has its own words for them."""

from enum import StrEnum


class Phase(StrEnum):
    """The phase of a remote job."""

    THROTTLED = "throttled"
    WAITING = "waiting"
    RENDERING = "rendering"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        return self in {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELED}
