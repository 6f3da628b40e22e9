"""Both kinds of store keep the same promises."""

import asyncio
import os
import socket
import tempfile
from pathlib import Path

import boto3
import pytest

from app.media.errors import StorageFull, StorageUnavailable
from app.media.storage import BUCKET_READ_BYTES, CHUNK_BYTES, PART_BYTES, Storage
from app.settings import AssetSettings, SettingsError
from tests.support.resource_limits import file_size_limit, in_own_process, peak_memory
from tests.support.s3 import CREDENTIAL, REGION, S3
from tests.support.stores import IN_BUCKET, read_all, settings_for

KEY = "account/job/video.mp4"
MEGABYTE = 1024 * 1024
ELSEWHERE = Path("/dev/shm")  # another file system than that of the store, where there is one
LARGE = 2 * BUCKET_READ_BYTES + 12_345


async def put(storage: Storage, content: bytes | Path, key: str = KEY) -> None:
    await storage.put(key, content, "video/mp4")


def a_file(directory: Path, content: bytes) -> Path:
    path = directory / "to put"
    path.write_bytes(content)
    return path


async def test_what_is_put_is_read_back_in_chunks_of_a_megabyte(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(251)) * (LARGE // 251)
    await put(storage, a_file(tmp_path, content))

    chunks = [chunk async for chunk in storage.read(KEY, 0, len(content))]

    assert b"".join(chunks) == content
    assert max(map(len, chunks)) == CHUNK_BYTES


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (5, 9), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (LARGE - 1, LARGE), (7, LARGE), (3, 3)]
)
async def test_any_part_can_be_read(storage: Storage, start: int, end: int) -> None:
    content = (b"0123456789abc" * (LARGE // 13 + 1))[:LARGE]
    await put(storage, content)
    assert b"".join([chunk async for chunk in storage.read(KEY, start, end)]) == content[start:end]


async def test_the_last_put_counts(storage: Storage) -> None:
    await put(storage, b"first")
    await put(storage, b"other")
    assert await read_all(storage, KEY, 5) == b"other"


async def test_a_reader_never_sees_half_a_file(storage: Storage, tmp_path: Path) -> None:
    size = 3 * PART_BYTES
    await put(storage, b"1" * size)
    putting = asyncio.create_task(put(storage, a_file(tmp_path, b"2" * size)))
    seen = set()
    while not putting.done():
        seen.add(b"".join([chunk async for chunk in storage.read(KEY, size - 1, size)]))
    await putting

    assert seen <= {b"1", b"2"}
    assert await read_all(storage, KEY, size) == b"2" * size


async def test_a_put_that_is_called_off_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    size = 3 * PART_BYTES
    await put(storage, b"1" * size)
    putting = asyncio.create_task(put(storage, a_file(tmp_path, b"2" * size)))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await read_all(storage, KEY, size) == b"1" * size


async def test_deleting_twice_is_fine(storage: Storage) -> None:
    await put(storage, b"video")
    await storage.delete(KEY)
    await storage.delete(KEY)
    with pytest.raises(StorageUnavailable):
        await read_all(storage, KEY, 5)


async def test_a_shorter_object_than_expected_is_an_error(storage: Storage) -> None:
    await put(storage, b"video")
    with pytest.raises(StorageUnavailable):
        await read_all(storage, KEY, 6)


async def test_a_file_that_vanished_cannot_be_put(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await put(storage, tmp_path / "gone")


async def test_a_usable_store_passes_the_check(storage: Storage) -> None:
    await storage.check()
    await storage.check()


# A directory ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_leaves_what_was_there(in_directory: AssetSettings, tmp_path: Path) -> None:
    storage = Storage.open(in_directory)
    await put(storage, b"old video")
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as elsewhere:
        large = a_file(Path(elsewhere), bytes(3 * PART_BYTES))
        for content in (large, bytes(2 * MEGABYTE)):
            with file_size_limit(MEGABYTE), pytest.raises(StorageFull) as caught:
                await put(storage, content)
            assert caught.value.retryable
    assert await read_all(storage, KEY, 9) == b"old video"
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == ["video.mp4"]


async def test_a_file_on_the_same_disk_is_not_copied(in_directory: AssetSettings, tmp_path: Path) -> None:
    storage = Storage.open(in_directory)
    await put(storage, b"old video")
    video = a_file(tmp_path, b"new video")
    await put(storage, video)
    kept = tmp_path / "store" / KEY
    assert kept.samefile(video)
    assert kept.stat().st_mode & 0o777 == 0o644
    video.unlink()
    assert await read_all(storage, KEY, 9) == b"new video"
    assert [path.name for path in kept.parent.iterdir()] == ["video.mp4"]


@pytest.mark.skipif(not ELSEWHERE.is_dir(), reason="needs a second file system")
async def test_a_file_on_another_disk_is_copied(in_directory: AssetSettings, tmp_path: Path) -> None:
    storage = Storage.open(in_directory)
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as elsewhere:
        await put(storage, a_file(Path(elsewhere), b"new video"))
    assert await read_all(storage, KEY, 9) == b"new video"
    assert [path.name for path in (tmp_path / "store" / KEY).parent.iterdir()] == ["video.mp4"]


async def test_a_directory_is_never_filled_up(tmp_path: Path) -> None:
    storage = Storage.open(settings_for((tmp_path / "store").as_uri(), tmp_path, min_free_bytes=2**60))
    with pytest.raises(StorageFull):
        await put(storage, b"video")
    with pytest.raises(StorageFull):
        await storage.check()


async def test_an_object_takes_the_remains_of_killed_writers_along(in_directory: AssetSettings, tmp_path: Path) -> None:
    storage = Storage.open(in_directory)
    await put(storage, b"video")
    await put(storage, b"poster", "account/other job/poster.jpg")
    (tmp_path / "store" / f"{KEY}#1").write_bytes(b"half a video")
    await storage.delete(KEY)
    assert sorted(str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*")) == [
        "account",
        "account/other job",
        "account/other job/poster.jpg",
    ]


async def test_a_directory_that_went_away_is_told(in_directory: AssetSettings, tmp_path: Path) -> None:
    storage = Storage.open(in_directory)
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        await storage.check()


def test_a_directory_is_made_when_it_is_opened(tmp_path: Path) -> None:
    Storage.open(settings_for((tmp_path / "some where" / "deep").as_uri(), tmp_path))
    assert (tmp_path / "some where" / "deep").is_dir()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^assets\.store: .*/file/store cannot be made: Not a directory"):
        Storage.open(settings_for((tmp_path / "file" / "store").as_uri(), tmp_path))


@pytest.mark.parametrize(
    ("store", "options", "words"),
    [
        ("videos", {}, "is not a file://, s3://, gs:// or az:// URL"),
        ("ftp://videos", {}, "is not a file://, s3://, gs:// or az:// URL"),
        ("memory:///", {}, "is not a file://, s3://, gs:// or az:// URL"),
        ("file://videos/here", {}, "is not of the form file:///absolute/path"),
        ("file:videos", {}, "is not of the form file:///absolute/path"),
        ("file:///videos", {"region": "x"}, "a local directory has no options"),
        ("s3://videos", {"regoin": "x"}, "'regoin' is not valid"),
        ("s3://videos", {"timeout": "soon"}, "soon"),
        ("s3:///", {}, "assets.store"),
        ("az://videos", {}, "Account must be specified"),
    ],
)
def test_a_store_that_cannot_be_meant_is_a_clear_error(
    tmp_path: Path, store: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=r"^assets\.store") as caught:
        Storage.open(settings_for(store, tmp_path, store_options=options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("store", ["gs://videos/prefix", "az://videos/prefix"])
def test_the_other_clouds_are_opened_by_their_urls(tmp_path: Path, store: str) -> None:
    options = {"account_name": "videos"} if store.startswith("az") else {}
    Storage.open(settings_for(store, tmp_path, store_options=options))


# A bucket ------------------------------------------------------------------------------------------------------------


async def test_an_object_in_a_bucket_has_its_place_and_its_type(s3: S3, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    storage = Storage.open(settings_for(f"s3://{bucket}/kept/here", tmp_path, store_options=s3.options))
    await put(storage, b"video")
    await put(storage, a_file(tmp_path, bytes(PART_BYTES + 1)), "large")
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIAL,
        aws_secret_access_key=CREDENTIAL,
    )
    for key in (KEY, "large"):
        head = await asyncio.to_thread(client.head_object, Bucket=bucket, Key=f"kept/here/{key}")
        assert head["ContentType"] == "video/mp4"
    client.close()


async def test_a_bucket_may_be_reached_by_the_usual_variables(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": CREDENTIAL,
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
    }.items():
        monkeypatch.setenv(name, value)
    await Storage.open(settings_for(f"s3://{s3.new_bucket()}", tmp_path)).check()


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of AWS's files; nothing else in the environment names keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".aws"
    directory.mkdir()
    return directory


def keys_of(profile: str) -> str:
    return f"[{profile}]\naws_access_key_id = {CREDENTIAL}\naws_secret_access_key = {CREDENTIAL}\n"


@pytest.mark.parametrize(
    ("variables", "credentials", "config"),
    [
        ({}, keys_of("default"), f"[default]\nregion = {REGION}\n"),
        ({"AWS_PROFILE": "films"}, f"[default]\n{keys_of('films')}", f"[profile films]\nregion = {REGION}\n"),
        ({"AWS_PROFILE": "films"}, "", f"{keys_of('profile films')}region = {REGION}\n"),
        ({"AWS_PROFILE": "films", "AWS_REGION": REGION}, keys_of("films"), ""),
    ],
)
async def test_a_bucket_is_reached_with_the_keys_of_a_profile(
    s3: S3,
    tmp_path: Path,
    aws: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    credentials: str,
    config: str,
) -> None:
    bucket = s3.new_bucket()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (aws / "credentials").write_text(credentials)
    (aws / "config").write_text(config)
    options = {"endpoint": s3.endpoint}
    await Storage.open(settings_for(f"s3://{bucket}", tmp_path, store_options=options)).check()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("", "does not exist"),
        ("[profile films]\nsso_session = company\n", "contains no keys"),
    ],
)
def test_a_profile_without_keys_is_refused_with_what_is_supported(
    tmp_path: Path, aws: Path, monkeypatch: pytest.MonkeyPatch, config: str, problem: str
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "films")
    (aws / "config").write_text(config)
    with pytest.raises(SettingsError, match=rf"AWS_PROFILE 'films' {problem}; supported are: .*AWS_ACCESS_KEY_ID"):
        Storage.open(settings_for("s3://videos", tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CREDENTIAL)
    Storage.open(settings_for("s3://videos", tmp_path))


async def test_missing_keys_are_named_and_not_the_metadata_service(s3: S3, tmp_path: Path, aws: Path) -> None:
    del aws
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
    options = {"endpoint": s3.endpoint, "region": REGION, "metadata_endpoint": away, "allow_http": "true"}
    with pytest.raises(StorageUnavailable, match="no credentials for the bucket: supported are"):
        await Storage.open(settings_for("s3://videos", tmp_path, store_options=options)).check()


async def test_a_bucket_that_is_not_there_is_told(s3: S3, tmp_path: Path) -> None:
    storage = Storage.open(settings_for("s3://nowhere", tmp_path, store_options=s3.options))
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        await storage.check()


async def test_a_server_that_is_away_is_told(tmp_path: Path, s3: S3) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    storage = Storage.open(
        settings_for("s3://videos", tmp_path, store_options={**s3.options, "endpoint": f"http://127.0.0.1:{port}"})
    )
    with pytest.raises(StorageUnavailable) as caught:
        await storage.check()
    assert caught.value.retryable
    assert "127.0.0.1" not in caught.value.message


# Memory --------------------------------------------------------------------------------------------------------------


def _growth(store: str, options: dict[str, str], directory: str, megabytes: int) -> int:
    """How much more memory a process needs to keep and read back a large object, after a small one."""

    async def keep_and_read() -> int:
        storage = Storage.open(settings_for(store, Path(directory), store_options=options))
        await put(storage, a_file(Path(directory), bytes(MEGABYTE)))
        await read_all(storage, KEY, MEGABYTE)
        before = peak_memory()
        await put(storage, await asyncio.to_thread(_sparse_file, Path(directory), megabytes * MEGABYTE))
        async for chunk in storage.read(KEY, 0, megabytes * MEGABYTE):
            assert not chunk[0]
        await storage.delete(KEY)
        return peak_memory() - before

    return asyncio.run(keep_and_read())


def _sparse_file(directory: Path, size: int) -> Path:
    path = directory / "large"
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("kind", "megabytes"),
    [pytest.param("in_directory", 150, marks=pytest.mark.servers), pytest.param("in_bucket", 80, marks=IN_BUCKET)],
)
async def test_memory_stays_flat_however_large_the_object(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, megabytes: int
) -> None:
    """Takes about 5 s of CPU for 80 MB in a bucket, most of it the bucket's server."""
    settings: AssetSettings = request.getfixturevalue(kind)
    growth = await asyncio.to_thread(
        in_own_process, _growth, settings.store, settings.store_options, str(tmp_path), megabytes
    )
    assert growth < 50 * MEGABYTE
