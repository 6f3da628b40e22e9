"""One order from its request to its last event, as the examples of the OpenAPI document.

Made of the same classes as the responses: an example cannot have a field that a response lacks.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

from app.assets.records import Kind
from app.assets.schemas import Asset
from app.connection_settings import InputRole, InputSettings
from app.events.types import EventType
from app.files.schemas import File
from app.jobs.api.requests import JobRequest
from app.jobs.api.schemas import JobView, SubmissionView
from app.jobs.errors import TIMEOUT
from app.jobs.payloads import Cancel, Cost, JobAssets, JobError, JobEvent, JobEventData
from app.jobs.states import ChargeCertainty, Phase, Status, SubmissionState
from app.media.info import FileKind
from app.providers.schemas import AcceptedInput, ModelList, ModelView
from app.readiness import Check, Health, Readiness
from app.web.pagination import Page
from app.webhooks.schemas import Attempt, Delivery, WebhookSecret

JOB_ID: Final = "job_01h455vb4pex5vsknk084sn02q"
VIDEO_ID: Final = "ast_01h455w2zye3rb0c8y2h6v3k9n"
POSTER_ID: Final = "ast_01h455w2zye3rb0c8y2h6v3k9p"
_CREATED: Final = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
_PROMPT: Final = "a purple elephant dancing on a blue beach ball"
_METADATA: Final = {"order": "1042"}


def _after(seconds: float) -> datetime:
    return _CREATED + timedelta(seconds=seconds)


def _asset(asset_id: str, kind: Kind, content_type: str, size_bytes: int, **fields: Any) -> Asset:
    return Asset(
        id=asset_id,
        job_id=JOB_ID,
        kind=kind,
        content_type=content_type,
        size_bytes=size_bytes,
        width=1280,
        height=720,
        deviations=[],
        created_at=_after(31),
        expires_at=_after(31 + 30 * 86_400),
        content_url=f"https://filmgate.example/v1/assets/{asset_id}/content",
        **fields,
    )


_VIDEO: Final = _asset(
    VIDEO_ID,
    Kind.VIDEO,
    "video/mp4",
    1_482_311,
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    codec="h264",
    seconds=4.0,
    frame_rate=24.0,
    has_audio=False,
)
_POSTER: Final = _asset(
    POSTER_ID,
    Kind.POSTER,
    "image/jpeg",
    48_120,
    sha256="60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    codec="mjpeg",
    seconds=None,
    frame_rate=None,
    has_audio=False,
)
_ASSETS: Final = JobAssets(video=_VIDEO, poster=_POSTER)
_FREE: Final = Cost(estimated="0.04", charged=None, certainty=ChargeCertainty.NONE)
_CHARGED: Final = Cost(estimated="0.04", charged="0.04", certainty=ChargeCertainty.CERTAIN)
_TIMED_OUT: Final = JobError(**TIMEOUT)

#: What is posted: the least, and a job that may go elsewhere and reports its end.
_ORDERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "short": {"model": "sandbox/video", "prompt": _PROMPT},
    "full": {
        "model": "sandbox/video",
        "prompt": _PROMPT,
        "seconds": 4,
        "size": "1280x720",
        "fallbacks": ["sandbox/short"],
        "max_cost": "1.00",
        "webhook_url": "https://shop.example/videos/done",
        "metadata": _METADATA,
    },
    "from a picture": {
        "model": "sandbox/video",
        "prompt": "the fox turns its head and looks at us",
        "inputs": [{"role": "first_frame", "file_id": "file_01h455vb4pex5vsknk084sn02q"}],
    },
}
#: By operation: its bodies, each with a title.
REQUESTS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "create_job": _ORDERS,
    "create_job_again": {"another take": {}, "a variation": {"prompt": "the same at night", "seed": 7}},
}


def _job(**fields: Any) -> JobView:
    request = JobRequest.model_validate(_ORDERS["short"])
    values: dict[str, Any] = {
        "id": JOB_ID,
        "status": Status.QUEUED,
        "phase": Phase.WAITING,
        "progress": 0,
        "notice": None,
        "queue": None,
        "estimated_finish_at": None,
        "priority": request.priority,
        "parent_id": None,
        "model": request.model,
        "model_used": None,
        "fallbacks": [],
        "fallback_on_refusal": False,
        "max_cost": None,
        "prompt": request.prompt,
        "seconds": 4,
        "size": "1280x720",
        "seed": None,
        "negative_prompt": None,
        "audio": None,
        "inputs": [],
        "provider_options": {},
        "adjustments": [],
        "cost": _FREE,
        "error": None,
        "cancel": None,
        "assets": None,
        "webhook_url": None,
        "metadata": _METADATA,
        "version": 1,
        "created_at": _CREATED,
        "deadline_at": _after(3600),
        "started_at": None,
        "finished_at": None,
    }
    return JobView(**{**values, **fields})


_QUEUED: Final = _job()
_AGAIN: Final = _job(id="job_01h455vc8wf8ytq1zrvm2skx5e", parent_id=JOB_ID)
_SUCCEEDED: Final = _job(
    status=Status.SUCCEEDED,
    phase=None,
    progress=100,
    estimated_finish_at=None,
    model_used="sandbox/video",
    cost=_CHARGED,
    assets=_ASSETS,
    version=6,
    started_at=_after(1),
    finished_at=_after(31),
)
_CANCELED: Final = _job(
    status=Status.CANCELED,
    phase=None,
    estimated_finish_at=None,
    cancel=Cancel(requested_at=_after(2), outcome="confirmed"),
    version=2,
    finished_at=_after(2),
)

_SUBMISSION: Final = SubmissionView(
    id="sub_01h455vc1aez8r7k5t9w2n4x6y",
    number=1,
    connection="sandbox",
    model="sandbox/video",
    upstream_model="video",
    state=SubmissionState.DONE,
    remote_id="render-7f3a",
    estimated_cost="0.04",
    cost_limit=None,
    cost="0.04",
    certainty=ChargeCertainty.CERTAIN,
    late=False,
    error=None,
    created_at=_after(0.5),
    send_deadline=_after(30.5),
    accepted_at=_after(1),
    ended_at=_after(31),
)
_DELIVERY: Final = Delivery(
    id="whd_01h455w30bf1h8m2q6s4u7v9wa",
    event_id="evt_01h455w2zzfe5a9d3g7j1k4m8p",
    event_type=EventType.SUCCEEDED.value,
    url="https://shop.example/videos/done",
    state="delivered",
    next_attempt_at=None,
    created_at=_after(31),
    ended_at=_after(31.2),
    attempts=[
        Attempt(number=1, started_at=_after(31.1), duration_ms=84, status_code=204, error=None, reply=None),
    ],
)
_MODEL: Final = ModelView(
    name="sandbox/video",
    provider="openai_compatible",
    description="Draws the prompt; costs nothing.",
    available=True,
    connections=["sandbox"],
    seconds=[*range(1, 13)],
    default_seconds=4,
    sizes=["1280x720", "720x1280"],
    default_size="1280x720",
    prompt_chars=4000,
    seed=False,
    negative_prompt=False,
    audio="none",
    inputs=[AcceptedInput.of(InputRole.FIRST_FRAME, InputSettings())],
    needs_input=False,
    provider_options=[],
    usd_per_second="0.01",
    typical_seconds=30,
    sunset=None,
)

_FILE: Final = File(
    id="file_01h455vb4pex5vsknk084sn02q",
    kind=FileKind.IMAGE.value,
    name="photo.jpg",
    content_type="image/jpeg",
    size_bytes=482_113,
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    width=1280,
    height=720,
    seconds=None,
    frame_rate=None,
    has_audio=False,
    created_at=_CREATED,
    expires_at=_CREATED + timedelta(days=30),
    content_url="/v1/files/file_01h455vb4pex5vsknk084sn02q/content",
)

_UNDERWAY: Final = {"status": Status.RUNNING, "model_used": "sandbox/video"}
#: What the data of an event has beside that of a job that was just created.
_EVENT_DATA: Final[Mapping[EventType, Mapping[str, Any]]] = {
    EventType.PREPARING: {"phase": Phase.PREPARING},
    EventType.QUEUED: {},
    EventType.SUBMITTING: {"phase": Phase.SUBMITTING},
    EventType.CONFIRMING: {"phase": Phase.CONFIRMING, "notice": "The provider's reply was lost; checking."},
    EventType.STARTED: {**_UNDERWAY, "phase": Phase.RENDERING},
    EventType.STORING: {**_UNDERWAY, "phase": Phase.STORING, "progress": 100},
    EventType.SUCCEEDED: {
        **_UNDERWAY,
        "status": Status.SUCCEEDED,
        "phase": None,
        "progress": 100,
        "cost": _CHARGED,
        "assets": _ASSETS,
    },
    EventType.FAILED: {**_UNDERWAY, "status": Status.FAILED, "phase": None, "error": _TIMED_OUT},
    EventType.CANCELED: {
        "status": Status.CANCELED,
        "phase": None,
        "cancel": Cancel(requested_at=_after(2), outcome="confirmed"),
    },
    EventType.PROGRESS: {**_UNDERWAY, "phase": Phase.RENDERING, "progress": 40},
    EventType.WAITING: {"notice": "All connections for this model are busy."},
    EventType.CANCEL_REQUESTED: {
        **_UNDERWAY,
        "phase": Phase.RENDERING,
        "cancel": Cancel(requested_at=_after(2), outcome="requested"),
    },
    EventType.CANCEL_ANSWERED: {
        **_UNDERWAY,
        "phase": Phase.RENDERING,
        "cancel": Cancel(requested_at=_after(2), outcome="not_cancellable"),
    },
    EventType.COST_CHANGED: {
        **_UNDERWAY,
        "status": Status.FAILED,
        "phase": None,
        "error": _TIMED_OUT,
        "cost": _CHARGED,
    },
    EventType.VIDEO_LATE: {
        **_UNDERWAY,
        "status": Status.FAILED,
        "phase": None,
        "error": _TIMED_OUT,
        "cost": _CHARGED,
        "assets": _ASSETS,
    },
}


def event(event_type: EventType) -> dict[str, Any]:
    """The body of a webhook or of a server-sent event."""
    version = list(EventType).index(event_type) + 1
    first: dict[str, Any] = {name: getattr(_QUEUED, name) for name in JobEventData.model_fields}
    data = JobEventData(**{**first, "version": version, **_EVENT_DATA.get(event_type, {})})
    return _shown(JobEvent(type=event_type, timestamp=_after(31), data=data))


def _shown(example: BaseModel) -> dict[str, Any]:
    return example.model_dump(mode="json")


#: The JSON of successful responses, by operation.
RESPONSES: Final[Mapping[str, Any]] = {
    "create_job": _shown(_QUEUED),
    "create_job_again": _shown(_AGAIN),
    "list_jobs": _shown(Page[JobView](data=[_SUCCEEDED], next_cursor=None, has_more=False)),
    "get_job": _shown(_SUCCEEDED),
    "cancel_job": _shown(_CANCELED),
    "list_job_submissions": [_shown(_SUBMISSION)],
    "list_job_deliveries": [_shown(_DELIVERY)],
    "get_asset": _shown(_VIDEO),
    "create_file": _shown(_FILE),
    "list_files": _shown(Page[File](data=[_FILE], next_cursor=None, has_more=False)),
    "get_file": _shown(_FILE),
    "list_models": _shown(ModelList(data=[_MODEL], aliases={"default": "sandbox/video"})),
    "get_webhook_secret": _shown(WebhookSecret(secret="whsec_ZXhhbXBsZS1leGFtcGxlLWV4YW1wbGU=")),
    "receive_callback": {"status": "noted"},
    "get_health": _shown(Health()),
    "get_readiness": _shown(
        Readiness(status="ready", checks={name: Check(ok=True) for name in ("postgres", "redis", "storage")})
    ),
    "get_metrics": '# TYPE filmgate_jobs gauge\nfilmgate_jobs{state="queued"} 3.0\n',
    "stream_job_events": event(EventType.QUEUED),
}
