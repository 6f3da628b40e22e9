"""Storing finished videos: what a provider sends in place of an ordinary video, and what becomes of it."""

import gzip

import pytest

from tests.support.lane_driver import LaneDriver
from tests.support.sample_videos import noise, video
from tests.support.scripted_runway import MAIN, Studio
from tests.support.submit_fixtures import Office, shop

pytestmark = pytest.mark.servers


async def test_a_video_that_is_too_expensive_to_decode_is_tried_twice_in_all(office: Office, first: Studio) -> None:
    first.content = noise(3072)
    async with shop(office.changed("assets", fetch_tries=8, probe_cpu_seconds=0.1)) as desk:
        job = await desk.gateway.create(model=MAIN)
        await desk.gateway.reached(job["id"], "job.waiting", saying="fetching it failed")
        await LaneDriver(desk.gateway.resources).pass_time(600)
        ended = await desk.gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "asset_unavailable")
    assert first.downloads == 2


async def test_a_video_that_comes_compressed_is_stored_as_it_was(office: Office, first: Studio) -> None:
    content = video(seconds=1, width=128, height=96)
    first.content, first.headers = gzip.compress(content), {"Content-Encoding": "gzip"}
    async with shop(office) as desk:
        ended = await desk.gateway.ended((await desk.gateway.create(model=MAIN))["id"])
        assert ended["status"] == "succeeded"
        stored = await desk.gateway.client.get(ended["assets"]["video"]["content_url"])
    assert stored.content == content
    assert first.downloads == 1


async def test_a_compressed_bomb_is_read_up_to_the_largest_size_of_a_video(office: Office, first: Studio) -> None:
    first.content, first.headers = gzip.compress(bytes(2**26)), {"Content-Encoding": "gzip"}
    async with shop(office.changed("assets", max_bytes=2**20)) as desk:
        ended = await desk.gateway.ended((await desk.gateway.create(model=MAIN))["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "asset_unavailable")
    assert first.downloads == 1
