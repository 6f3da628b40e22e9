"""Videos that name their jobs."""

import random
import time
from pathlib import Path

import av
import pytest

from app.sandbox.fingerprint import burn
from app.sandbox.settings import SandboxSettings
from tests.sandbox.server import Client, connected, serving
from tests.support.fingerprint import mark_of, read_mark

KLING = {"prompt": "a fox", "settings": {"duration": 3}}


def mark_in(video: bytes, place: Path) -> int:
    place.write_bytes(video)
    return read_mark(place)


async def stored(client: Client, url: str, place: Path) -> int:
    """The mark of what is served there."""
    video = await client.get(url)
    assert (video.status, video.headers["Content-Type"]) == (200, "video/mp4")
    return mark_in(video.body, place)


def test_the_mark_survives_encoding_and_belongs_to_one_id(tmp_path: Path) -> None:
    ids = [f"video_{random.Random(number).getrandbits(128):032x}" for number in range(50)]
    marks = {}
    for remote_id in ids:
        marks[remote_id] = mark_in(burn(remote_id), tmp_path / "video.mp4")
    assert marks == {remote_id: mark_of(remote_id) for remote_id in ids}
    assert len(set(marks.values())) == len(ids)


@pytest.mark.parametrize("remote_id", ["", "task 1", "video_" + "x" * 236, "ключ"])
def test_any_id_can_be_burnt(tmp_path: Path, remote_id: str) -> None:
    assert mark_in(burn(remote_id), tmp_path / "video.mp4") == mark_of(remote_id)


def test_a_burnt_video_is_small_short_and_always_the_same(tmp_path: Path) -> None:
    place = tmp_path / "video.mp4"
    place.write_bytes(burn("task_1"))
    with av.open(str(place)) as container:
        (stream,) = container.streams.video
        assert (stream.width, stream.height, stream.codec_context.name) == (160, 96, "h264")
        assert container.duration == av.time_base
    assert place.stat().st_size < 4096
    assert burn("task_1") == place.read_bytes()


def test_burning_costs_little() -> None:
    before = time.process_time()
    for number in range(20):
        burn(f"task_{number}")
    assert (time.process_time() - before) / 20 < 0.1  # 5 ms where nothing else runs


async def test_every_dialect_hands_out_the_jobs_own_video(tmp_path: Path) -> None:
    settings = SandboxSettings(render=False, fingerprint=True)
    async with serving(settings) as url, connected(url) as client:
        for dialect in ("openai", "sglang", "vllm", "newapi", "tensorrt", "litellm"):
            path = await client.buy("a fox", dialect)
            mark = await stored(client, f"{path}/content", tmp_path / "video.mp4")
            assert mark == mark_of(path.rsplit("/", 1)[1])
            assert await stored(client, f"{path}/content", tmp_path / "video.mp4") == mark
        task = (await client.get(await client.buy("a fox", "runway"))).json
        assert await stored(client, task["output"][0], tmp_path / "video.mp4") == mark_of(task["id"])
        created = await client.post("kling/text-to-video/kling-3.0", json=KLING)
        (task,) = (await client.get("kling/tasks", params={"task_ids": created.json["data"]["id"]})).json["data"]
        assert await stored(client, task["outputs"][0]["url"], tmp_path / "video.mp4") == mark_of(task["id"])


async def test_without_the_setting_all_instant_videos_are_one(tmp_path: Path) -> None:
    async with serving(SandboxSettings(render=False)) as url, connected(url) as client:
        paths = [await client.buy("a fox") for _ in range(2)]
        marks = {await stored(client, f"{path}/content", tmp_path / "video.mp4") for path in paths}
        assert len(marks) == 1
        assert not marks & {mark_of(path.rsplit("/", 1)[1]) for path in paths}
