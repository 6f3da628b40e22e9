"""From what a caller sent to a draft of a job: checked against the catalogue and the settings, with nothing written."""

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.errors import FieldError, InvalidRequest
from app.ids import new_id
from app.jobs.api.requests import PRIORITIES, NewJob
from app.jobs.payloads import money
from app.jobs.records import Choice, Draft, Ordered
from app.providers.catalog import Model
from app.providers.fitting import Fitted
from app.providers.registry import Registry
from app.settings import JobSettings
from app.webhooks.service import WebhookService

_NUMBERS = {name: number for number, name in PRIORITIES.items()}


class Acceptance:
    """Says yes or no to an order."""

    def __init__(self, registry: Registry, webhooks: WebhookService, settings: JobSettings) -> None:
        self._registry = registry
        self._catalog = registry.catalog
        self._webhooks = webhooks
        self._settings = settings

    def draft(self, account_id: UUID, new: NewJob, key: str | None, body_hash: bytes | None) -> Draft:
        """What to write down.

        Raises:
            InvalidRequest: the order does not fit the model, or names an unusable URL, deadline or cost.
        """
        chosen = self._choose(new, self._catalog.resolve(new.model), new.provider_options)
        if new.webhook_url is not None:
            self._webhooks.check_url(new.webhook_url)
        fallbacks = self._fallbacks(new, chosen)
        served = any(self._registry.connections_of(choice.model) for choice in (chosen, *fallbacks))
        return Draft(
            id=new_id(),
            account_id=account_id,
            chosen=chosen,
            fallbacks=tuple(fallbacks),
            fallback_on_refusal=new.fallback_on_refusal,
            max_cost=new.max_cost,
            priority=_NUMBERS[new.priority],
            metadata=new.metadata,
            webhook_url=new.webhook_url,
            notice=None if served else f"No configured connection serves {chosen.model} now.",
            deadline_seconds=self._deadline(new.deadline_seconds),
            key=key,
            body_hash=body_hash,
        )

    def _choose(self, new: NewJob, model: Model, options: Mapping[str, Any]) -> Choice:
        fitted = model.check(
            prompt=new.prompt,
            seconds=new.seconds,
            size=new.size,
            aspect_ratio=new.aspect_ratio,
            resolution=new.resolution,
            seed=new.seed,
            negative_prompt=new.negative_prompt,
            audio=new.audio,
            options=options,
            mode=new.mode,
        )
        estimated = model.price(fitted.seconds, fitted.size)
        _check_cost(new.max_cost, estimated, model)
        adjustments = [asdict(adjustment) for adjustment in fitted.adjustments]
        return Choice(model.name, _ordered(new.prompt, fitted), estimated, adjustments)

    def _fallbacks(self, new: NewJob, chosen: Choice) -> list[Choice]:
        choices: list[Choice] = []
        for place, name in enumerate(new.fallbacks):
            field = f"fallbacks[{place}]"
            try:
                model = self._catalog.resolve(name)
                choices.append(self._choose(new, model, {}))
            except InvalidRequest as error:
                faults = [FieldError(_inside(field, fault.field), fault.code, fault.message) for fault in error.fields]
                raise type(error)(f"`{field}`, {name}: {error.message}", faults) from None
            if model.name in [chosen.model, *(choice.model for choice in choices[:-1])]:
                message = f"is {model.name} once more; name each model once"
                raise InvalidRequest(f"`{field}` {message}.", [FieldError(field, "repeated", message)])
        return choices

    def _deadline(self, asked: int | None) -> float:
        longest = self._settings.max_deadline
        if asked is not None and asked > longest:
            message = f"must be {longest:.0f} or less"
            raise InvalidRequest(
                f"`deadline_seconds` {message}.", [FieldError("deadline_seconds", "too_long", message)]
            )
        return asked if asked is not None else self._settings.default_deadline


def _inside(place: str, field: str) -> str:
    """The field of an order as it applies to one of its fallbacks."""
    return place if field == "model" else f"{place}.{field}"


def _check_cost(limit: Decimal | None, estimated: Decimal | None, model: Model) -> None:
    if limit is None:
        return
    if estimated is None:
        message = f"cannot be kept: the price of {model.name} is not known"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "price_unknown", message)])
    if estimated > limit:
        message = f"is less than the price of this film, {money(estimated)} USD"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "too_expensive", message)])


def _ordered(prompt: str, fitted: Fitted) -> Ordered:
    return Ordered(
        prompt=prompt,
        seconds=fitted.seconds,
        width=fitted.width,
        height=fitted.height,
        seed=fitted.seed,
        negative_prompt=fitted.negative_prompt,
        audio=fitted.audio,
        options=fitted.options,
    )
