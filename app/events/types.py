"""The types of the events in the log."""

from enum import StrEnum


class EventType(StrEnum):
    """The types of the events of a job. The data of each is that of `JobEvent`."""

    PREPARING = "job.preparing"
    QUEUED = "job.queued"
    SUBMITTING = "job.submitting"
    CONFIRMING = "job.confirming"
    STARTED = "job.started"
    STORING = "job.storing"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"
    PROGRESS = "job.progress"
    WAITING = "job.waiting"
    CANCEL_REQUESTED = "job.cancel_requested"
    CANCEL_ANSWERED = "job.cancel_answered"
    COST_CHANGED = "job.cost_changed"
    VIDEO_LATE = "job.video_late"

    @classmethod
    def _missing_(cls, value: object) -> "EventType | None":
        # The name in events stored by version 0.1.
        return cls.VIDEO_LATE if value == "job.film_late" else None


#: What each event means, for the OpenAPI document.
OCCASIONS: dict[EventType, str] = {
    EventType.PREPARING: "The job was created; its inputs are being prepared.",
    EventType.QUEUED: "The job is queued: it was created or prepared, or queued again after a failed submission.",
    EventType.SUBMITTING: "The job is being submitted to a provider.",
    EventType.CONFIRMING: "The provider's reply was lost; the gateway checks whether the job was accepted.",
    EventType.STARTED: "A provider accepted the job and is rendering it.",
    EventType.STORING: "The render is finished; the video is being copied to the gateway's storage.",
    EventType.SUCCEEDED: "The job succeeded; its video is stored.",
    EventType.FAILED: "The job failed; `error` has the reason.",
    EventType.CANCELED: "The job was canceled.",
    EventType.PROGRESS: "The provider reported progress.",
    EventType.WAITING: "The job is waiting; `notice` has the reason.",
    EventType.CANCEL_REQUESTED: "A cancel was requested.",
    EventType.CANCEL_ANSWERED: "The provider replied to the cancel; see `cancel.outcome`.",
    EventType.COST_CHANGED: "The provider reported a charge, or none, after the job had ended.",
    EventType.VIDEO_LATE: "The video of a job that had failed arrived later and is stored.",
}

#: The event of a transition into a state.
