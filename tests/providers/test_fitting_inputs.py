"""What a model takes in each role, and what adjusting makes of a picture."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from app.connection_settings import InputRole, ModelSettings
from app.media.info import Conversion, FileFormat
from app.providers.fitting_inputs import fit_inputs
from app.providers.inputs import InputFile, JobInput

SIZE = (1280, 720)


def model(**inputs: Any) -> ModelSettings:
    values = {"seconds": [5], "default_seconds": 5, "sizes": ["1280x720"], "default_size": "1280x720"}
    return TypeAdapter(ModelSettings).validate_python(
        {"provider": "runway", "upstream": "x", **values, "inputs": inputs}
    )


def file(width: int, height: int, *, format_: FileFormat = FileFormat.PNG, size: int = 1000) -> InputFile:
    return InputFile(UUID(int=1), format_, size, "ab" * 32, width, height, "key")


@pytest.mark.parametrize(
    ("accepted", "given", "code", "used"),
    [
        ({"same_size": True}, (1920, 1080), "wrong_size", (1280, 720)),
        ({"narrowest": 0.4, "widest": 2.5}, (3000, 1000), "wrong_ratio", (2500, 1000)),
        ({"narrowest": 0.4, "widest": 2.5}, (300, 1000), "wrong_ratio", (300, 750)),
        ({"min_side": 300}, (200, 400), "too_small", (300, 600)),
        ({"narrowest": 0.4, "min_side": 300}, (10, 1000), "wrong_ratio", (300, 750)),
        ({"widest": 1}, (3, 2), "wrong_ratio", (2, 2)),
    ],
)
def test_a_picture_that_does_not_fit(accepted: Any, given: tuple[int, int], code: str, used: tuple[int, int]) -> None:
    facts = model(first_frame=accepted)
    strict = fit_inputs("m", facts, SIZE, [JobInput(InputRole.FIRST_FRAME, file(*given))])
    assert (strict.problems[0].field, strict.problems[0].code) == ("inputs[0]", code)
    assert not strict.adjustments
    adjusted = fit_inputs("m", facts, SIZE, [JobInput(InputRole.FIRST_FRAME, file(*given), adjust=True)])
    assert not adjusted.problems
    assert adjusted.conversions == [Conversion(FileFormat.PNG, *used, max_bytes=16_777_216)]
    assert {one["field"] for one in adjusted.adjustments} == {"inputs[0]"}
    ratio = used[0] / used[1]
    assert (accepted.get("narrowest") or 0) <= ratio + 0.01
    assert ratio - 0.01 <= (accepted.get("widest") or 9)


def test_formats_and_bytes_are_limits_too() -> None:
    facts = model(first_frame={"formats": ["jpg"], "max_bytes": 500})
    given = JobInput(InputRole.FIRST_FRAME, file(1280, 720, format_=FileFormat.WEBP))
    assert [one.code for one in fit_inputs("m", facts, SIZE, [given]).problems] == ["wrong_format", "too_large"]
    fitted = fit_inputs("m", facts, SIZE, [JobInput(InputRole.FIRST_FRAME, given.file, adjust=True)])
    assert fitted.conversions == [Conversion(FileFormat.JPEG, 1280, 720, max_bytes=500)]
    assert [one["used"] for one in fitted.adjustments] == ["jpg"]  # how many bytes that will be is not known


def test_a_picture_with_too_many_bytes_becomes_a_jpeg() -> None:
    facts = model(first_frame={"max_bytes": 500})
    fitted = fit_inputs("m", facts, SIZE, [JobInput(InputRole.FIRST_FRAME, file(1280, 720), adjust=True)])
    assert fitted.conversions == [Conversion(FileFormat.JPEG, 1280, 720, max_bytes=500)]
    assert [one["used"] for one in fitted.adjustments] == ["at most 500 bytes"]


def test_what_fits_is_only_made_upright() -> None:
    fitted = fit_inputs("m", model(first_frame={}), SIZE, [JobInput(InputRole.FIRST_FRAME, file(9, 7))])
    assert not fitted.problems
    assert not fitted.adjustments
    assert fitted.conversions == [Conversion(FileFormat.PNG, 9, 7, max_bytes=16_777_216)]


def test_a_model_says_which_roles_it_takes() -> None:
    fitted = fit_inputs("m", model(), SIZE, [JobInput(InputRole.LAST_FRAME, url="https://x")])
    assert [(one.field, one.code) for one in fitted.problems] == [("inputs[0].role", "unsupported")]
    fitted = fit_inputs("m", model(last_frame={}), SIZE, [JobInput(InputRole.LAST_FRAME, url="https://x")])
    assert not fitted.problems
    assert fitted.conversions == [None]


def test_a_model_may_need_a_picture() -> None:
    facts = model(first_frame={}).model_copy(update={"needs_input": True})
    (problem,) = fit_inputs("m", facts, SIZE, []).problems
    assert (problem.field, problem.code) == ("inputs", "required")
    assert "first_frame" in problem.message
