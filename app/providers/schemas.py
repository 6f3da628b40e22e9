"""Models as callers see them."""

from datetime import date
from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.providers.registry import Offer


class ModelView(BaseModel):
    """What can be asked of one model, and what it costs."""

    name: str = Field(description="What to send as `model`.", examples=["runway/gen4.5"])
    provider: str
    description: str
    available: bool = Field(description="Whether a configured connection serves it and it is not retired.")
    connections: list[str] = Field(description="Which upstream accounts serve it, in the order they are tried.")
    seconds: list[int] = Field(description="Lengths that can be ordered.")
    default_seconds: int
    sizes: list[str] = Field(description="`WIDTHxHEIGHT` in pixels.")
    default_size: str
    prompt_chars: int = Field(description="The longest prompt.")
    seed: bool
    negative_prompt: bool
    audio: Literal["none", "optional", "always"]
    provider_options: list[str] = Field(description="What may be passed through in `provider_options`.")
    usd_per_second: str | dict[str, str] | None = Field(
        description="The price, or one for each size; null when it is not known."
    )
    typical_seconds: float = Field(description="How long a render usually takes.")
    sunset: date | None = Field(description="The last day on which it is offered.")

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
    """All models of the catalogue, and this gateway's other names for them."""

    data: list[ModelView]
    aliases: dict[str, str] = Field(description="Short names: each can be sent as `model` too.")


def _price(rate: Decimal | dict[str, Decimal] | None) -> str | dict[str, str] | None:
    if isinstance(rate, dict):
        return {size: str(price) for size, price in rate.items()}
    return None if rate is None else str(rate)
