"""Response models of the model catalogue."""

from datetime import date
from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.connection_settings import InputRole, InputSettings
from app.media.info import FileFormat
from app.providers.registry import Offer
from app.web.schema_types import Int32, Int64


class AcceptedInput(BaseModel):
    """The inputs that a model takes in one role."""

    model_config = ConfigDict(title="ModelInput")

    role: str = Field(
        description="New roles may be added.",
        json_schema_extra={"x-extensible-enum": [known.value for known in InputRole]},
        examples=["first_frame"],
    )
    most: Int32 = Field(description="How many inputs may have this role.")
    content_types: list[str] = Field(examples=[["image/jpeg", "image/png", "image/webp"]])
    max_bytes: Int64
    min_side: Int32 = Field(description="The least pixels on a side.")
    narrowest: float | None = Field(description="The least ratio of width to height; null without a limit.")
    widest: float | None = Field(description="The largest ratio of width to height; null without a limit.")
    same_size: bool = Field(description="Whether it must have the size of the video.")
    needs: list[str] = Field(description="Roles that must be there, too.")
    excludes: list[str] = Field(description="Roles that must not be there.")

    @classmethod
    def of(cls, role: InputRole, settings: InputSettings) -> Self:
        return cls(
            role=role.value,
            most=settings.most,
            content_types=[FileFormat(name).content_type for name in settings.formats],
            max_bytes=settings.max_bytes,
            min_side=settings.min_side,
            narrowest=settings.narrowest,
            widest=settings.widest,
            same_size=settings.same_size,
            needs=[other.value for other in settings.needs],
            excludes=[other.value for other in settings.excludes],
        )


class ModelView(BaseModel):
    """The options and the price of one model."""

    name: str = Field(description="The value of `model` in a request.", examples=["runway/gen4.5"])
    provider: str
    description: str
    available: bool = Field(description="Whether a configured connection serves the model and it is not retired.")
    connections: list[str] = Field(
        description="The upstream accounts that serve the model, in the order in which they are tried."
    )
    seconds: list[Int32] = Field(description="The supported video lengths in seconds.")
    default_seconds: Int32
    sizes: list[str] = Field(description="The supported sizes, `WIDTHxHEIGHT` in pixels.")
    default_size: str
    prompt_chars: Int32 = Field(description="The maximum length of the prompt in characters.")
    seed: bool
    negative_prompt: bool
    audio: Literal["none", "optional", "always"]
    inputs: list[AcceptedInput] = Field(description="The inputs that it takes, by role; empty if it takes none.")
    needs_input: bool = Field(description="Whether it makes no video from a prompt alone.")
    provider_options: list[str] = Field(description="The names that `provider_options` may contain.")
    usd_per_second: str | dict[str, str] | None = Field(
        description="The price in USD per second, or one per size; null if unknown."
    )
    typical_seconds: float = Field(description="The typical render time in seconds.")
    sunset: date | None = Field(description="The last day (UTC) on which the model is offered.")

    @classmethod
    def of(cls, offer: Offer) -> Self:
        facts = offer.model.facts
        return cls(
            name=offer.model.name,
            provider=facts.provider,
            description=facts.description,
            available=offer.available,
            connections=list(offer.connections),
            seconds=list(facts.seconds),
            default_seconds=facts.default_seconds,
            sizes=list(facts.sizes),
            default_size=facts.default_size,
            prompt_chars=facts.prompt_chars,
            seed=facts.seed,
            negative_prompt=facts.negative_prompt,
            audio=facts.audio,
            inputs=[AcceptedInput.of(role, settings) for role, settings in facts.inputs.items()],
            needs_input=facts.needs_input,
            provider_options=list(facts.options),
            usd_per_second=_price(facts.usd_per_second),
            typical_seconds=facts.typical_seconds,
            sunset=offer.model.sunset,
        )


class ModelList(BaseModel):
    """All models of the catalogue, and the aliases configured for them."""

    data: list[ModelView]
    aliases: dict[str, str] = Field(description="Aliases and their models: an alias can be sent as `model`.")


def _price(rate: Decimal | dict[str, Decimal] | None) -> str | dict[str, str] | None:
    if isinstance(rate, dict):
        return {size: str(price) for size, price in rate.items()}
    return None if rate is None else str(rate)
