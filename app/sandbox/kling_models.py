"""Kling's models by endpoint, and the validation of a create: ``settings``, ``contents`` and the prompt.

The sources do not give everything. The sandbox's own: the lengths and prices of ``kling-o1``; the prompt is optional
only beside a first frame; a ``base_video`` excludes frames, and the video has its size; an ``element`` is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.sandbox.inputs import MEBIBYTE, InputRules, InputSource, Operation, Role, is_fetchable
from app.sandbox.problem import Problem

RULES = InputRules(image_bytes=50 * MEBIBYTE, video_bytes=200 * MEBIBYTE, typed=False, min_side=300, max_ratio=2.5)
SHORT_SIDES = {"720p": 720, "1080p": 1080, "4k": 2160}
RATIOS = {"16:9": (16, 9), "9:16": (9, 16), "1:1": (1, 1)}


@dataclass(frozen=True, slots=True)
class Model:
    """What one model accepts. Prices are USD per second by resolution: silent, with sound, and with a video as input.

    ``last_frame_at``: the resolutions at which a last frame is possible.
    """

    durations: tuple[int, ...]
    prompt: int
    silent: Mapping[str, str]
    sound: Mapping[str, str]
    settings: frozenset[str]
    video: Mapping[str, str] = field(default_factory=dict)
    last_frame_at: frozenset[str] = frozenset(SHORT_SIDES)


@dataclass(frozen=True, slots=True)
class Settings:
    """The validated ``settings``."""

    width: int
    height: int
    seconds: int
    usd_per_second: Decimal


_COMMON = frozenset({"resolution", "aspect_ratio", "duration"})
_SOUND = _COMMON | {"audio"}
_FULL_HD = frozenset({"1080p"})
MODELS: Mapping[str, Model] = {
    "kling-3.0": Model(
        tuple(range(3, 16)),
        3072,
        {"720p": "0.084", "1080p": "0.112", "4k": "0.42"},
        {"720p": "0.126", "1080p": "0.168", "4k": "0.42"},
        _SOUND | {"multi_shot"},
    ),
    "kling-3.0-turbo": Model(tuple(range(3, 16)), 3072, {"720p": "0.112", "1080p": "0.14"}, {}, _COMMON),
    "kling-2.6": Model(
        (5, 10), 2500, {"720p": "0.042", "1080p": "0.07"}, {"1080p": "0.14"}, _SOUND, last_frame_at=_FULL_HD
    ),
    "kling-2.5-turbo": Model((5, 10), 2500, {"720p": "0.042", "1080p": "0.07"}, {}, _COMMON, last_frame_at=_FULL_HD),
}
_WITH_VIDEO = {"720p": "0.126", "1080p": "0.168"}
OMNI_MODELS: Mapping[str, Model] = {
    "kling-3.0-omni": Model(
        tuple(range(3, 16)),
        3072,
        {"720p": "0.084", "1080p": "0.112", "4k": "0.42"},
        {"720p": "0.126", "1080p": "0.168", "4k": "0.42"},
        _SOUND | {"multi_shot"},
        _WITH_VIDEO,
    ),
    "kling-o1": Model(
        tuple(range(3, 11)), 2500, {"720p": "0.084", "1080p": "0.112"}, {}, _COMMON | {"audio"}, _WITH_VIDEO
    ),
}
ENDPOINTS: Mapping[str, Mapping[str, Model]] = {
    "text-to-video": MODELS,
    "image-to-video": MODELS,
    "omni-video": OMNI_MODELS,
}
#: By endpoint and type, what an item of ``contents`` is for. An item ``prompt`` has a ``text``, the others a ``url``.
_FRAMES: Mapping[str, Role] = {"first_frame": Role.FIRST_FRAME, "last_frame": Role.LAST_FRAME}
CONTENTS: Mapping[str, Mapping[str, Role]] = {
    "image-to-video": _FRAMES,
    "omni-video": {
        **_FRAMES,
        "refer_image": Role.REFERENCE_IMAGE,
        "feature_video": Role.REFERENCE_VIDEO,
        "base_video": Role.SOURCE_VIDEO,
    },
}


def invalid(name: str, message: str) -> Problem:
    return Problem(400, f"Invalid parameter: {name} {message}.", code="1201", field=name)


def known(fields: Any, where: str, names: frozenset[str] | set[str]) -> Mapping[str, Any]:
    """The fields of an object that has no other ones."""
    if not isinstance(fields, dict):
        raise invalid(where, "must be a JSON object")
    for name in sorted(fields.keys() - names):
        raise invalid(name, f"is not a field of {where}")
    return fields


def read_contents(fields: Mapping[str, Any], endpoint: str, model: Model) -> tuple[str, tuple[InputSource, ...]]:
    """The prompt and the inputs."""
    if endpoint not in CONTENTS:
        return _prompt(fields.get("prompt"), model), ()
    items, roles = fields.get("contents"), CONTENTS[endpoint]
    if not isinstance(items, list) or not items:
        raise invalid("contents", "must be an array of objects")
    prompts, sources = [], []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "prompt":
            prompts.append(known(item, "contents", {"type", "text"}).get("text"))
        elif isinstance(kind, str) and kind in roles:
            sources.append(_source(known(item, "contents", {"type", "url"}).get("url"), kind, roles[kind]))
        else:
            raise invalid("contents", f"has an item of an unknown type: {kind}")
    _check_roles([source.role for source in sources], endpoint)
    if len(prompts) > 1:
        raise invalid("contents", "has more than one prompt")
    optional = endpoint == "image-to-video" and not prompts
    return "" if optional else _prompt(prompts[0] if prompts else None, model), tuple(sources)


def read_settings(settings: Mapping[str, Any], model: Model, sources: tuple[InputSource, ...]) -> Settings:
    """The settings, checked against the inputs."""
    resolution = _choice(settings, "resolution", "720p", tuple(model.silent))
    ratio = _choice(settings, "aspect_ratio", "16:9", tuple(RATIOS))
    seconds = _choice(settings, "duration", 5, model.durations)
    audio = _choice(settings, "audio", "off", ("off", "native", "original") if model.video else ("off", "native"))
    if audio == "native" and resolution not in model.sound:
        raise invalid("audio", f"native is only supported at {', '.join(model.sound) or 'no resolution'}")
    if not isinstance(settings.get("multi_shot", True), bool):
        raise invalid("multi_shot", "must be true or false")
    roles = {source.role for source in sources}
    if Role.LAST_FRAME in roles and resolution not in model.last_frame_at:
        raise invalid("resolution", f"must be {', '.join(sorted(model.last_frame_at))} with a last frame")
    prices = model.sound if audio == "native" else model.silent
    if any(role.is_video for role in roles):
        prices = model.video
    if resolution not in prices:
        raise invalid("resolution", f"must be one of {', '.join(prices)} with a video as input")
    width, height = _pixels(resolution, ratio)
    return Settings(width, height, seconds, Decimal(prices[resolution]))


def _prompt(prompt: object, model: Model) -> str:
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= model.prompt:
        raise invalid("prompt", f"must have 1 to {model.prompt} characters")
    return prompt


def _source(url: object, kind: str, role: Role) -> InputSource:
    if not isinstance(url, str) or not is_fetchable(url):
        raise invalid(kind, "must have a URL")
    return InputSource(role, kind, url=url, operation=Operation.EDIT if role is Role.SOURCE_VIDEO else None)


def _check_roles(roles: list[Role], endpoint: str) -> None:
    for role in set(roles) - {Role.REFERENCE_IMAGE}:
        if roles.count(role) > 1:
            raise invalid("contents", f"has more than one {role}")
    if Role.FIRST_FRAME not in roles and (Role.LAST_FRAME in roles or endpoint == "image-to-video"):
        raise invalid("contents", "must have a first_frame")
    if Role.SOURCE_VIDEO in roles and Role.FIRST_FRAME in roles:
        raise invalid("contents", "must not have a base_video and frames")


def _choice(fields: Mapping[str, Any], name: str, default: Any, offered: tuple[Any, ...]) -> Any:
    value = fields.get(name, default)
    if type(value) is not type(default) or value not in offered:
        raise invalid(name, "must be one of " + ", ".join(map(str, offered)))
    return value


def _pixels(resolution: str, ratio: str) -> tuple[int, int]:
    across, down = RATIOS[ratio]
    unit = SHORT_SIDES[resolution] // min(across, down)
    return across * unit, down * unit
