"""What callers send to order a film."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_METADATA = 16
MAX_DEPTH = 16
MAX_FALLBACKS = 4
MAX_SECONDS = 86_400
MAX_DEADLINE = 31_536_000
Priority = Literal["low", "normal", "high"]
#: What ``jobs.priority`` holds.
PRIORITIES: Mapping[int, Priority] = {-1: "low", 0: "normal", 1: "high"}
Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold half of a surrogate pair") from None
    return value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return value
    raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        for name in value:
            _storable(name)
        return value.values()
    return value if isinstance(value, list) else ()


#: Text that the database can hold.
Text = Annotated[str, AfterValidator(_storable)]
Fallback = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
MetadataKey = Annotated[Text, StringConstraints(min_length=1, max_length=40)]
MetadataValue = Annotated[Text, StringConstraints(max_length=500)]


class NewJob(BaseModel):
    """An order for one film."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "sandbox/film",
                    "prompt": "a purple elephant dancing on a blue beach ball",
                    "seconds": 4,
                    "size": "1280x720",
                    "webhook_url": "https://example.com/films/done",
                    "metadata": {"order": "1234"},
                }
            ]
        },
    )

    prompt: Text = Field(min_length=1, max_length=32_000, description="What the film shows.")
    model: Text = Field(
        min_length=1, max_length=200, description="A model of `GET /v1/models`, or an alias of this gateway."
    )
    seconds: int | None = Field(
        default=None, ge=1, le=MAX_SECONDS, description="Length of the film; the model's default otherwise."
    )
    size: Size | None = Field(default=None, description="`WIDTHxHEIGHT` in pixels; the model's default otherwise.")
    aspect_ratio: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,2}:[0-9]{1,2}$",
        description="Instead of `size`: such as `16:9`.",
    )
    resolution: str | None = Field(
        default=None,
        pattern=r"^([0-9]{3,4}p|[248]k)$",
        description="With `aspect_ratio`: the shorter side, such as `720p`.",
    )
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    negative_prompt: Text | None = Field(default=None, max_length=4000, description="What the film must not show.")
    audio: bool | None = Field(default=None, description="Whether the film has sound, where the model lets one choose.")
    provider_options: Annotated[dict[str, Any], AfterValidator(_shallow)] = Field(
        default_factory=dict, description="Vendor-only settings, passed through as they are; each model lists its own."
    )
    mode: Literal["strict", "adjust"] = Field(
        default="strict",
        description="`strict` refuses what the model cannot do; `adjust` takes the nearest and lists `adjustments`.",
    )
    max_cost: Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=6)] | None = Field(
        default=None,
        description=(
            "In USD, of all purchases for this job together. The job is refused when its price is higher, or not known."
        ),
    )
    fallbacks: list[Fallback] = Field(
        default_factory=list,
        max_length=MAX_FALLBACKS,
        description=(
            "Other models, best first, for when a provider says no for good or cannot be reached: the job goes on "
            "under the same id. Each must be able to make this film; `provider_options` are not for them. A film that "
            "was charged for is followed by another purchase only within `max_cost`."
        ),
    )
    fallback_on_refusal: bool = Field(
        default=False,
        description="Whether the fallbacks are tried after a safety refusal too, and not only after a failure.",
    )
    priority: Priority = Field(
        default="normal", description="Among the waiting jobs of your account; other accounts are not affected."
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=10,
        le=MAX_DEADLINE,
        description="How long the job may take from now on; the gateway's default otherwise.",
    )
    webhook_url: Text | None = Field(
        default=None, max_length=2048, description="Where the signed event goes when the job has ended."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] = Field(
        default_factory=dict, description="Yours: up to 16 pairs, returned with the job and in its webhook."
    )

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value
