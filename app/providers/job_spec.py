"""What a job asks of one model, after the request was checked and completed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self

from app.providers.inputs import JobInput, prepared
from app.providers.outcomes import ProviderRequest


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A request that a model can fulfil: every value is one that the model offers.

    ``seconds`` is the length of the video; ``width`` and ``height`` are pixels. ``estimated_cost`` is the catalogue's
    price in USD, None where it is not known. An adjustment is a mapping of ``field``, ``requested``, ``used`` and
    ``reason``.
    """

    model: str
    prompt: str
    seconds: int
    width: int
    height: int
    seed: int | None = None
    negative_prompt: str | None = None
    audio: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    estimated_cost: Decimal | None = None
    adjustments: Sequence[Mapping[str, Any]] = ()
    inputs: tuple[JobInput, ...] = ()

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    def provider_request(self, upstream_model: str) -> ProviderRequest:
        """The same in the terms of the provider port. ``upstream_model`` is the provider's name of the model."""
        return ProviderRequest(upstream_model, **self._video(), inputs=prepared(self.inputs))

    def stored(self) -> dict[str, Any]:
        """As JSON values: ``jobs.fallbacks`` holds a list of them."""
        cost = None if self.estimated_cost is None else str(self.estimated_cost)
        return {
            "model": self.model,
            "ordered": self.request(),
            "estimated_cost": cost,
            "adjustments": list(self.adjustments),
        }

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        """From :meth:`stored`."""
        cost = values["estimated_cost"]
        return cls(
            values["model"],
            **_video_of(values["ordered"]),
            estimated_cost=None if cost is None else Decimal(cost),
            adjustments=values["adjustments"],
        )

    @classmethod
    def of_columns(
        cls, model: str, request: Mapping[str, Any], estimated_cost: Decimal | None, adjustments: Sequence[Any]
    ) -> Self:
        """From the columns of ``jobs``; ``request`` is what :meth:`stored` calls ``ordered``."""
        return cls(model, **_video_of(request), estimated_cost=estimated_cost, adjustments=adjustments)

    def request(self) -> dict[str, Any]:
        """As JSON values: what ``jobs.request`` holds."""
        # Without inputs as before there were any: processes of the version before read it, too.
        inputs = {"inputs": [one.stored() for one in self.inputs]} if self.inputs else {}
        return {**self._video(), **inputs}

    def _video(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _VIDEO_FIELDS}


_VIDEO_FIELDS = ("prompt", "seconds", "width", "height", "seed", "negative_prompt", "audio", "options")


def _video_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    inputs = tuple(JobInput.restored(one) for one in stored.get("inputs", ()))
    return {**stored, "options": stored.get("options") or {}, "inputs": inputs}
