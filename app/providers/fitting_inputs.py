"""Matches the inputs of a request with what a model takes in each role.

As in :mod:`app.providers.fitting`, a strict request is refused with every problem, and ``adjust`` changes a picture so
that it fits: it is cut to the ratio, scaled, or written in another format. Nothing is decoded here: the size and the
format of a file are known since it was received.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.connection_settings import InputRole, InputSettings, ModelSettings
from app.errors import FieldError
from app.media.info import Conversion, FileFormat, FileKind
from app.providers.inputs import InputFile, JobInput
from app.providers.shapes import Size

TOO_LARGE = "too_large"
ADJUST = "with `mode: adjust` it is cut, scaled or converted"


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a picture does not fit as it is; ``used`` is what ``adjust`` makes of it."""

    code: str
    message: str
    requested: str
    used: str


@dataclass(frozen=True, slots=True)
class FittedInputs:
    """What was found. ``conversions`` are by input, and None where its file is not known yet."""

    problems: Sequence[FieldError]
    adjustments: Sequence[dict[str, Any]]
    conversions: Sequence[Conversion | None]


def fit_inputs(model: str, facts: ModelSettings, size: Size, inputs: Sequence[JobInput]) -> FittedInputs:
    """Check all inputs of a request for a video of ``size``. Those whose file is not known yet are only counted."""
    problems = [*_role_problems(model, facts, inputs)]
    adjustments: list[dict[str, Any]] = []
    conversions: list[Conversion | None] = []
    for number, one in enumerate(inputs):
        accepted = facts.inputs.get(one.role)
        if accepted is None or one.file is None:
            conversions.append(None)
            continue
        field = f"inputs[{number}]"
        if one.file.format.kind is not FileKind.IMAGE:
            problems.append(FieldError(field, "invalid_file", f"must be a picture, not {one.file.format.content_type}"))
            conversions.append(None)
            continue
        target, misfits = _converted(one.file, accepted, size)
        if one.adjust:
            # What is written anew for another reason has another number of bytes, which is not known yet.
            misfits = [misfit for misfit in misfits if misfit.code != TOO_LARGE or len(misfits) == 1]
            adjustments += [
                {"field": field, "requested": misfit.requested, "used": misfit.used, "reason": misfit.message}
                for misfit in misfits
            ]
        else:
            problems += [
                FieldError(field, misfit.code, f"{misfit.message} for {model}, not {misfit.requested}; {ADJUST}")
                for misfit in misfits
            ]
        conversions.append(target)
    return FittedInputs(problems, adjustments, conversions)


def _role_problems(model: str, facts: ModelSettings, inputs: Sequence[JobInput]) -> list[FieldError]:
    """Too many, not taken, or not together."""
    problems = []
    counts: Counter[InputRole] = Counter()
    for number, one in enumerate(inputs):
        field = f"inputs[{number}]"
        counts[one.role] += 1
        accepted = facts.inputs.get(one.role)
        if accepted is None:
            offered = f"; it takes {', '.join(facts.inputs)}" if facts.inputs else "; it takes no inputs"
            problems.append(FieldError(f"{field}.role", "unsupported", f"{one.role} is not taken by {model}{offered}"))
        elif counts[one.role] > accepted.most:
            message = f"is one {one.role} too many: {model} takes at most {accepted.most}"
            problems.append(FieldError(field, "too_many", message))
    for number, one in enumerate(inputs):
        accepted = facts.inputs.get(one.role) or InputSettings()
        problems += [
            FieldError(f"inputs[{number}]", "required", f"needs an input with the role {role}, too, for {model}")
            for role in accepted.needs
            if not counts[role]
        ]
        problems += [
            FieldError(f"inputs[{number}]", "conflict", f"cannot be combined with {role} for {model}")
            for role in accepted.excludes
            if counts[role]
        ]
    if facts.needs_input and not inputs:
        message = f"is required: {model} makes no video from a prompt alone; it takes {', '.join(facts.inputs)}"
        problems.append(FieldError("inputs", "required", message))
    return problems


def _converted(file: InputFile, accepted: InputSettings, size: Size) -> tuple[Conversion, list[Misfit]]:
    """What is to be made of a picture, and why."""
    assert file.width is not None
    assert file.height is not None
    given = target = (file.width, file.height)
    misfits = []
    if accepted.same_size and given != size:
        target = size
        misfits.append(_misfit("wrong_size", f"must have the size of the video, {_text(size)}", given, target))
    ratio = file.width / file.height
    narrowest, widest = accepted.narrowest or 0, accepted.widest or math.inf
    if not accepted.same_size and not narrowest <= ratio <= widest:
        target = _cut(given, min(max(ratio, narrowest), widest))
        message = f"must have from {narrowest:g} to {widest:g} times the width of its height"
        misfits.append(_misfit("wrong_ratio", message, given, target))
    if min(target) < accepted.min_side:
        scale = accepted.min_side / min(target)
        before, target = target, (math.ceil(target[0] * scale), math.ceil(target[1] * scale))
        misfits.append(_misfit("too_small", f"must have at least {accepted.min_side} pixels on a side", before, target))
    format_ = file.format
    if format_ not in accepted.formats:
        format_ = FileFormat.PNG if "png" in accepted.formats else FileFormat(accepted.formats[0])
        message = f"must be one of: {', '.join(accepted.formats)}"
        misfits.append(Misfit("wrong_format", message, file.format.value, format_.value))
    if file.size_bytes > accepted.max_bytes:
        format_ = FileFormat.JPEG if "jpg" in accepted.formats else format_
        message = f"must have at most {accepted.max_bytes} bytes"
        misfits.append(Misfit(TOO_LARGE, message, f"{file.size_bytes} bytes", f"at most {accepted.max_bytes} bytes"))
    return Conversion(format_, *target, max_bytes=accepted.max_bytes), misfits


def _cut(size: Size, ratio: float) -> Size:
    """The largest part of a picture that has a ratio."""
    width, height = size
    if width / height > ratio:
        return max(1, math.floor(height * ratio)), height
    return width, max(1, math.floor(width / ratio))


def _misfit(code: str, message: str, requested: Size, used: Size) -> Misfit:
    return Misfit(code, message, _text(requested), _text(used))


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
