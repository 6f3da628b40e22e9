"""Taking a video in: whole, checked, at most once paid for, and never at the cost of the disk."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from app.assets.ingest import Ingest
from app.media.errors import (
    MediaError,
    NotPlayable,
    StorageFull,
    TooBig,
    TookTooLong,
    Truncated,
)
from app.media.storage import Storage
from app.settings import AssetSettings
from tests.assets.conftest import incoming
from tests.support.resource_limits import file_size_limit, in_own_process, peak_memory
from tests.support.sample_videos import cut, padded, video
from tests.support.stores import in_pieces, read_all, settings_for

pytestmark = pytest.mark.servers  # a process reads each video

MEGABYTE = 1024 * 1024


@pytest.fixture
def intake(storage: Storage, settings: AssetSettings) -> Ingest:
    return Ingest(storage, settings)


def local(directory: Path, **more: Any) -> Ingest:
    """An intake whose store and spool are under ``directory``."""
    settings = settings_for((directory / "store").as_uri(), directory, **more)
    return Ingest(Storage.open(settings), settings)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_a_video_is_kept_byte_for_byte_with_a_poster(intake: Ingest, storage: Storage, tmp_path: Path) -> None:
    content = video(audio=True)
    order = incoming(content)

    stored = await intake.take_in(order)

    kept, poster = stored.video, stored.poster
    assert kept.object_key == f"{order.account_id}/{order.job_id}/video.mp4"
    assert await read_all(storage, kept.object_key, kept.size_bytes) == content
    assert (kept.sha256, kept.size_bytes) == (sha256(content).digest(), len(content))
    assert (kept.content_type, kept.codec, kept.width, kept.height) == ("video/mp4", "h264", 160, 96)
    assert (kept.seconds, kept.frame_rate, kept.has_audio) == (2, 12, True)
    assert poster.object_key == f"{order.account_id}/{order.job_id}/poster.jpg"
    assert sha256(await read_all(storage, poster.object_key, poster.size_bytes)).digest() == poster.sha256
    assert (poster.content_type, poster.codec, poster.seconds, poster.has_audio) == ("image/jpeg", "mjpeg", None, False)
    assert stored.deviations == []
    assert files(tmp_path / "spool") == []


async def test_taking_in_twice_keeps_one(tmp_path: Path) -> None:
    intake, content = local(tmp_path), video()
    first = await intake.take_in(incoming(content))
    again = await intake.take_in(
        incoming(content, job_id=first.video.job_id, account_id=first.video.account_id, expected_bytes=None)
    )
    assert again.video.object_key == first.video.object_key
    assert {path.name for path in files(tmp_path)} == {"video.mp4", "poster.jpg"}


async def test_the_name_follows_what_the_video_is(tmp_path: Path) -> None:
    stored = await local(tmp_path).take_in(incoming(video(container="webm")))
    assert stored.video.object_key.endswith("/video.webm")
    assert stored.video.content_type == "video/webm"


@pytest.mark.parametrize(
    ("ordered", "deviations"),
    [
        ({"seconds": 2, "width": 160, "height": 96}, []),
        ({"seconds": 8}, [{"field": "seconds", "requested": 8, "actual": 2.0}]),
        ({"width": 1280, "height": 720}, [{"field": "size", "requested": "1280x720", "actual": "160x96"}]),
    ],
)
async def test_a_video_that_is_not_what_was_ordered_is_kept_and_says_so(
    tmp_path: Path, ordered: dict[str, int], deviations: list[dict[str, object]]
) -> None:
    assert (await local(tmp_path).take_in(incoming(video(), **ordered))).deviations == deviations


async def test_a_video_that_is_recorded_lying_and_shown_upright_is_what_was_ordered(tmp_path: Path) -> None:
    stored = await local(tmp_path).take_in(incoming(video(rotation=90), width=96, height=160))
    assert stored.deviations == []
    assert (stored.video.width, stored.video.height) == (stored.poster.width, stored.poster.height) == (96, 160)


@pytest.mark.parametrize(("seconds", "differs"), [(2.5, False), (2.6, True), (10, False)])
async def test_small_differences_of_length_are_none(tmp_path: Path, seconds: float, differs: bool) -> None:
    ordered = 11 if seconds == 10 else 2
    content = video(seconds=seconds, rate=10, width=32, height=32)
    stored = await local(tmp_path).take_in(incoming(content, seconds=ordered, width=32, height=32))
    assert bool(stored.deviations) is differs


# What is refused leaves nothing behind -------------------------------------------------------------------------------


async def refused(
    intake: Ingest, directory: Path, kind: type[MediaError], *arguments: Any, **changes: Any
) -> MediaError:
    with pytest.raises(kind) as caught:
        await intake.take_in(incoming(*arguments, **changes))
    assert files(directory) == []
    return caught.value


async def test_a_video_that_is_announced_too_big_is_not_even_begun(tmp_path: Path) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        pytest.fail("the video was read")
        yield b""

    chunks = untouched()
    error = await refused(local(tmp_path, max_bytes=1000), tmp_path, TooBig, chunks, expected_bytes=1001)
    assert not error.retryable


async def test_a_video_that_turns_out_too_big_is_cut_short(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += MEGABYTE
            yield bytes(MEGABYTE)

    await refused(local(tmp_path, max_bytes=5 * MEGABYTE), tmp_path, TooBig, endless())
    assert sent == 6 * MEGABYTE


@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_video_of_another_size_than_announced_may_be_fetched_again(tmp_path: Path, difference: int) -> None:
    error = await refused(local(tmp_path), tmp_path, Truncated, video(), expected_bytes=len(video()) + difference)
    assert error.retryable


async def test_a_video_that_does_not_play_may_be_fetched_again(tmp_path: Path) -> None:
    for content in (cut(video(), 0.8), b"<html>", b""):
        assert (await refused(local(tmp_path), tmp_path, NotPlayable, content)).retryable


async def test_a_video_that_does_not_arrive_in_time_may_be_fetched_again(tmp_path: Path) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield video()[:100]
        await asyncio.Event().wait()

    assert (await refused(local(tmp_path, fetch_timeout=0.2), tmp_path, TookTooLong, stuck())).retryable


@pytest.mark.parametrize("error", [ConnectionResetError("away"), TimeoutError("slow")])
async def test_the_senders_own_error_comes_through(tmp_path: Path, error: Exception) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield video()[:100]
        raise error

    with pytest.raises(type(error)) as caught:
        await local(tmp_path).take_in(incoming(broken()))
    assert caught.value is error
    assert files(tmp_path) == []


async def test_a_disk_that_must_keep_some_room_takes_nothing_in(tmp_path: Path) -> None:
    error = await refused(local(tmp_path, min_free_bytes=2**60), tmp_path, StorageFull, video())
    assert error.retryable


async def test_a_disk_that_is_full_half_way_is_told(tmp_path: Path) -> None:
    before, nothing = padded(video(), 4 * MEGABYTE)
    with file_size_limit(MEGABYTE):
        await refused(local(tmp_path), tmp_path, StorageFull, before + bytes(nothing))


async def test_a_step_that_is_called_off_leaves_nothing(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield bytes(3 * MEGABYTE)
        reached.set()
        await asyncio.Event().wait()

    taking = asyncio.create_task(local(tmp_path).take_in(incoming(stuck())))
    await reached.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert files(tmp_path) == []


# Memory --------------------------------------------------------------------------------------------------------------


def _growth(directory: str, megabytes: int) -> int:
    """How much more memory a process needs for a large video, after a small one."""

    async def take_in() -> int:
        intake = local(Path(directory))
        await intake.take_in(incoming(video()))
        before = peak_memory()
        start, nothing = padded(video(), megabytes * MEGABYTE)

        async def large() -> AsyncIterator[bytes]:
            yield start
            for _ in range(nothing // 65_536):
                yield bytes(65_536)
            yield bytes(nothing % 65_536)

        stored = await intake.take_in(incoming(large()))
        assert stored.video.size_bytes == len(start) + nothing
        return peak_memory() - before

    return asyncio.run(take_in())


async def test_memory_stays_flat_however_large_the_video(tmp_path: Path) -> None:
    assert await asyncio.to_thread(in_own_process, _growth, str(tmp_path), 300) < 50 * MEGABYTE
    for path in files(tmp_path):
        path.unlink()


async def test_small_pieces_and_one_large_one_are_the_same_video(tmp_path: Path) -> None:
    content = video()
    for size in (1, len(content)):
        stored = await local(tmp_path).take_in(incoming(in_pieces(content, size), expected_bytes=len(content)))
        assert stored.video.sha256 == sha256(content).digest()
