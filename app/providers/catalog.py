"""The catalogue: every model that can be requested, with its options and price.

``catalog/<provider>.toml`` holds the built-in models. The operator's ``[models."…"]`` tables add to them; a table
replaces a built-in model of the same name completely.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from app.clock import Clock, utc_now
from app.connection_settings import ModelSettings
from app.errors import FieldError, ModelRetired, UnknownModel
from app.providers.fitting import Fitting, Mode
from app.providers.inputs import JobInput, size_of_frame
from app.providers.job_spec import JobSpec
from app.settings import SettingsError

LONGEST_ECHO = 80
NEAR = 0.75


@dataclass(frozen=True, slots=True)
class Model:
    """One model, under its public name."""

    name: str
    facts: ModelSettings
    clock: Clock = field(default=utc_now, repr=False, compare=False)

    @property
    def sunset(self) -> date | None:
        """The last day on which the model is offered (UTC)."""
        return date.fromisoformat(self.facts.sunset) if self.facts.sunset else None

    @property
    def retired(self) -> bool:
        return self.sunset is not None and self.clock().date() > self.sunset

    def price(self, seconds: int, size: str) -> Decimal | None:
        """The highest price of a video in USD; None if unknown."""
        rate = self.facts.usd_per_second
        if isinstance(rate, dict):
            rate = rate.get(size)
        return None if rate is None else rate * seconds

    def check(
        self,
        *,
        prompt: str,
        seconds: int | None = None,
        size: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        seed: int | None = None,
        negative_prompt: str | None = None,
        audio: bool | None = None,
        options: Mapping[str, Any] | None = None,
        inputs: tuple[JobInput, ...] = (),
        mode: Mode = "strict",
    ) -> JobSpec:
        """Resolve a request against this model; see :mod:`app.providers.fitting`.

        Raises:
            ModelRetired: the sunset date has passed.
            InvalidRequest: lists every problem with its field and the allowed values.
        """
        if self.retired:
            message = f"{self.name} was retired on {self.sunset}; GET /v1/models lists the available models."
            raise ModelRetired(message, [FieldError("model", ModelRetired.code, message)])
        fitting = Fitting(self.name, self.facts, mode)
        fitting.check_texts(prompt, negative_prompt, options or {})
        width, height = fitting.size(size, aspect_ratio, resolution, like=size_of_frame(inputs))
        fitting.inputs(inputs, (width, height))
        offered_seconds = fitting.seconds(seconds)
        spec = JobSpec(
            model=self.name,
            prompt=prompt,
            seconds=offered_seconds,
            width=width,
            height=height,
            seed=fitting.supported("seed", seed, offered=self.facts.seed),
            negative_prompt=fitting.supported("negative_prompt", negative_prompt, offered=self.facts.negative_prompt),
            audio=fitting.audio(audio),
            options=fitting.options(options or {}),
            estimated_cost=self.price(offered_seconds, f"{width}x{height}"),
            adjustments=tuple(fitting.adjustments),
            inputs=inputs,
        )
        fitting.raise_problems()
        return spec


class Catalog:
    """All models by name, and the aliases for them."""

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str]) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self.aliases = dict(aliases)

    @classmethod
    def load(
        cls, operators: Mapping[str, ModelSettings], aliases: Mapping[str, str], clock: Clock = utc_now
    ) -> "Catalog":
        """The built-in models, with the operator's models added or replacing them.

        Raises:
            SettingsError: lists every invalid model and alias with the reason.
        """
        models = {**built_in(), **operators}
        catalog = cls((Model(name, facts, clock) for name, facts in models.items()), aliases)
        problems = [problem for model in catalog for problem in _problems(model)]
        for alias, target in aliases.items():
            if alias in models:
                problems.append(f"aliases.{alias}: is the name of a model too; rename the alias")
            elif target not in models:
                problems.append(f"aliases.{alias}: there is no model {target}{suggest(target, models)}")
        if problems:
            raise SettingsError("\n".join(problems))
        return catalog

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model | None:
        """The model with exactly this name; aliases are not resolved."""
        return self._models.get(name)

    def canonical(self, name: str) -> str:
        """The model name behind an alias; any other name unchanged, even if no such model exists."""
        return self.aliases.get(name, name)

    def resolve(self, name: str) -> Model:
        """The model with this name or alias.

        Raises:
            UnknownModel: suggests similar names.
        """
        model = self._models.get(self.canonical(name))
        if model is None:
            near = suggest(name, [*self._models, *self.aliases]) or "; GET /v1/models lists all."
            message = f"There is no model {name[:LONGEST_ECHO]}{near}"
            raise UnknownModel(message, [FieldError("model", UnknownModel.code, message)])
        return model


@cache
def built_in() -> Mapping[str, ModelSettings]:
    """The built-in models."""
    records: dict[str, ModelSettings] = {}
    for file in sorted(files("app.providers").joinpath("catalog").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            tables = tomllib.loads(file.read_text(encoding="utf-8"))["models"]
            records |= {name: ModelSettings.model_validate(table) for name, table in tables.items()}
    return records


def suggest(name: str, names: Iterable[str]) -> str:
    """Similar names as the end of a sentence; empty if there are none."""
    wanted = name[:LONGEST_ECHO]
    # Compare without the prefix: "gen4.5" is not similar to "runway/gen4.5" by its letters.
    tails = {other.rpartition("/")[2]: other for other in names}
    near = difflib.get_close_matches(wanted, tails.values(), cutoff=NEAR) or [
        tails[tail] for tail in difflib.get_close_matches(wanted.rpartition("/")[2], tails, cutoff=NEAR)
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _problems(model: Model) -> list[str]:
    facts = model.facts
    problems = []
    try:
        _ = model.sunset
    except ValueError:
        problems.append(f"models.{model.name}.sunset: {facts.sunset} is not a date")
    if isinstance(facts.usd_per_second, dict):
        problems += [
            f"models.{model.name}.usd_per_second: {size} is not one of its sizes"
            for size in facts.usd_per_second
            if size not in facts.sizes
        ]
    return problems
