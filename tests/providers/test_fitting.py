"""A caller's wishes against what a model offers: refused with the field named, or adjusted and said so."""

from typing import Any

import pytest

from app.connection_settings import ModelSettings
from app.errors import InvalidRequest
from app.providers.catalog import Model

FACTS: dict[str, Any] = {
    "provider": "runway",
    "upstream": "short",
    "seconds": (4, 6, 8),
    "default_seconds": 4,
    "sizes": ("1280x720", "720x1280", "1920x1080", "1584x672", "960x960"),
    "default_size": "1280x720",
    "prompt_chars": 20,
}


def model(**facts: Any) -> Model:
    return Model("sandbox/short", ModelSettings.model_validate({**FACTS, **facts}))


def problems(one: Model, **wishes: Any) -> dict[str, tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        one.check(**{"prompt": "a video", **wishes})
    return {problem.field: (problem.code, problem.message) for problem in caught.value.fields}


def test_nothing_asked_for_is_the_default() -> None:
    fitted = model().check(prompt="a video")
    assert (fitted.seconds, fitted.size, fitted.seed, fitted.audio, fitted.adjustments) == (
        4,
        "1280x720",
        None,
        None,
        (),
    )


def test_refusal_names_the_field_the_value_and_what_is_allowed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        model().check(prompt="a video", seconds=7)
    assert caught.value.message == "seconds: 7 is not offered by sandbox/short; use 4, 6 or 8."
    [problem] = caught.value.fields
    assert (problem.field, problem.code) == ("seconds", "not_offered")


def test_unbroken_lengths_are_told_as_a_range() -> None:
    ranged = model(seconds=tuple(range(2, 11)))
    assert problems(ranged, seconds=11)["seconds"][1] == "11 is not offered by sandbox/short; use 2 to 10"


def test_all_problems_are_told_at_once() -> None:
    wishes = {
        "prompt": "x" * 21,
        "seconds": 7,
        "size": "1x1",
        "seed": 1,
        "negative_prompt": "rain",
        "audio": True,
        "options": {"fps": 1, "loop": True},
    }
    found = problems(model(), **wishes)
    assert set(found) == {
        "prompt",
        "seconds",
        "size",
        "seed",
        "negative_prompt",
        "audio",
        "provider_options.fps",
        "provider_options.loop",
    }


def test_adjusting_changes_what_it_must_and_lists_every_change() -> None:
    fitted = model(options=("loop",)).check(
        prompt="a video",
        seconds=7,
        size="1000x1000",
        seed=1,
        negative_prompt="rain",
        audio=True,
        options={"fps": 1, "loop": True},
        mode="adjust",
    )
    assert (fitted.seconds, fitted.size, fitted.seed, fitted.negative_prompt) == (6, "960x960", None, None)
    assert (fitted.audio, fitted.options) == (None, {"loop": True})
    assert {(change["field"], str(change["requested"]), change["used"]) for change in fitted.adjustments} == {
        ("seconds", "7", 6),
        ("size", "1000x1000", "960x960"),
        ("seed", "1", None),
        ("negative_prompt", "rain", None),
        ("audio", "True", False),
        ("provider_options.fps", "1", None),
    }
    assert all(change["reason"] for change in fitted.adjustments)


def test_what_is_offered_is_passed_on_unchanged() -> None:
    able = model(seed=True, negative_prompt=True, audio="optional", options=("loop",))
    fitted = able.check(
        prompt="a video", seconds=8, size="720x1280", seed=0, negative_prompt="", audio=False, options={"loop": None}
    )
    assert (fitted.seed, fitted.negative_prompt, fitted.audio, fitted.options) == (0, "", False, {"loop": None})
    assert (fitted.width, fitted.height, fitted.adjustments) == (720, 1280, ())


@pytest.mark.parametrize(
    ("audio", "wish", "fitted"),
    [
        ("none", None, None),
        ("none", False, None),
        ("none", True, "refused"),
        ("always", None, None),
        ("always", True, None),
        ("always", False, "refused"),
        ("optional", None, None),
        ("optional", True, True),
        ("optional", False, False),
    ],
)
def test_sound(audio: str, wish: bool | None, fitted: bool | str | None) -> None:
    one = model(audio=audio)
    if fitted == "refused":
        assert problems(one, audio=wish)["audio"][0] == "unsupported"
    else:
        assert one.check(prompt="a video", audio=wish).audio is fitted


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({"aspect_ratio": "16:9"}, "1280x720"),
        ({"aspect_ratio": "9:16"}, "720x1280"),
        ({"aspect_ratio": "1:1"}, "960x960"),
        ({"aspect_ratio": "21:9"}, "1584x672"),
        ({"aspect_ratio": "16:9", "resolution": "1080p"}, "1920x1080"),
        ({"aspect_ratio": "9:16", "resolution": "720p"}, "720x1280"),
        ({"resolution": "720p"}, "1280x720"),
        ({"resolution": "1080p"}, "1920x1080"),
        ({"resolution": "960P"}, None),
        ({"resolution": "960p"}, "960x960"),
    ],
)
def test_shapes(shape: dict[str, Any], size: str | None) -> None:
    if size is None:
        assert problems(model(), **shape)["resolution"][0] == "invalid_format"
    else:
        assert model().check(prompt="a video", **shape).size == size


@pytest.mark.parametrize(
    ("shape", "field", "message"),
    [
        ({"aspect_ratio": "4:3"}, "aspect_ratio", "4:3 is not offered by sandbox/short; use 16:9, 9:16, 21:9 or 1:1"),
        ({"resolution": "480p"}, "resolution", "480p is not offered by sandbox/short; use 720p, 1080p, 672p or 960p"),
        ({"resolution": "4K"}, "resolution", "2160p is not offered by sandbox/short; use 720p, 1080p, 672p or 960p"),
        (
            {"aspect_ratio": "9:16", "resolution": "1080p"},
            "resolution",
            "1080p is not offered by sandbox/short; use 720p in 9:16",
        ),
        ({"aspect_ratio": "4:3", "resolution": "1080p"}, "aspect_ratio", None),
        ({"aspect_ratio": "wide"}, "aspect_ratio", "wide is not valid; use the form 16:9"),
        ({"aspect_ratio": "0:9"}, "aspect_ratio", "0:9 is not valid; use the form 16:9"),
        ({"size": "1280*720"}, "size", "1280*720 is not valid; use the form 1280x720"),
        ({"size": "1280x720", "resolution": "720p"}, "size", None),
    ],
)
def test_refused_shapes(shape: dict[str, str], field: str, message: str | None) -> None:
    found = problems(model(), **shape)
    assert list(found) == [field]
    assert message in (None, found[field][1])


@pytest.mark.parametrize(
    ("shape", "size", "changes"),
    [
        ({"aspect_ratio": "5:4"}, "960x960", [("aspect_ratio", "5:4", "1:1")]),
        ({"resolution": "480p"}, "1280x720", [("resolution", "480p", "720p")]),
        ({"aspect_ratio": "9:16", "resolution": "1080p"}, "720x1280", [("resolution", "1080p", "720p")]),
        ({"size": "640x360"}, "1280x720", [("size", "640x360", "1280x720")]),
        ({"size": "3840x2160"}, "1920x1080", [("size", "3840x2160", "1920x1080")]),
        ({"size": "1080x1920"}, "720x1280", [("size", "1080x1920", "720x1280")]),
    ],
)
def test_adjusted_shapes(shape: dict[str, Any], size: str, changes: list[tuple[str, str, str]]) -> None:
    fitted = model().check(prompt="a video", mode="adjust", **shape)
    assert fitted.size == size
    assert [(change["field"], change["requested"], change["used"]) for change in fitted.adjustments] == changes


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": "x" * 21}, "prompt"),
        ({"prompt": "\N{CLAPPER BOARD}" * 11}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "a\ud800b"}, "prompt"),
        ({"size": "big"}, "size"),
        ({"negative_prompt": "\udfff"}, "negative_prompt"),
        ({"options": {"loop": [float("nan")]}}, "provider_options"),
        ({"options": {"loop": {"a": "\0"}}}, "provider_options"),
    ],
)
def test_what_has_no_nearest_value_is_refused_in_either_mode(wishes: dict[str, Any], field: str) -> None:
    able = model(negative_prompt=True, options=("loop",))
    for mode in ("strict", "adjust"):
        assert list(problems(able, mode=mode, **wishes)) == [field]


def test_prompt_of_just_the_longest_length_fits() -> None:
    for prompt in ("x" * 20, "\N{CLAPPER BOARD}" * 10):
        assert model().check(prompt=prompt).adjustments == ()


def test_nearest_of_two_lengths_is_the_cheaper_one() -> None:
    assert model().check(prompt="a video", seconds=5, mode="adjust").adjustments == (
        {"field": "seconds", "requested": 5, "used": 4, "reason": "5 is not offered by sandbox/short; use 4, 6 or 8"},
    )
