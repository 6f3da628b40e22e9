"""What a video shows of the inputs of its create, by pixels."""

import asyncio
import io
import threading
from pathlib import Path

import pytest
from PIL import Image

from app.sandbox.frame_rate import FPS
from app.sandbox.input_files import InputFiles
from app.sandbox.inputs import Input, InputRules, InputSource, InvalidInput, Operation, Role, total_seconds
from app.sandbox.insertions import FADE, TINT, inset_places, inset_side
from app.sandbox.picture import Shot
from app.sandbox.render import render
from app.sandbox.video_files import Videos
from tests.sandbox.pictures import (
    BLUE,
    GREEN,
    OTHER,
    RED,
    SAME,
    YELLOW,
    Colour,
    Pixels,
    clip,
    difference,
    frames_of,
    halves,
    is_coloured,
    pixels,
    shows,
)
from tests.support.sample_files import animation, huge_picture, sound

SIZE = WIDTH, HEIGHT = 320, 180


async def given(
    directory: Path, content: bytes, role: Role = Role.FIRST_FRAME, operation: Operation | None = None
) -> Input:
    files = InputFiles(lambda: directory)
    return await files.read(InputSource(role, "input", content, operation=operation), InputRules())


def rendered(directory: Path, *inputs: Input, seconds: float = 1, size: tuple[int, int] = SIZE) -> list[Pixels]:
    shot = Shot("a fox", *size, total_seconds(seconds, inputs), inputs)
    assert list(render(shot, directory / "v.mp4", directory / "v.webp", threading.Event()))
    return frames_of((directory / "v.mp4").read_bytes())


async def test_the_first_frame_is_the_picture_and_fades_into_the_usual_one(tmp_path: Path) -> None:
    first = halves(RED, BLUE)
    usual = rendered(tmp_path)
    frames = rendered(tmp_path, await given(tmp_path, first))
    assert len(frames) == len(usual) == 24
    assert shows(frames[0], first)
    assert difference(frames[0], usual[0]) > OTHER
    away = [difference(frame, pixels(first)) for frame in frames[: FADE - 1]]
    assert away == sorted(away)
    assert all(difference(*pair) < SAME for pair in zip(frames[FADE:], usual[FADE:], strict=True))


async def test_the_last_frame_is_the_picture(tmp_path: Path) -> None:
    first, last = halves(RED, BLUE), halves(GREEN, YELLOW, kind="JPEG")
    frames = rendered(tmp_path, await given(tmp_path, first), await given(tmp_path, last, Role.LAST_FRAME))
    assert shows(frames[0], first)
    assert shows(frames[-1], last)
    assert difference(frames[12], pixels(first)) > OTHER
    assert difference(frames[12], pixels(last)) > OTHER


async def test_a_video_of_two_frames_shows_both_ends(tmp_path: Path) -> None:
    first, last = halves(RED, BLUE), halves(GREEN, YELLOW)
    inputs = await given(tmp_path, first), await given(tmp_path, last, Role.LAST_FRAME)
    start, end = rendered(tmp_path, *inputs, seconds=2 / FPS)
    assert shows(start, first)
    assert shows(end, last)


async def test_a_picture_covers_the_frame_and_is_centred(tmp_path: Path) -> None:
    tall = Image.new("RGB", (200, 600), RED)
    tall.paste(GREEN, (0, 260, 200, 340))  # the middle is 200x112 of it
    target = io.BytesIO()
    tall.save(target, "WEBP", lossless=True)
    frame = rendered(tmp_path, await given(tmp_path, target.getvalue()))[0]
    assert is_coloured(frame[80:100], GREEN)
    assert is_coloured(frame[:20], RED)
    assert is_coloured(frame[-20:], RED)


async def test_the_orientation_of_a_photo_is_ignored(tmp_path: Path) -> None:
    photo = halves(RED, BLUE, kind="JPEG", turned=6)
    first = await given(tmp_path, photo)
    assert (first.width, first.height) == SIZE
    frame = rendered(tmp_path, first)[0]
    assert is_coloured(frame[:, :150], RED)
    assert is_coloured(frame[:, 170:], BLUE)


@pytest.mark.parametrize("size", [(320, 180), (96, 128)])
async def test_references_are_in_a_row_at_the_top(tmp_path: Path, size: tuple[int, int]) -> None:
    colours: list[Colour] = [RED, GREEN, BLUE, YELLOW, RED]
    inputs = [await given(tmp_path, halves(one, one), Role.REFERENCE_IMAGE) for one in colours]
    frames, side = rendered(tmp_path, *inputs, size=size), inset_side(*size)
    for frame in (frames[0], frames[-1]):
        for (left, top), colour in zip(inset_places(5, *size), colours, strict=True):
            assert is_coloured(frame[top + 4 : top + side - 4, left + 4 : left + side - 4], colour)


async def test_references_leave_the_first_frame_alone(tmp_path: Path) -> None:
    first = halves(BLUE, BLUE)
    reference = await given(tmp_path, clip(RED), Role.REFERENCE_VIDEO)
    frames = rendered(tmp_path, await given(tmp_path, first), reference)
    assert shows(frames[0], first)
    assert is_coloured(frames[FADE][8:36, 8:36], RED)


def test_the_documented_geometry() -> None:
    assert inset_side(320, 180) == 36
    assert inset_places(8, 320, 180) == [*((4 + 40 * index, 4) for index in range(7)), (4, 44)]


async def test_an_extension_continues_from_the_last_frame_of_its_source(tmp_path: Path) -> None:
    source = await given(tmp_path, clip(RED, GREEN), Role.SOURCE_VIDEO, Operation.EXTEND)
    frames = rendered(tmp_path, source)
    assert source.frames == 24
    assert len(frames) == 48
    assert is_coloured(frames[0], RED)
    assert is_coloured(frames[11], RED)
    assert all(is_coloured(frame, GREEN) for frame in (frames[12], frames[23], frames[24]))
    assert not is_coloured(frames[-1], GREEN)


async def test_an_extension_may_have_a_last_frame(tmp_path: Path) -> None:
    source = await given(tmp_path, clip(RED), Role.SOURCE_VIDEO, Operation.EXTEND)
    last = halves(GREEN, YELLOW)
    frames = rendered(tmp_path, source, await given(tmp_path, last, Role.LAST_FRAME))
    assert is_coloured(frames[11], RED)
    assert shows(frames[-1], last)


async def test_a_source_of_another_rate_and_size_keeps_its_length(tmp_path: Path) -> None:
    content = clip(RED, GREEN, size=(128, 128), rate=12, each=12)
    source = await given(tmp_path, content, Role.SOURCE_VIDEO, Operation.EXTEND)
    frames = rendered(tmp_path, source, seconds=0.5)
    assert (source.frames, len(frames)) == (48, 60)
    assert is_coloured(frames[23], RED)
    assert is_coloured(frames[24], GREEN)


async def test_an_edit_is_its_source_tinted(tmp_path: Path) -> None:
    grey = (128, 128, 128)
    source = await given(tmp_path, clip(grey, grey), Role.SOURCE_VIDEO, Operation.EDIT)
    reference = await given(tmp_path, halves(GREEN, GREEN), Role.REFERENCE_IMAGE)
    frames = rendered(tmp_path, source, reference, seconds=5)
    assert len(frames) == 24
    red, _, blue = (float(value) for value in frames[0][60:].reshape(-1, 3).mean(axis=0))
    # U and V of grey are 128; they are now half-way to the tint.
    assert red > 128 + (TINT[1] - 128) / 2
    assert blue < 128 + (TINT[0] - 128) / 2
    assert is_coloured(frames[12][8:36, 8:36], GREEN)


async def test_the_same_prompt_with_another_picture_is_another_video(tmp_path: Path) -> None:
    videos, pictures = Videos(tmp_path), (halves(RED, BLUE), halves(GREEN, YELLOW))
    inputs = [await given(tmp_path, content) for content in pictures]
    last = await given(tmp_path, pictures[0], Role.LAST_FRAME)
    shots = [Shot("a fox", *SIZE, 0.25, given) for given in ((), (inputs[0],), (inputs[1],), (last,))]
    paths = [(await videos.order(shot).video()).path for shot in shots]
    videos.close()
    assert len(set(paths)) == 4
    for path, picture in zip(paths[1:3], pictures, strict=True):
        assert shows(frames_of(path.read_bytes())[0], picture)
    later = Videos(tmp_path)
    assert [(await later.order(shot).video()).path for shot in shots] == paths
    later.close()


@pytest.mark.parametrize(
    ("content", "role", "reason"),
    [
        (b"", Role.FIRST_FRAME, "damaged"),
        (halves()[:300], Role.FIRST_FRAME, "damaged"),
        (huge_picture(), Role.FIRST_FRAME, "damaged"),
        (animation("GIF"), Role.FIRST_FRAME, "damaged"),
        (clip(RED), Role.FIRST_FRAME, "damaged"),
        (halves(), Role.SOURCE_VIDEO, "damaged"),
        (sound("m4a"), Role.SOURCE_VIDEO, "damaged"),
        (clip(RED)[:500], Role.SOURCE_VIDEO, "damaged"),
    ],
)
async def test_what_is_no_picture_or_video_is_invalid(tmp_path: Path, content: bytes, role: Role, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        await given(tmp_path, content, role)


async def test_equal_bytes_are_kept_once(tmp_path: Path) -> None:
    inputs = await asyncio.gather(*(given(tmp_path, halves(), role) for role in (Role.FIRST_FRAME, Role.LAST_FRAME)))
    assert inputs[0].path == inputs[1].path
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == [inputs[0].sha256]
