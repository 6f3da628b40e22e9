"""Scripted behaviour, over the wire, in every dialect."""

import aiohttp
import pytest

from tests.sandbox.server import REFERENCE, Client, order_of

VIDEOS = ("openai", "sglang", "vllm", "newapi", "tensorrt", "litellm")
DIALECTS = (*VIDEOS, "runway")
UNKNOWN = {"newapi": 400, "litellm": 500}  # 404 elsewhere
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


async def create(client: Client, dialect: str, prompt: str, reference: str | None = None) -> aiohttp.ClientResponse:
    """A create whose answer is not looked at; the body may still break off."""
    headers = {REFERENCE: reference} if reference else {}
    if dialect == "runway":
        order = {"model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2}
        return await client.session.post("runway/v1/text_to_video", json=order, headers=headers)
    return await client.session.post(f"{dialect}/v1/videos", headers=headers, **order_of(dialect, prompt))


async def accepted(client: Client) -> int:
    return int((await client.get("ledger/summary")).json["accepted"])


async def result_of(client: Client, path: str) -> str:
    """Where the finished video is fetched."""
    done = (await client.wait_until(path)).json
    return str(done["output"][0]) if "output" in done else f"{path}/content"


@every_dialect
async def test_a_lost_reply_is_a_submission_all_the_same(client: Client, dialect: str) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create(client, dialect, "[lose-reply] [never]", "sub_1")
    assert await accepted(client) == 1
    async with await create(client, dialect, "[lose-reply] [never]", "sub_1") as again:
        assert again.status in {200, 202}
    summary = (await client.get("ledger/summary")).json
    assert summary["references_charged_twice"] == ["sub_1"]


@every_dialect
async def test_a_truncated_reply_is_a_submission_all_the_same(client: Client, dialect: str) -> None:
    async with await create(client, dialect, "[lose-reply:truncate] [never]") as response:
        assert response.status in {200, 202}
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert await accepted(client) == 1


@every_dialect
async def test_an_html_page_hides_a_submission(client: Client, dialect: str) -> None:
    async with await create(client, dialect, "[html] [never]") as response:
        assert (response.status, response.content_type) == (200, "text/html")
    assert await accepted(client) == 1


@every_dialect
async def test_server_errors_and_rate_limits_accept_nothing(client: Client, dialect: str) -> None:
    statuses = []
    for _ in range(4):
        async with await create(client, dialect, "[500:2] [429:1] [never]") as response:
            statuses.append(response.status)
            assert response.headers.get("retry-after") == ("1" if response.status == 429 else None)
            assert await accepted(client) == (1 if response.ok else 0)
    assert statuses[:3] == [500, 500, 429]


@every_dialect
@pytest.mark.parametrize(("bracket", "status"), [("[fail:prompt]", 400), ("[fail:quota]", 429)])
async def test_a_refused_create_accepts_nothing(client: Client, dialect: str, bracket: str, status: int) -> None:
    for _ in range(2):
        async with await create(client, dialect, bracket) as response:
            assert response.status == status
            assert "quota" in await response.text() or dialect == "runway" or status == 400
    assert await accepted(client) == 0


@every_dialect
async def test_status_reads_fail_as_often_as_asked(client: Client, dialect: str) -> None:
    path = await client.buy("[flaky:2] [gone:1] [odd-status:1] [never]", dialect)
    answers = [await client.get(path) for _ in range(5)]
    assert [answer.status for answer in answers] == [503, 503, UNKNOWN.get(dialect, 404), 200, 200]
    assert answers[3].json["status"].lower() == "reticulating"
    assert answers[4].json["status"].lower() in {"queued", "in_progress", "generating", "pending", "running"}


@pytest.mark.parametrize("dialect", VIDEOS)
async def test_a_moderated_job_fails_in_the_dialects_words(client: Client, dialect: str) -> None:
    for bracket, words in (("[fail:moderation]", ("moderation", "safety")), ("[fail:output]", ("output moderation",))):
        done = (await client.wait_until(await client.buy(bracket, dialect))).json
        assert done["status"] == "failed"
        told = str(done["error"]).replace("_", " ").lower()
        assert any(word in told for word in words)


@every_dialect
async def test_a_slow_or_late_job_ends_well(client: Client, dialect: str) -> None:
    path = await client.buy("a fox [slow:0.1] [late:0.1]", dialect)
    assert (await client.wait_until(path)).json["status"] in {"completed", "SUCCEEDED"}


async def test_a_late_job_stays_all_but_finished(client: Client) -> None:
    path = await client.buy("a fox [late:1000]")
    answer = await client.wait_until(path, "in_progress")
    while answer.json["progress"] < 99:
        answer = await client.get(path)
    assert answer.json["status"] == "in_progress"


@every_dialect
async def test_garbage_is_served_as_if_it_were_a_video(client: Client, dialect: str) -> None:
    video = await client.get(await result_of(client, await client.buy("a fox [garbage]", dialect)))
    assert (video.status, video.headers["Content-Type"]) == (200, "video/mp4")
    assert b"ftyp" not in video.body


@every_dialect
async def test_a_truncated_video_breaks_off(client: Client, dialect: str) -> None:
    url = await result_of(client, await client.buy("a fox [truncated]", dialect))
    async with client.session.get(url) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.mark.parametrize(("bracket", "length"), [("[huge]", None), ("[huge:declared]", 1 << 40)])
@every_dialect
async def test_a_huge_video_goes_on_and_on(client: Client, dialect: str, bracket: str, length: int | None) -> None:
    url = await result_of(client, await client.buy(f"a fox {bracket}", dialect))
    async with client.session.get(url) as response:
        assert response.content_length == length
        begin = await response.content.readexactly(16 * 1024 * 1024)
        assert begin[4:8] == b"ftyp"


@every_dialect
async def test_an_expired_video_cannot_be_fetched(client: Client, dialect: str) -> None:
    url = await result_of(client, await client.buy("a fox [expired]", dialect))
    assert (await client.get(url)).status == (403 if dialect == "runway" else 404)


@pytest.mark.parametrize("dialect", ["openai", "sglang", "vllm", "tensorrt", "runway"])
async def test_a_refused_cancel_leaves_the_job_running(client: Client, dialect: str) -> None:
    path = await client.buy("a fox [no-cancel] [late:0.2]", dialect)
    assert (await client.delete(path)).status in {400, 409}
    assert (await client.wait_until(path)).json["status"] in {"completed", "SUCCEEDED"}
    assert (await client.get("ledger")).json["entries"][0]["canceled"] is False
