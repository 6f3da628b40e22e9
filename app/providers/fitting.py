"""Fitting a caller's wishes to what a model offers.

``strict`` refuses every wish that the model cannot grant, all of them at once, each with what is allowed. ``adjust``
takes the nearest that is offered and says so. Nothing is dropped silently.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from app.errors import FieldError, InvalidRequest
from app.providers import shapes
from app.providers.shapes import Size
from app.settings import ModelSettings

Mode = Literal["strict", "adjust"]
Value = TypeVar("Value")

NAMED_RESOLUTIONS = {"2k": "1440p", "4k": "2160p"}
LONGEST_ECHO = 80

_SIZE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}")
_RATIO = re.compile(r"[1-9]\d{0,4}:[1-9]\d{0,4}")
_RESOLUTION = re.compile(r"[1-9]\d{1,3}p")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asks for; None where nothing is said."""

    prompt: str
    seconds: int | None = None
    size: str | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    audio: bool | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One wish that was not granted as it was made. ``used`` is None where it was dropped."""

    field: str
    requested: Any
    used: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """What will be ordered."""

    seconds: int
    width: int
    height: int
    seed: int | None
    negative_prompt: str | None
    audio: bool | None
    options: Mapping[str, Any]
    adjustments: tuple[Adjustment, ...]

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def fit(model: str, facts: ModelSettings, wishes: Wishes, mode: Mode) -> Fitted:
    """The order that a model can grant.

    Raises:
        InvalidRequest: with every problem; in ``adjust`` mode only those that have no nearest value.
    """
    fitting = _Fitting(model, facts, mode)
    fitting.check_texts(wishes)
    width, height = fitting.size(wishes)
    fitted = Fitted(
        seconds=fitting.seconds(wishes.seconds),
        width=width,
        height=height,
        seed=fitting.supported("seed", wishes.seed, offered=facts.seed),
        negative_prompt=fitting.supported("negative_prompt", wishes.negative_prompt, offered=facts.negative_prompt),
        audio=fitting.audio(wishes.audio),
        options=fitting.options(wishes.options or {}),
        adjustments=tuple(fitting.adjustments),
    )
    problems = fitting.problems
    if len(problems) == 1:
        raise InvalidRequest(f"{problems[0].field}: {problems[0].message}.", problems)
    if problems:
        names = ", ".join(dict.fromkeys(problem.field for problem in problems))
        raise InvalidRequest(f"{len(problems)} things do not fit {model}: {names}.", problems)
    return fitted


class _Fitting:
    """One fitting: collects problems and adjustments."""

    def __init__(self, model: str, facts: ModelSettings, mode: Mode) -> None:
        self._model = model
        self._facts = facts
        self._mode = mode
        self._sizes = [shapes.parse(size) for size in facts.sizes]
        self._default = shapes.parse(facts.default_size)
        self.problems: list[FieldError] = []
        self.adjustments: list[Adjustment] = []

    def check_texts(self, wishes: Wishes) -> None:
        texts = {
            "prompt": wishes.prompt,
            "negative_prompt": wishes.negative_prompt,
            "provider_options": wishes.options,
        }
        for field, value in texts.items():
            if value and not _is_storable(value):
                self._problem(field, "invalid_format", "must be valid Unicode text, without NUL")
        # Runway counts UTF-16 code units: what lies outside the basic plane counts twice.
        length = len(wishes.prompt.encode("utf-16-le", "surrogatepass")) // 2
        limit = self._facts.prompt_chars
        if not wishes.prompt.strip():
            self._problem("prompt", "required", "must not be empty")
        elif length > limit:
            self._problem("prompt", "too_long", f"has {length} characters; {self._model} takes at most {limit}")

    def seconds(self, wish: int | None) -> int:
        offered = self._facts.seconds
        if wish is None or wish in offered:
            return self._facts.default_seconds if wish is None else wish
        nearest = min(offered, key=lambda seconds: (abs(seconds - wish), seconds))
        return self._not_offered("seconds", wish, nearest, _numbers(offered))

    def size(self, wishes: Wishes) -> Size:
        if wishes.size is None:
            return self._shape(
                self._checked("aspect_ratio", wishes.aspect_ratio, _RATIO, "16:9"),
                self._checked("resolution", wishes.resolution, _RESOLUTION, "720p"),
            )
        if wishes.aspect_ratio is not None or wishes.resolution is not None:
            self._problem("size", "conflict", "goes without aspect_ratio and resolution: give one or the other")
            return self._default
        size = self._checked("size", wishes.size, _SIZE, "1280x720")
        if size is None or size in self._facts.sizes:
            return shapes.parse(size) if size else self._default
        wanted = shapes.parse(size)
        used = shapes.nearest(self._sizes, shapes.ratio(wanted), shapes.short_side(wanted))
        self._not_offered("size", size, f"{used[0]}x{used[1]}", _words(self._facts.sizes))
        return used

    def supported(self, field: str, wish: Value | None, *, offered: bool) -> Value | None:
        if wish is None or offered:
            return wish
        self._refuse(field, wish, None, "unsupported", f"is not supported by {self._model}; leave it out")
        return None

    def audio(self, wish: bool | None) -> bool | None:
        match self._facts.audio, wish:
            case "optional", _:
                return wish
            case "none", True:
                self._refuse("audio", True, False, "unsupported", f"{self._model} makes silent films only")
            case "always", False:
                self._refuse("audio", False, True, "unsupported", f"{self._model} makes films with sound only")
        return None

    def options(self, wishes: Mapping[str, Any]) -> Mapping[str, Any]:
        offered = self._facts.options
        for name in (name for name in wishes if name not in offered):
            allowed = f"use {_words(offered)}" if offered else "it takes none"
            message = f"is not an option that {self._model} passes on; {allowed}"
            self._refuse(f"provider_options.{_echo(name)}", wishes[name], None, "unsupported", message)
        return {name: value for name, value in wishes.items() if name in offered}

    def _shape(self, aspect_ratio: str | None, resolution: str | None) -> Size:
        ratio = shapes.ratio(shapes.parse(aspect_ratio, ":") if aspect_ratio else self._default)
        side = int(resolution.removesuffix("p")) if resolution else shapes.short_side(self._default)
        of_ratio = [size for size in self._sizes if not aspect_ratio or shapes.has_ratio(size, ratio)]
        of_side = [size for size in self._sizes if not resolution or shapes.short_side(size) == side]
        both = [size for size in of_ratio if size in of_side]
        used = shapes.nearest(both or of_ratio or of_side or self._sizes, ratio, side)
        if not of_ratio:
            offered = dict.fromkeys(map(shapes.ratio_label, self._sizes))
            self._not_offered("aspect_ratio", aspect_ratio, shapes.ratio_label(used), _words(offered))
        if used not in of_side:
            offered = dict.fromkeys(map(shapes.resolution_label, of_ratio or self._sizes))
            where = f" in {aspect_ratio}" if aspect_ratio and of_ratio else ""
            self._not_offered("resolution", resolution, shapes.resolution_label(used), _words(offered) + where)
        return used

    def _checked(self, field: str, wish: str | None, pattern: re.Pattern[str], example: str) -> str | None:
        if wish is None:
            return None
        text = NAMED_RESOLUTIONS.get(wish.lower(), wish)
        if pattern.fullmatch(text):
            return text
        self._problem(field, "invalid_format", f"{_echo(wish)} is not one; write it like {example}")
        return None

    def _not_offered(self, field: str, wish: Any, nearest: Value, offered: str) -> Value:
        return self._refuse(
            field, wish, nearest, "not_offered", f"{wish} is not offered by {self._model}; use {offered}"
        )

    def _refuse(self, field: str, wish: Any, nearest: Value, code: str, message: str) -> Value:
        """A wish that is not granted: a problem in strict mode, an adjustment otherwise."""
        if self._mode == "strict":
            self._problem(field, code, message)
        else:
            self.adjustments.append(Adjustment(field, wish, nearest, message))
        return nearest

    def _problem(self, field: str, code: str, message: str) -> None:
        self.problems.append(FieldError(field, code, message))


def _is_storable(value: Any) -> bool:
    """Whether a value can be written as JSON that every database and every provider reads."""
    try:
        return b"\\u0000" not in json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):
        return False


def _words(items: Iterable[object]) -> str:
    *others, last = map(str, items)
    return f"{', '.join(others)} or {last}" if others else last


def _numbers(numbers: Sequence[int]) -> str:
    ordered = sorted(set(numbers))
    first, last = ordered[0], ordered[-1]
    unbroken = len(ordered) > 3 and last - first + 1 == len(ordered)
    return f"{first} to {last}" if unbroken else _words(ordered)


def _echo(text: str) -> str:
    return text if len(text) <= LONGEST_ECHO else f"{text[:LONGEST_ECHO]}…"
