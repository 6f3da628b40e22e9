"""Videos on their way in leave nothing behind, however their process ends."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from app.media.errors import StorageFull, StorageUnavailable
from app.media.spool import Spool
from app.settings import SettingsError
from tests.support.resource_limits import file_size_limit

HOLD_A_FILE = """
import pathlib, sys
from app.media.spool import Spool
with Spool(pathlib.Path(sys.argv[1]), 0).file(0) as spooled:
    spooled.write(b"half a video")
    print("written", flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def process_that_spools(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", HOLD_A_FILE, str(directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"written\n"
        yield process
    finally:
        process.stdin.close()
        await process.wait()


def files_in(directory: Path) -> int:
    return len(list(directory.iterdir()))


def test_a_spooled_file_knows_its_size_and_hash_and_goes_away(tmp_path: Path) -> None:
    with Spool(tmp_path, 0).file(10) as spooled:
        spooled.write(b"half ")
        spooled.write(b"video")
        assert spooled.path.read_bytes() == b"half video"
        assert (spooled.size, spooled.sha256) == (10, sha256(b"half video").digest())
        assert spooled.path.stat().st_mode & 0o077 == 0
    assert files_in(tmp_path) == 0


def test_a_spooled_file_goes_away_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Spool(tmp_path, 0).file(0):
        raise RuntimeError
    assert files_in(tmp_path) == 0


@pytest.mark.servers
async def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0)
    async with process_that_spools(tmp_path) as live:
        async with process_that_spools(tmp_path) as killed:
            assert spool.prepare() == 0
            assert files_in(tmp_path) == 2
            killed.kill()
            await killed.wait()
        assert spool.prepare() == 1
        assert files_in(tmp_path) == 1
        assert live.returncode is None


async def test_a_sweep_never_takes_a_file_from_a_live_writer(tmp_path: Path) -> None:
    spool, done = Spool(tmp_path, 0), threading.Event()

    def sweep() -> int:
        count = 0
        while not done.is_set():
            count += spool.prepare()
        return count

    sweeping = asyncio.create_task(asyncio.to_thread(sweep))
    try:
        for _ in range(300):
            with spool.file(0) as spooled:
                await asyncio.to_thread(spooled.write, b"video")
                assert spooled.path.stat().st_size == 5
    finally:
        done.set()
    await sweeping
    assert files_in(tmp_path) == 0


def test_nothing_but_its_own_files_is_removed(tmp_path: Path) -> None:
    (tmp_path / "somebody's.video").write_bytes(b"")
    assert Spool(tmp_path, 0).prepare() == 0
    assert (tmp_path / "somebody's.video").exists()


def test_without_a_directory_the_system_has_one() -> None:
    with Spool(None, 0).file(0) as spooled:
        assert spooled.path.parent.is_dir()


def test_the_directory_is_made(tmp_path: Path) -> None:
    Spool(tmp_path / "a" / "b", 0).prepare()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^assets\.spool: .*/file/spool cannot be used: Not a directory"):
        Spool(tmp_path / "file" / "spool", 0).prepare()


def test_a_directory_that_went_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable), Spool(tmp_path / "gone", 0).file(0):
        pass


def test_the_disk_is_never_filled_up(tmp_path: Path) -> None:
    with pytest.raises(StorageFull), Spool(tmp_path, 2**60).file(0):
        pass
    with pytest.raises(StorageFull), Spool(tmp_path, 0).file(2**60):
        pass


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with file_size_limit(1500), Spool(tmp_path, 0).file(0) as spooled:
        spooled.write(b"a" * 1000)
        with pytest.raises(StorageFull):
            spooled.write(b"a" * 1000)
    assert files_in(tmp_path) == 0
