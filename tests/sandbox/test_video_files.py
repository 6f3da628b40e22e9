"""The videos: playable, exactly as ordered, and always the same."""

import io
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from app.sandbox.overlay import legible
from app.sandbox.picture import Shot
from app.sandbox.render import Stopped, render
from app.sandbox.video_files import Video, Videos, VideosClosed
from tests.sandbox.server import Client


def make(shot: Shot, directory: Path) -> Video:
    directory.mkdir(exist_ok=True)
    video = Video(directory / "video.mp4", directory / "poster.webp")
    assert list(render(shot, video.path, video.poster, threading.Event()))
    return video


def leftovers(directory: Path) -> list[Path]:
    return list(directory.glob("*.part"))


async def test_the_video_has_exactly_the_ordered_size_and_length(client: Client) -> None:
    order = {"prompt": "a fox", "size": "320x180", "seconds": "3"}
    created = await client.post("openai/v1/videos", json=order)
    path = f"openai/v1/videos/{created.json['id']}"
    await client.wait_until(path)
    video = await client.get(f"{path}/content")
    with av.open(io.BytesIO(video.body), "r") as container:
        (stream,) = container.streams
        assert isinstance(stream, av.VideoStream)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (320, 180)
        assert stream.average_rate == Fraction(24)
        assert container.duration == 3 * av.time_base
        frames = list(container.decode(stream))
        assert len(frames) == 72
        assert frames[0].pts == 0


async def test_the_video_can_be_played_while_it_is_loading(client: Client) -> None:
    path = await client.buy("a fox")
    await client.wait_until(path)
    video = (await client.get(f"{path}/content")).body
    assert video.index(b"moov") < video.index(b"mdat")
    part = await client.get(f"{path}/content", headers={"Range": "bytes=4-7"})
    assert (part.status, part.body) == (206, b"ftyp")


@pytest.mark.parametrize(
    "shot",
    [
        Shot("", 64, 64, 1),
        Shot("Füchse – eine Übersicht; лиса", 96, 640, 1),
        Shot("owl " * 300, 640, 96, 0.5),
        Shot("an endless" + "word" * 200, 360, 640, 0.05),
        Shot("a lone surrogate \ud800 and a bell \x07", 128, 128, 0.1),
    ],
)
def test_any_prompt_fits_into_any_frame(shot: Shot, tmp_path: Path) -> None:
    video = make(shot, tmp_path)
    with av.open(str(video.path)) as container:
        assert len(list(container.decode(video=0))) == max(1, round(shot.seconds * 24))
    with Image.open(video.poster) as poster:
        assert poster.size == (shot.width, shot.height)


def test_without_a_wider_font_accents_are_dropped() -> None:
    text, _ = legible("Füchse – „déjà vu“", wide_font="no-such-font.ttf")
    assert text == 'Fuchse - deja vu"'


def test_the_same_order_always_gives_the_same_video(tmp_path: Path) -> None:
    shot = Shot("a fox in the snow", 320, 180, 1)
    first, second = make(shot, tmp_path / "1"), make(shot, tmp_path / "2")
    other = make(Shot("a bear in the snow", 320, 180, 1), tmp_path / "3")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.poster.read_bytes() == second.poster.read_bytes()
    assert other.path.read_bytes() != first.path.read_bytes()


def test_the_picture_moves(tmp_path: Path) -> None:
    video = make(Shot("a fox", 128, 128, 1), tmp_path)
    with av.open(str(video.path)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert abs(pictures[0].astype(int) - pictures[-1]).mean() > 1


def test_a_making_can_be_broken_off(tmp_path: Path) -> None:
    stop = threading.Event()
    making = render(Shot("a fox", 64, 64, 60), tmp_path / "f.mp4", tmp_path / "f.webp", stop)
    assert 0 < next(making) < 1
    stop.set()
    with pytest.raises(Stopped):
        next(making)


async def test_a_video_is_made_once_and_found_again(tmp_path: Path) -> None:
    shot = Shot("a fox", 64, 64, 0.1)
    videos = Videos(tmp_path)
    first, second = videos.order(shot), videos.order(shot)
    assert first is second
    video = await first.video()
    made_at = video.path.stat().st_mtime_ns
    videos.close()
    later = Videos(tmp_path)
    assert await later.order(shot).video() == video
    later.close()
    assert video.path.stat().st_mtime_ns == made_at
    assert not leftovers(tmp_path)


async def test_closing_breaks_off_what_is_being_made(tmp_path: Path) -> None:
    videos = Videos(tmp_path)
    makings = [videos.order(Shot(f"fox {number}", 64, 64, 60)) for number in range(4)]
    videos.close()
    for making in makings:
        with pytest.raises(VideosClosed):
            await making.video()


async def test_a_directory_that_cannot_be_written_fails_the_video_and_is_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "videos"
    place.write_text("not a directory")
    videos = Videos(place)
    shot = Shot("a fox", 64, 64, 0.1)
    with pytest.raises(OSError, match="videos"):
        await videos.order(shot).video()
    place.unlink()
    assert (await videos.order(shot).video()).path.exists()
    videos.close()
