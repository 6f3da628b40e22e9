"""Runway's models by endpoint, and the validation of their fields (SDK 5.24): unknown fields are refused.

Not in the sources, and so the sandbox's own: the price and the fields of ``gemini_omni_flash_1.1``, whose ``mode`` is
required here; a first frame is required where a last one is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.sandbox.problem import Problem

MAX_PROMPT_UNITS = 1000
MAX_SEED = 4_294_967_295
COMMON_FIELDS = frozenset({"model", "promptText"})
#: The length of an edit is its source's. Until the source is read, and for the estimate if it never is:
UNREAD_SECONDS = 10
UNREAD_RATIO = "1280:720"


@dataclass(frozen=True, slots=True)
class Model:
    """What one model accepts at one endpoint.

    ``fields`` are those in addition to the common ones. Without ``duration`` in them, the video is as long as its
    source; without ``ratio``, it has its size. ``default_duration``: ``duration`` may be omitted.
    """

    credits_per_second: int
    fields: frozenset[str]
    durations: tuple[int, ...] = ()
    ratios: tuple[str, ...] = ()
    default_duration: int | None = None
    prompt_required: bool = True
    positions: tuple[str, ...] = ("first",)


_HD = ("1280:720", "720:1280")
_FULL_HD = (*_HD, "1920:1080", "1080:1920")
_SIX = (*_HD, "1104:832", "960:960", "832:1104", "1584:672")
_SHAPE = frozenset({"ratio", "duration"})
_GEN4 = _SHAPE | {"seed", "contentModeration"}
_VEO = _SHAPE | {"audio", "negativePrompt", "seed"}
_IMAGE = frozenset({"promptImage"})
_BOTH_ENDS = ("first", "last")

TEXT_TO_VIDEO: Mapping[str, Model] = {
    "gen4.5": Model(12, _GEN4, tuple(range(2, 11)), _HD),
    "veo3.1": Model(40, _VEO, (4, 6, 8), _FULL_HD),
    "veo3.1_fast": Model(15, _VEO, (4, 6, 8), _FULL_HD),
}
IMAGE_TO_VIDEO: Mapping[str, Model] = {
    "gen4.5": Model(12, _GEN4 | _IMAGE, tuple(range(2, 11)), _SIX),
    "gen4_turbo": Model(5, _GEN4 | _IMAGE, tuple(range(2, 11)), _SIX, default_duration=10, prompt_required=False),
    "veo3.1": Model(40, _VEO | _IMAGE, (4, 6, 8), _FULL_HD, 8, prompt_required=False, positions=_BOTH_ENDS),
    "veo3.1_fast": Model(15, _VEO | _IMAGE, (4, 6, 8), _FULL_HD, 8, prompt_required=False, positions=_BOTH_ENDS),
}
VIDEO_TO_VIDEO: Mapping[str, Model] = {
    "aleph2": Model(28, frozenset({"videoUri", "seed", "contentModeration"}), prompt_required=False),
    "gemini_omni_flash": Model(10, frozenset({"videoUri", "references"})),
    "gemini_omni_flash_1.1": Model(
        10, frozenset({"videoUri", "references", "mode", *_SHAPE}), tuple(range(3, 11)), _HD, default_duration=5
    ),
}
ENDPOINTS: Mapping[str, Mapping[str, Model]] = {
    "text_to_video": TEXT_TO_VIDEO,
    "image_to_video": IMAGE_TO_VIDEO,
    "video_to_video": VIDEO_TO_VIDEO,
}
MODELS: Mapping[str, Model] = {name: model for models in ENDPOINTS.values() for name, model in models.items()}


def invalid(field: str, message: str) -> Problem:
    return Problem(400, f"Validation of body failed: {field} {message}.", field=field)


def read_model(fields: Mapping[str, Any], endpoint: str) -> tuple[str, Model]:
    """The model's name and what it accepts; the fields are checked to be its own."""
    models = ENDPOINTS[endpoint]
    name = fields.get("model")
    model = models.get(name) if isinstance(name, str) else None
    if model is None or not isinstance(name, str):
        raise invalid("model", "must be one of " + ", ".join(models))
    for field in sorted(fields.keys() - COMMON_FIELDS - model.fields):
        raise invalid(field, f"is not a field of {name} at {endpoint}")
    return name, model


def read_prompt(fields: Mapping[str, Any], model: Model) -> str:
    if not model.prompt_required and "promptText" not in fields:
        return ""
    prompt = fields.get("promptText")
    if not isinstance(prompt, str) or not 1 <= _utf16_units(prompt) <= MAX_PROMPT_UNITS:
        raise invalid("promptText", f"must have 1 to {MAX_PROMPT_UNITS} UTF-16 code units")
    return prompt


def read_duration(fields: Mapping[str, Any], model: Model) -> int:
    if not model.durations:
        return UNREAD_SECONDS
    duration = fields.get("duration", model.default_duration)
    if type(duration) is not int or duration not in model.durations:
        raise invalid("duration", "must be one of " + ", ".join(map(str, model.durations)))
    return duration


def read_ratio(fields: Mapping[str, Any], model: Model, *, follows_source: bool) -> tuple[int, int]:
    """The size in pixels."""
    if follows_source and "ratio" in fields:
        raise invalid("ratio", "may not be provided, the video matches its source")
    ratio = UNREAD_RATIO if follows_source else fields.get("ratio")
    if not isinstance(ratio, str) or (not follows_source and ratio not in model.ratios):
        raise invalid("ratio", "must be one of " + ", ".join(model.ratios))
    width, height = map(int, ratio.split(":"))
    return width, height


def check_extras(fields: Mapping[str, Any]) -> None:
    seed = fields.get("seed", 0)
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise invalid("seed", f"must be an integer from 0 to {MAX_SEED}")
    if not isinstance(fields.get("audio", True), bool):
        raise invalid("audio", "must be true or false")
    if not isinstance(fields.get("negativePrompt", ""), str):
        raise invalid("negativePrompt", "must be a string")
    moderation = fields.get("contentModeration", {})
    if not isinstance(moderation, dict) or moderation.get("publicFigureThreshold", "auto") not in {"auto", "low"}:
        raise invalid("contentModeration", "must hold publicFigureThreshold auto or low")


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
