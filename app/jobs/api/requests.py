"""The request body of ``POST /v1/jobs``."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.providers.inputs import FrameUse, InputRole
from app.web.input_types import WHOLE, PositiveUsd

MAX_METADATA = 16
MAX_METADATA_NAME = 40
MAX_DEPTH = 16
MAX_FALLBACKS = 4
MAX_INPUTS = 16
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
MetadataKey = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_METADATA_NAME)]
MetadataValue = Annotated[Text, StringConstraints(max_length=500)]


class InputRequest(BaseModel):
    """A file that the video is made from."""

    model_config = ConfigDict(title="JobCreateInput", extra="forbid")

    # Open, as codes are: models of later versions take more.
    role: Text = Field(
        max_length=40,
        description="What it is for. `GET /v1/models` says which roles a model takes. New roles may be added.",
        json_schema_extra={"x-extensible-enum": [known.value for known in InputRole]},
        examples=["first_frame"],
    )
    file_id: str | None = Field(default=None, max_length=100, description="A file of `POST /v1/files`.")
    url: Text | None = Field(
        default=None,
        max_length=2048,
        description="A public `https` URL. It is fetched once, by the gateway, before anything is submitted.",
    )
    data_url: str | None = Field(
        default=None, description="A small file in base64: `data:image/png;base64,…`. Upload larger ones."
    )
    job_id: str | None = Field(
        default=None, max_length=100, description="A job of yours that has succeeded; see `use`."
    )
    use: Text | None = Field(
        default=None,
        max_length=40,
        description="What to take of its video: with the last frame, one video goes on where another ended.",
        json_schema_extra={"x-extensible-enum": [known.value for known in FrameUse]},
    )

    @field_validator("role")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in set(InputRole):
            raise ValueError(f"must be one of: {', '.join(InputRole)}")
        return value

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        if sum(source is not None for source in (self.file_id, self.url, self.data_url, self.job_id)) != 1:
            raise ValueError("must have exactly one of file_id, url, data_url and job_id")
        if (self.job_id is None) != (self.use is None):
            raise ValueError("must have both job_id and use, or neither")
        if self.use is not None and self.use not in set(FrameUse):
            raise ValueError(f"must have a use that is one of: {', '.join(FrameUse)}")
        return self


class JobOptions(BaseModel):
    """What a request may say beside the prompt and the model."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[StrictInt, Field(ge=1, le=MAX_SECONDS), WHOLE] | None = Field(
        default=None, description="Length of the video; default: the model's."
    )
    size: Size | None = Field(default=None, description="`WIDTHxHEIGHT` in pixels; default: the model's.")
    aspect_ratio: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,2}:[0-9]{1,2}$",
        description="Alternative to `size`, such as `16:9`.",
    )
    resolution: str | None = Field(
        default=None,
        pattern=r"^([0-9]{3,4}p|[248]k)$",
        description="The shorter side, such as `720p`; only with `aspect_ratio`.",
    )
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1), WHOLE] | None = None
    negative_prompt: Text | None = Field(default=None, max_length=4000, description="What the video must not show.")
    audio: StrictBool | None = Field(
        default=None, description="Whether the video has sound, for models where this is optional."
    )
    inputs: list[InputRequest] = Field(
        default_factory=list,
        max_length=MAX_INPUTS,
        description=(
            "Pictures that the video is made from, such as its first frame. Those that do not fit the model are "
            "rejected, or with `mode: adjust` cut, scaled or converted."
        ),
    )
    provider_options: Annotated[dict[str, Any], AfterValidator(_shallow)] = Field(
        default_factory=dict, description="Provider-specific options, passed through unchanged; models list theirs."
    )
    mode: Literal["strict", "adjust"] = Field(
        default="strict",
        description="`strict` rejects unsupported values; `adjust` uses the nearest ones and lists `adjustments`.",
    )
    max_cost: PositiveUsd | None = Field(
        default=None,
        description=(
            "Limit in USD for all submissions of this job together. A job whose price is higher or unknown is rejected."
        ),
    )
    fallbacks: list[Fallback] = Field(
        default_factory=list,
        max_length=MAX_FALLBACKS,
        description=(
            "Other models in order of preference, tried under the same job id when a provider rejects the job "
            "permanently or cannot be reached. Each must support this request; `provider_options` do not apply to "
            "them. After a charge, another submission is made only within `max_cost`."
        ),
    )
    fallback_on_refusal: StrictBool = Field(
        default=False,
        description="Whether to try the fallbacks after a safety refusal, too, and not only after a failure.",
    )
    priority: Priority = Field(
        default="normal", description="Order among the waiting jobs of your account; other accounts are not affected."
    )
    deadline_seconds: Annotated[StrictInt, Field(ge=10, le=MAX_DEADLINE), WHOLE] | None = Field(
        default=None,
        description="Maximum time from creation to the end of the job; default: the gateway's.",
    )
    webhook_url: Text | None = Field(
        default=None, max_length=2048, description="URL that receives a signed event when the job ends."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] = Field(
        default_factory=dict, description="Up to 16 pairs of your own data, returned with the job and in its webhook."
    )

    @field_validator("prompt", "negative_prompt", check_fields=False)
    @classmethod
    def _is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value


class JobRequest(JobOptions):
    """A request for one video."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "sandbox/video",
                    "prompt": "a purple elephant dancing on a blue beach ball",
                    "seconds": 4,
                    "size": "1280x720",
                    "webhook_url": "https://example.com/videos/done",
                    "metadata": {"order": "1234"},
                }
            ]
        },
    )

    prompt: Text = Field(min_length=1, max_length=32_000, description="What the video shows.")
    model: Text = Field(
        min_length=1, max_length=200, description="A model of `GET /v1/models` or an alias of this gateway."
    )
