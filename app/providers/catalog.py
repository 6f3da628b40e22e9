"""The catalogue: every model that can be asked for, what it offers and what it costs.

Facts about models are records. ``catalog/<provider>.toml`` holds those that come with Filmgate; the operator's own
``[models."…"]`` tables are laid over them, a whole record for each name.
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
from app.errors import FieldError, ModelRetired, UnknownModel
from app.providers.fitting import Fitted, Mode, Wishes, fit
from app.settings import ModelSettings, SettingsError

LONGEST_ECHO = 80
NEAR = 0.75


@dataclass(frozen=True, slots=True)
class Model:
    """One model under the name that callers use."""

    name: str
    facts: ModelSettings
    clock: Clock = field(default=utc_now, repr=False, compare=False)

    @property
    def sunset(self) -> date | None:
        """The last day on which it is offered (UTC)."""
        return date.fromisoformat(self.facts.sunset) if self.facts.sunset else None

    @property
    def retired(self) -> bool:
        return self.sunset is not None and self.clock().date() > self.sunset

    def price(self, seconds: int, size: str) -> Decimal | None:
        """The most that a film can cost, in USD; None where the price is not known."""
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
        mode: Mode = "strict",
    ) -> Fitted:
        """The order that this model can grant; see :mod:`app.providers.fitting`.

        Raises:
            ModelRetired: its last day is over.
            InvalidRequest: with every problem, each naming its field and what is allowed.
        """
        if self.retired:
            message = f"{self.name} was retired on {self.sunset}; GET /v1/models lists what is offered."
            raise ModelRetired(message, [FieldError("model", ModelRetired.code, message)])
        wishes = Wishes(prompt, seconds, size, aspect_ratio, resolution, seed, negative_prompt, audio, options)
        return fit(self.name, self.facts, wishes, mode)


class Catalog:
    """All models, by name. Aliases lead to one of them."""

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str]) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self.aliases = dict(aliases)

    @classmethod
    def load(
        cls, operators: Mapping[str, ModelSettings], aliases: Mapping[str, str], clock: Clock = utc_now
    ) -> "Catalog":
        """The built-in models with the operator's laid over them.

        Raises:
            SettingsError: names every model and alias that cannot be used, and why.
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
        """The model of exactly this name."""
        return self._models.get(name)

    def canonical(self, name: str) -> str:
        """The name that an alias leads to; any other name as it is, also of a model that is no longer there."""
        return self.aliases.get(name, name)

    def resolve(self, name: str) -> Model:
        """The model that a caller means by a name or an alias.

        Raises:
            UnknownModel: with the nearest names.
        """
        model = self._models.get(self.canonical(name))
        if model is None:
            near = suggest(name, [*self._models, *self.aliases]) or "; GET /v1/models lists all."
            message = f"There is no model {name[:LONGEST_ECHO]}{near}"
            raise UnknownModel(message, [FieldError("model", UnknownModel.code, message)])
        return model


@cache
def built_in() -> Mapping[str, ModelSettings]:
    """The models that come with Filmgate."""
    records: dict[str, ModelSettings] = {}
    for file in sorted(files("app.providers").joinpath("catalog").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            tables = tomllib.loads(file.read_text(encoding="utf-8"))["models"]
            records |= {name: ModelSettings.model_validate(table) for name, table in tables.items()}
    return records


def suggest(name: str, names: Iterable[str]) -> str:
    """The nearest of some names, as the end of a sentence; nothing where none is near."""
    wanted = name[:LONGEST_ECHO]
    # "gen4.5" is far from "runway/gen4.5" by its letters, and yet it is what was meant.
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
