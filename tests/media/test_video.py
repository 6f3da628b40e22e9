"""What counts as a video, and what a hostile one gets."""

import socket
from io import BytesIO
from pathlib import Path

import av
import pytest

from app.media.decode_budget import DecodeBudget
from app.media.errors import NotPlayable, TooBig
from app.media.info import Container, VideoInfo
from app.media.video import poster, probe
from tests.support.sample_videos import cut, sound_only, still, video, with_hole


def on_disk(directory: Path, content: bytes) -> Path:
    path = directory / "video.mp4"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("container", "codec", "content_type"),
    [
        ("mp4", "h264", "video/mp4"),
        ("mov", "h264", "video/quicktime"),
        ("webm", "vp8", "video/webm"),
        ("mkv", "h264", "video/x-matroska"),
    ],
)
def test_a_video_is_described_by_what_is_in_it(tmp_path: Path, container: str, codec: str, content_type: str) -> None:
    # The name says MP4 each time.
    found = probe(on_disk(tmp_path, video(container=container, audio=True)))

    assert found.container.value == container
    assert found.container.content_type == content_type
    assert (found.codec, found.width, found.height, found.frame_rate) == (codec, 160, 96, 12)
    assert found.seconds == pytest.approx(2, abs=0.05)
    assert found.has_audio


def test_a_silent_video_has_no_audio(tmp_path: Path) -> None:
    assert probe(on_disk(tmp_path, video())) == VideoInfo(Container.MP4, "h264", 160, 96, 2, 12, has_audio=False)


@pytest.mark.parametrize("options", [{"key_every": 1}, {"key_every": 5}, {"index_first": False}, {"seconds": 1 / 12}])
def test_ordinary_videos_are_playable(tmp_path: Path, options: dict[str, float]) -> None:
    assert probe(on_disk(tmp_path, video(**options))).seconds == pytest.approx(options.get("seconds", 2), abs=0.01)


def test_names_that_are_not_unicode_do_no_harm(tmp_path: Path) -> None:
    content = video(title="a title")
    assert b"a title" in content
    probe(on_disk(tmp_path, content.replace(b"a title", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9")))


@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("index_first", [True, False])
def test_a_video_that_was_cut_off_is_noticed(tmp_path: Path, index_first: bool, part: float) -> None:
    content = cut(video(audio=True, index_first=index_first), part)
    with pytest.raises(NotPlayable) as caught:
        probe(on_disk(tmp_path, content))
    assert caught.value.retryable


@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_a_video_without_an_index_that_was_cut_off_is_noticed(tmp_path: Path, container: str) -> None:
    with pytest.raises(NotPlayable):
        probe(on_disk(tmp_path, cut(video(container=container), 0.6)))


@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.7), (0.6, 1.0)])
def test_a_video_with_a_hole_at_either_end_is_noticed(tmp_path: Path, begin: float, end: float) -> None:
    with pytest.raises(NotPlayable):
        probe(on_disk(tmp_path, with_hole(video(key_every=6), begin, end)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"<!doctype html><title>404</title>",
        bytes(range(256)) * 64,
        b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 64,
        b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 64,
        b"\x00\x00\x00\x08moov",
        sound_only(),
    ],
    ids=["nothing", "a byte", "html", "noise", "noise as mp4", "noise as webm", "empty index", "sound"],
)
def test_what_is_no_video_is_not_playable(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotPlayable) as caught:
        probe(on_disk(tmp_path, content))
    assert str(tmp_path) not in caught.value.message


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXTINF:9,\n{file}\n#EXT-X-ENDLIST\n",
    "hls, other file first": '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{file}"\n{url}\n',
    "concat": "ffconcat version 1.0\nfile '{file}'\nfile '{url}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "mp4 head": "\0\0\0\x18ftypmp42\0\0\0\0\n#EXTM3U\n#EXTINF:9,\n{url}\n",
    "webm head": "\x1aEß£webm\n#EXTM3U\n#EXTINF:9,\n{url}\n",
}


@pytest.mark.parametrize("playlist", PLAYLISTS.values(), ids=PLAYLISTS)
def test_a_playlist_opens_no_other_file_and_no_connection(tmp_path: Path, playlist: str) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(video())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        text = playlist.format(url=f"http://127.0.0.1:{port}/video.mp4", file=other, port=port)
        for look in (probe, poster):
            with pytest.raises(NotPlayable):
                look(on_disk(tmp_path, text.encode("latin-1")))
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_picture_beyond_the_bound_is_refused_for_good(tmp_path: Path) -> None:
    with pytest.raises(TooBig) as caught:
        probe(on_disk(tmp_path, video(width=8208, height=16, seconds=0.5)))
    assert not caught.value.retryable


def test_a_video_beyond_an_hour_is_refused_for_good(tmp_path: Path) -> None:
    with pytest.raises(TooBig):
        probe(on_disk(tmp_path, video(width=32, height=32, seconds=3610, rate=1)))


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(160, 96, (160, 96)), (1600, 64, (1280, 51)), (64, 2560, (32, 1280))]
)
def test_a_poster_is_a_jpeg_of_at_most_1280_pixels(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    made = poster(on_disk(tmp_path, video(width=width, height=height, seconds=0.5)))

    assert (made.width, made.height) == expected
    with av.open(BytesIO(made.jpeg), "r", format="jpeg_pipe") as source:
        picture = next(source.decode(video=0))
    assert (picture.width, picture.height) == expected


def test_a_poster_comes_from_a_third_into_the_video(tmp_path: Path) -> None:
    whole, later = video(key_every=1), video(key_every=1, seconds=6)
    # The same pictures, so the posters differ only by the time that they are taken at.
    first, second = (poster(on_disk(tmp_path, content)).jpeg for content in (whole, later))
    assert first != second


def test_a_video_that_breaks_off_before_its_third_still_has_a_poster(tmp_path: Path) -> None:
    content = with_hole(video(seconds=6, key_every=6), 0.25, 1.0)
    assert poster(on_disk(tmp_path, content)).width == 160


# What decoding may cost ----------------------------------------------------------------------------------------------

SIDE, FRAMES = 512, 400
PICTURE = SIDE * SIDE


def test_a_video_that_is_small_to_store_and_expensive_to_decode_is_kept_at_a_bounded_cost(tmp_path: Path) -> None:
    path = on_disk(tmp_path, still(SIDE, FRAMES))
    assert path.stat().st_size < 50_000
    budget = DecodeBudget(pixels=40 * PICTURE)

    found, made = probe(path, budget), poster(path, budget)

    assert (found.width, found.height) == (SIDE, SIDE)
    assert found.seconds == pytest.approx(FRAMES / 24, abs=0.05)
    assert (made.width, made.height) == (SIDE, SIDE)
    assert 30 * PICTURE < budget.spent_pixels <= 42 * PICTURE


def test_a_video_within_the_budget_is_decoded_up_to_the_goals(tmp_path: Path) -> None:
    path, budget = on_disk(tmp_path, still(SIDE, FRAMES)), DecodeBudget()
    probe(path, budget)
    assert budget.spent_pixels > FRAMES // 2 * PICTURE


def test_the_size_that_the_container_claims_does_not_make_pictures_cheaper(tmp_path: Path) -> None:
    content = still(SIDE, FRAMES)
    entry = content.index(b"avc1", content.index(b"stsd")) + 28
    assert content[entry : entry + 4] == SIDE.to_bytes(2, "big") * 2
    path = on_disk(tmp_path, content[:entry] + (16).to_bytes(2, "big") * 2 + content[entry + 4 :])
    budget = DecodeBudget(pixels=40 * PICTURE)
    probe(path, budget)
    poster(path, budget)
    assert budget.spent_pixels <= 42 * PICTURE


def test_without_cpu_time_the_beginning_and_the_end_are_still_looked_at(tmp_path: Path) -> None:
    path, budget = on_disk(tmp_path, still(SIDE, FRAMES)), DecodeBudget(cpu_seconds=0)
    probe(path, budget)
    poster(path, budget)
    assert 0 < budget.spent_pixels < 60 * PICTURE
