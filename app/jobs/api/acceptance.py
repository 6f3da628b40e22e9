"""Checks a request against the catalogue and the settings. Writes nothing."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.errors import FieldError, InvalidRequest
from app.ids import new_id
from app.jobs.api.requests import PRIORITIES, JobRequest
from app.jobs.payloads import money
from app.jobs.records import AcceptedRequest
from app.providers.catalog import Model
from app.providers.inputs import JobInput
from app.providers.job_spec import JobSpec
from app.providers.registry import Registry
from app.settings import JobSettings
from app.webhooks.service import WebhookService

_NUMBERS = {name: number for number, name in PRIORITIES.items()}


class Acceptance:
    """Accepts or refuses job requests."""

    def __init__(self, registry: Registry, webhooks: WebhookService, settings: JobSettings) -> None:
        self._registry = registry
        self._catalog = registry.catalog
        self._webhooks = webhooks
        self._settings = settings

    def accept(
        self,
        account_id: UUID,
        request: JobRequest,
        inputs: tuple[JobInput, ...],
        *,
        parent_id: UUID | None,
        key: str | None,
        body_hash: bytes | None,
    ) -> AcceptedRequest:
        """Resolve a request to the values its job is inserted with. ``inputs`` are its inputs, resolved.

        Raises:
            InvalidRequest: the request does not fit the model, or names an unusable URL, deadline or cost.
        """
        spec = self._resolve(request, inputs, self._catalog.resolve(request.model), request.provider_options)
        if request.webhook_url is not None:
            self._webhooks.check_url(request.webhook_url)
        fallbacks = self._fallbacks(request, inputs, spec)
        served = any(self._registry.connections_of(one.model) for one in (spec, *fallbacks))
        return AcceptedRequest(
            id=new_id(),
            account_id=account_id,
            parent_id=parent_id,
            spec=spec,
            fallbacks=tuple(fallbacks),
            fallback_on_refusal=request.fallback_on_refusal,
            max_cost=request.max_cost,
            priority=_NUMBERS[request.priority],
            metadata=request.metadata,
            webhook_url=request.webhook_url,
            notice=None if served else f"No configured connection serves {spec.model} now.",
            deadline_seconds=self._deadline(request.deadline_seconds),
            key=key,
            body_hash=body_hash,
        )

    def _resolve(
        self, request: JobRequest, inputs: tuple[JobInput, ...], model: Model, options: Mapping[str, Any]
    ) -> JobSpec:
        spec = model.check(
            prompt=request.prompt,
            seconds=request.seconds,
            size=request.size,
            aspect_ratio=request.aspect_ratio,
            resolution=request.resolution,
            seed=request.seed,
            negative_prompt=request.negative_prompt,
            audio=request.audio,
            options=options,
            inputs=inputs,
            mode=request.mode,
        )
        if inputs:
            self._check_ways(model)
        _check_cost(request.max_cost, spec.estimated_cost, model)
        return spec

    def _check_ways(self, model: Model) -> None:
        """Refuse inputs that no connection of the model could be given."""
        connections = self._registry.connections_of(model.name)
        if connections and not any(self._registry.takes_inputs(name) for name in connections):
            message = f"cannot be sent: {model.name} fetches them, and this gateway has no `api.public_url`"
            raise InvalidRequest(f"`inputs` {message}.", [FieldError("inputs", "unsupported", message)])

    def _fallbacks(self, request: JobRequest, inputs: tuple[JobInput, ...], first: JobSpec) -> list[JobSpec]:
        specs: list[JobSpec] = []
        for index, name in enumerate(request.fallbacks):
            field = f"fallbacks[{index}]"
            try:
                model = self._catalog.resolve(name)
                specs.append(self._resolve(request, inputs, model, {}))
            except InvalidRequest as error:
                faults = [FieldError(_inside(field, fault.field), fault.code, fault.message) for fault in error.fields]
                raise type(error)(f"`{field}`, {name}: {error.message}", faults) from None
            if model.name in [first.model, *(spec.model for spec in specs[:-1])]:
                message = f"repeats {model.name}; name each model once"
                raise InvalidRequest(f"`{field}` {message}.", [FieldError(field, "repeated", message)])
        return specs

    def _deadline(self, requested: int | None) -> float:
        longest = self._settings.max_deadline
        if requested is not None and requested > longest:
            message = f"must be {longest:.0f} or less"
            raise InvalidRequest(
                f"`deadline_seconds` {message}.", [FieldError("deadline_seconds", "too_long", message)]
            )
        return requested if requested is not None else self._settings.default_deadline


def _inside(fallback: str, field: str) -> str:
    """The field of a request as it applies to one of its fallbacks."""
    return fallback if field == "model" else f"{fallback}.{field}"


def _check_cost(limit: Decimal | None, estimated: Decimal | None, model: Model) -> None:
    if limit is None:
        return
    if estimated is None:
        message = f"cannot be checked: the price of {model.name} is unknown"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "price_unknown", message)])
    if estimated > limit:
        message = f"is less than the price of this video, {money(estimated)} USD"
        raise InvalidRequest(f"`max_cost` {message}.", [FieldError("max_cost", "too_expensive", message)])
