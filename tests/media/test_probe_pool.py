"""Videos are looked at elsewhere: what that costs, what it survives, and what it leaves behind."""

import asyncio
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.media import video as videos
from app.media.errors import NotPlayable, ProbeExhausted, StorageUnavailable, TooBig
from app.media.probe_pool import RETRIES, ProbePool, _rejected
from app.media.probe_process import MEMORY_BYTES, probe
from app.media.video import MAX_SIDE
from tests.support.sample_videos import cut, noise, video

pytestmark = pytest.mark.servers

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def examiner() -> Iterator[ProbePool]:
    examiner = ProbePool()
    yield examiner
    examiner.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(video())
    return path


def pids(examiner: ProbePool) -> list[int]:
    """Of the processes that have nothing to do."""
    return [process._process.pid for process in examiner._idle]


def of(pid: int, name: str) -> bytes:
    """What the system tells of a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def gone(pid: int) -> None:
    """Return once that process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)


async def test_what_is_found_is_what_is_there(examiner: ProbePool, good: Path) -> None:
    found, poster = await examiner.examine(good)
    assert found == videos.probe(good)
    assert poster == videos.poster(good)


async def test_one_process_looks_at_one_video_after_the_other(examiner: ProbePool, good: Path) -> None:
    examiner.warm()
    examiner.warm()
    before = pids(examiner)
    for _ in range(3):
        await examiner.examine(good)
    assert pids(examiner) == before
    assert len(before) == 1


async def test_refusals_come_through_and_the_process_goes_on(examiner: ProbePool, good: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(cut(video(), 0.8))
    large = tmp_path / "large.webm"
    large.write_bytes(video(container="webm", width=MAX_SIDE + 16, height=16, seconds=0.2))
    examiner.warm()
    before = pids(examiner)
    with pytest.raises(NotPlayable) as unplayable:
        await examiner.examine(broken)
    assert str(unplayable.value).startswith("The video cannot be played: it is truncated")
    with pytest.raises(TooBig, match=f"larger than {MAX_SIDE}x{MAX_SIDE}"):
        await examiner.examine(large)
    with pytest.raises(StorageUnavailable):
        await examiner.examine(tmp_path)
    await examiner.examine(good)
    assert pids(examiner) == before


@linux
async def test_a_video_that_is_looked_at_for_too_long_does_not_play(good: Path, tmp_path: Path) -> None:
    examiner = ProbePool(look_seconds=0.5)
    examiner.warm()
    (pid,) = pids(examiner)
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    with pytest.raises(ProbeExhausted, match="timed out"):
        await examiner.examine(endless)
    await asyncio.to_thread(gone, pid)
    assert pids(examiner) == []
    again = ProbePool()
    await again.examine(good)
    again.close()


@linux
async def test_a_video_that_takes_too_much_cpu_time_costs_its_process_only(good: Path, tmp_path: Path) -> None:
    examiner = ProbePool(cpu_seconds=0.1)
    examiner.warm()
    (pid,) = pids(examiner)
    heavy = tmp_path / "heavy.mp4"
    heavy.write_bytes(noise(3072))
    with pytest.raises(ProbeExhausted, match="too much time"):
        await examiner.examine(heavy)
    await asyncio.to_thread(gone, pid)
    for _ in range(3):
        await examiner.examine(good)
    assert len(pids(examiner)) == 1
    examiner.close()


@pytest.mark.parametrize(("cpu_seconds", "kind"), [(1e-9, ProbeExhausted), (60, NotPlayable)])
def test_a_damaged_video_that_was_expensive_to_probe_is_tried_less_often(
    tmp_path: Path, cpu_seconds: float, kind: type[NotPlayable]
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(cut(video(), 0.8))
    assert type(_rejected(probe(damaged, cpu_seconds)[0])) is kind


@linux
async def test_videos_that_are_tried_again_leave_room_for_fresh_ones(
    examiner: ProbePool, good: Path, tmp_path: Path
) -> None:
    endless = [tmp_path / f"{number}.mp4" for number in range(RETRIES + 1)]
    for path in endless:
        os.mkfifo(path)
    again = [asyncio.create_task(examiner.examine(path, retried=True)) for path in endless]
    with await asyncio.to_thread(endless[0].open, "wb"):  # returns once a process reads
        await examiner.examine(good)
        for task in again:
            task.cancel()
        await asyncio.gather(*again, return_exceptions=True)


async def test_a_process_that_dies_costs_one_video(examiner: ProbePool, good: Path) -> None:
    examiner.warm()
    (pid,) = pids(examiner)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NotPlayable, match="probing it failed"):
        await examiner.examine(good)
    await examiner.examine(good)


@linux
async def test_a_video_that_takes_too_much_memory_does_not_play(
    examiner: ProbePool, good: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(video(width=2048, height=2048, seconds=0.25))
    await examiner.examine(good)
    (pid,) = pids(examiner)
    assert resource.prlimit(pid, resource.RLIMIT_AS)[0] <= MEMORY_BYTES
    most = int(of(pid, "statm").split()[0]) * resource.getpagesize() + 1024 * 1024
    resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
    with pytest.raises(NotPlayable):
        await examiner.examine(large)
    examiner.close()
    await examiner.examine(large)


@linux
async def test_a_step_that_is_called_off_ends_the_process(examiner: ProbePool, tmp_path: Path) -> None:
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    examiner.warm()
    (pid,) = pids(examiner)
    looking = asyncio.create_task(examiner.examine(endless))
    with await asyncio.to_thread(endless.open, "wb"):  # returns once the process reads
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
    await asyncio.to_thread(gone, pid)


@linux
async def test_a_process_with_nothing_to_do_is_ended(good: Path) -> None:
    examiner = ProbePool(idle_seconds=0.2)
    await examiner.examine(good)
    (pid,) = pids(examiner)
    await asyncio.to_thread(gone, pid)
    assert pids(examiner) == []


@linux
async def test_a_worker_that_is_killed_leaves_no_process_behind() -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.media.probe_child", stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    pid = int(await worker.stdout.readline())
    worker.kill()
    await worker.wait()
    await asyncio.to_thread(gone, pid)


@linux
async def test_the_process_has_none_of_our_secrets_and_outlives_a_polite_signal(
    examiner: ProbePool, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILMGATE_SECRET_KEY", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    await examiner.examine(good)
    (pid,) = pids(examiner)
    assert b"canary" not in of(pid, "environ")
    os.kill(pid, signal.SIGTERM)
    await examiner.examine(good)
    assert pids(examiner) == [pid]
