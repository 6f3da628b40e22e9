"""Response models of the model catalogue."""

from datetime import date
from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.providers.registry import Offer
from app.web.schema_types import Int32


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
