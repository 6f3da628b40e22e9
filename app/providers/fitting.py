"""Matches a requested video with what a model offers.

``strict`` refuses unsupported values and reports all of them at once, each with the allowed values. ``adjust`` uses the
nearest supported value and records the change. Nothing is dropped silently.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from app.connection_settings import ModelSettings
from app.errors import FieldError, InvalidRequest
from app.providers import shapes
from app.providers.fitting_inputs import fit_inputs
from app.providers.inputs import JobInput
from app.providers.shapes import Size

Mode = Literal["strict", "adjust"]
Value = TypeVar("Value")

NAMED_RESOLUTIONS = {"2k": "1440p", "4k": "2160p"}
LONGEST_ECHO = 80

_SIZE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}")
_RATIO = re.compile(r"[1-9]\d{0,4}:[1-9]\d{0,4}")
_RESOLUTION = re.compile(r"[1-9]\d{1,3}p")


class Fitting:
    """Matches one request with a model and collects problems and adjustments."""

    def __init__(self, model: str, facts: ModelSettings, mode: Mode) -> None:
        self._model = model
        self._facts = facts
        self._mode = mode
        self._sizes = [shapes.parse(size) for size in facts.sizes]
        self._default = shapes.parse(facts.default_size)
        self.problems: list[FieldError] = []
        self.adjustments: list[dict[str, Any]] = []

    def raise_problems(self) -> None:
        """Report the collected problems.

        Raises:
            InvalidRequest: lists every problem; in ``adjust`` mode only those without a nearest value.
        """
        if len(self.problems) == 1:
            raise InvalidRequest(f"{self.problems[0].field}: {self.problems[0].message}.", self.problems)
        if self.problems:
            names = ", ".join(dict.fromkeys(problem.field for problem in self.problems))
            raise InvalidRequest(
                f"{len(self.problems)} parameters are invalid for {self._model}: {names}.", self.problems
            )

    def check_texts(self, prompt: str, negative_prompt: str | None, options: Mapping[str, Any]) -> None:
        texts = {"prompt": prompt, "negative_prompt": negative_prompt, "provider_options": options}
        for field, value in texts.items():
            if value and not _is_storable(value):
                self._problem(field, "invalid_format", "must be JSON: finite numbers, and Unicode text without NUL")
        # Runway counts UTF-16 code units: characters outside the basic plane count twice.
        length = len(prompt.encode("utf-16-le", "surrogatepass")) // 2
        limit = self._facts.prompt_chars
        if not prompt.strip():
            self._problem("prompt", "required", "must not be empty")
        elif length > limit:
            self._problem("prompt", "too_long", f"has {length} characters; {self._model} accepts at most {limit}")

    def seconds(self, value: int | None) -> int:
        offered = self._facts.seconds
        if value is None or value in offered:
            return self._facts.default_seconds if value is None else value
        nearest = min(offered, key=lambda seconds: (abs(seconds - value), seconds))
        return self._not_offered("seconds", value, nearest, _numbers(offered))

    def size(
        self, size: str | None, aspect_ratio: str | None, resolution: str | None, *, like: Size | None = None
    ) -> Size:
        """``like`` is the size of a picture that the video begins with: it decides where the request does not."""
        if size is None:
            if aspect_ratio is None and like is not None:
                usual = self._shape(None, self._checked("resolution", resolution, _RESOLUTION, "720p"))
                return shapes.nearest(self._sizes, shapes.ratio(like), shapes.short_side(usual))
            return self._shape(
                self._checked("aspect_ratio", aspect_ratio, _RATIO, "16:9"),
                self._checked("resolution", resolution, _RESOLUTION, "720p"),
            )
        if aspect_ratio is not None or resolution is not None:
            self._problem("size", "conflict", "cannot be combined with aspect_ratio or resolution")
            return self._default
        checked = self._checked("size", size, _SIZE, "1280x720")
        if checked is None or checked in self._facts.sizes:
            return shapes.parse(checked) if checked else self._default
        wanted = shapes.parse(checked)
        used = shapes.nearest(self._sizes, shapes.ratio(wanted), shapes.short_side(wanted))
        self._not_offered("size", checked, f"{used[0]}x{used[1]}", _words(self._facts.sizes))
        return used

    def supported(self, field: str, value: Value | None, *, offered: bool) -> Value | None:
        if value is None or offered:
            return value
        self._refuse(field, value, None, "unsupported", f"is not supported by {self._model}; omit it")
        return None

    def audio(self, value: bool | None) -> bool | None:
        match self._facts.audio, value:
            case "optional", _:
                return value
            case "none", True:
                self._refuse("audio", True, False, "unsupported", f"{self._model} renders silent videos only")
            case "always", False:
                self._refuse("audio", False, True, "unsupported", f"{self._model} renders videos with sound only")
        return None

    def inputs(self, inputs: Sequence[JobInput], size: Size) -> None:
        """Those whose files are not known yet are checked again when they are."""
        fitted = fit_inputs(self._model, self._facts, size, inputs)
        self.problems += fitted.problems
        self.adjustments += fitted.adjustments

    def options(self, requested: Mapping[str, Any]) -> Mapping[str, Any]:
        offered = self._facts.options
        for name in (name for name in requested if name not in offered):
            allowed = f"use {_words(offered)}" if offered else "it has none"
            message = f"is not a provider option of {self._model}; {allowed}"
            self._refuse(f"provider_options.{_echo(name)}", requested[name], None, "unsupported", message)
        return {name: value for name, value in requested.items() if name in offered}

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

    def _checked(self, field: str, value: str | None, pattern: re.Pattern[str], example: str) -> str | None:
        if value is None:
            return None
        text = NAMED_RESOLUTIONS.get(value.lower(), value)
        if pattern.fullmatch(text):
            return text
        self._problem(field, "invalid_format", f"{_echo(value)} is not valid; use the form {example}")
        return None

    def _not_offered(self, field: str, value: Any, nearest: Value, offered: str) -> Value:
        return self._refuse(
            field, value, nearest, "not_offered", f"{value} is not offered by {self._model}; use {offered}"
        )

    def _refuse(self, field: str, value: Any, nearest: Value, code: str, message: str) -> Value:
        """Record an unsupported value: a problem in strict mode, otherwise an adjustment."""
        if self._mode == "strict":
            self._problem(field, code, message)
        else:
            self.adjustments.append({"field": field, "requested": value, "used": nearest, "reason": message})
        return nearest

    def _problem(self, field: str, code: str, message: str) -> None:
        self.problems.append(FieldError(field, code, message))


def _is_storable(value: Any) -> bool:
    """Whether a value can be written as JSON that the database and the providers accept."""
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
