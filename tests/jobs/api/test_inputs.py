"""A picture goes in: the whole way from a file or a URL to the frames of a video, through every kind of provider."""

import asyncio
import base64
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import av
import httpx2
import numpy as np
import pytest
from sqlalchemy import text

from app.accounts.scopes import Scope
from app.accounts.service import KeyService
from app.settings import ApiSettings, Settings
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.http_proxy import between
from tests.support.lane_driver import PATIENCE_SECONDS
from tests.support.raw_server import Say, Then, reply, running_raw_server
from tests.support.sample_files import picture

RED, BLUE = (255, 0, 0), (0, 0, 255)
#: How far a colour may be off after a lossy codec.
NEAR = 24
SIZE = (1280, 720)
EVERY_PROVIDER = [
    ("sandbox/video", {"seconds": 1, "size": "1280x720"}, ["first_frame"]),
    ("runway/gen4.5", {"seconds": 2, "size": "1280x720"}, ["first_frame"]),
    ("kling/kling-3.0", {"seconds": 3, "size": "1280x720"}, ["first_frame", "last_frame"]),
]


@pytest.fixture
async def public(settings: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    """A gateway that providers can reach."""
    async with between() as front:
        api = ApiSettings.model_validate({**settings.api.model_dump(), "public_url": front.url})
        async with running_gateway(settings.model_copy(update={"api": api}), sandbox_url) as gateway:
            front.target = gateway.url
            await gateway.sandbox.delete("/ledger")
            yield gateway


async def uploaded(gateway: Gateway, color: tuple[int, int, int], *, size: tuple[int, int] = SIZE) -> str:
    """The id of a picture in one colour."""
    content = picture("PNG", size=size, color="#{:02x}{:02x}{:02x}".format(*color))
    answered = await gateway.client.post("/v1/files", files={"file": ("a.png", content)})
    assert answered.status_code in {200, 201}, answered.text
    return str(answered.json()["id"])


async def ends(gateway: Gateway, job: dict[str, Any]) -> tuple[Any, Any]:
    """The pixels of the first and of the last frame of the job's video."""
    answered = await gateway.client.get(job["assets"]["video"]["content_url"])
    with av.open(BytesIO(answered.content), "r") as container:
        first, *_, last = container.decode(video=0)
        return first.to_ndarray(format="rgb24").astype(int), last.to_ndarray(format="rgb24").astype(int)


async def colors_of(gateway: Gateway, job: dict[str, Any]) -> tuple[Any, Any]:
    """The mean colours of both."""
    first, last = await ends(gateway, job)
    return first.mean(axis=(0, 1)), last.mean(axis=(0, 1))


@pytest.mark.parametrize(("model", "fields", "roles"), EVERY_PROVIDER, ids=[case[0] for case in EVERY_PROVIDER])
async def test_the_video_begins_and_ends_as_ordered(
    public: Gateway, model: str, fields: dict[str, Any], roles: list[str]
) -> None:
    colors = dict(zip(("first_frame", "last_frame"), (RED, BLUE), strict=True))
    inputs = [{"role": role, "file_id": await uploaded(public, colors[role])} for role in roles]
    job = await public.ended((await public.create(model=model, inputs=inputs, **fields))["id"])
    assert job["status"] == "succeeded", job["error"]
    first, last = await colors_of(public, job)
    assert np.abs(first - RED).max() < NEAR
    if "last_frame" in roles:
        assert np.abs(last - BLUE).max() < NEAR
    assert (await public.purchases())["accepted"] == 1


async def test_a_url_and_a_data_url_are_as_good_as_a_file(gateway: Gateway) -> None:
    content = picture("JPEG", size=(128, 96), color="#ff0000")
    data = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    async with running_raw_server(reply(content)) as server:
        for source in ({"url": f"{server.url}/a.jpg"}, {"data_url": data}):
            created = await gateway.create(inputs=[{"role": "first_frame", **source}])
            assert (created["status"], created["phase"]) == ("queued", "preparing")
            job = await gateway.ended(created["id"])
            assert job["status"] == "succeeded", job["error"]
            (one,) = job["inputs"]
            assert (one["role"], one["url"]) == ("first_frame", source.get("url"))
            file = (await gateway.client.get(f"/v1/files/{one['sent_file_id']}")).json()
            assert (file["kind"], file["width"], file["height"]) == ("image", 128, 96)
            assert np.abs((await colors_of(gateway, job))[0] - RED).max() < NEAR
    assert len((await gateway.client.get("/v1/files")).json()["data"]) == 1


@pytest.mark.parametrize("use", ["first_frame", "last_frame"])
async def test_a_video_goes_on_from_a_frame_of_another(gateway: Gateway, use: str) -> None:
    """As the provider was given it, and as the other video shows it: to the eye, in every pixel."""
    job = await gateway.ended((await gateway.create(seconds=1))["id"])
    created = await gateway.create(inputs=[{"role": "first_frame", "job_id": job["id"], "use": use}])
    following = await gateway.ended(created["id"])
    assert following["status"] == "succeeded", following["error"]
    assert (following["inputs"][0]["job_id"], following["inputs"][0]["use"]) == (job["id"], use)
    (first, last), (begins, _) = await ends(gateway, job), await ends(gateway, following)
    assert np.abs(begins - (last if use == "last_frame" else first)).mean() < 4
    assert np.abs(first - last).mean() > 8  # or this would prove nothing


async def test_only_a_succeeded_job_of_the_account_has_a_frame(gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    failed = await gateway.ended((await gateway.create(f"{PROMPT} [fail:prompt]"))["id"])
    done = await gateway.ended((await gateway.create())["id"])
    for client, job_id in ((gateway.client, failed["id"]), (gateway.client, "job_x"), (stranger, done["id"])):
        answered = await client.post(
            "/v1/jobs",
            json={
                "prompt": PROMPT,
                "model": "sandbox/video",
                "inputs": [{"role": "first_frame", "job_id": job_id, "use": "last_frame"}],
            },
        )
        assert answered.status_code == 422
        assert answered.json()["errors"][0]["field"] == "inputs[0].job_id"


async def test_a_wrong_input_is_named_before_anything_is_submitted(gateway: Gateway) -> None:
    file_id = await uploaded(gateway, RED)
    for inputs, field in (
        ([{"role": "first_frame"}], "inputs[0]"),
        ([{"role": "first_frame", "file_id": file_id, "url": "https://shop.example/a.png"}], "inputs[0]"),
        ([{"role": "hero", "file_id": file_id}], "inputs[0].role"),
        ([{"role": "first_frame", "job_id": "job_01h455vb4pex5vsknk084sn02q"}], "inputs[0]"),
        ([{"role": "first_frame", "job_id": "job_01h455vb4pex5vsknk084sn02q", "use": "middle"}], "inputs[0]"),
        ([{"role": "first_frame", "file_id": file_id, "use": "last_frame"}], "inputs[0]"),
        ([{"role": "reference_image", "file_id": file_id}], "inputs[0].role"),
        ([{"role": "first_frame", "file_id": "file_x"}], "inputs[0].file_id"),
        ([{"role": "first_frame", "url": "https://10.0.0.1/a.png"}], "inputs[0].url"),
        ([{"role": "first_frame", "url": "ftp://shop.example/a.png"}], "inputs[0].url"),
        ([{"role": "first_frame", "data_url": "data:image/png,abc"}], "inputs[0].data_url"),
        ([{"role": "first_frame", "data_url": "data:image/png;base64,JVBERi0xLjc="}], "inputs[0].data_url"),
        ([{"role": "first_frame", "file_id": file_id, "weight": 1}], "inputs[0].weight"),
        ([{"role": "first_frame", "file_id": file_id}] * 17, "inputs"),
        ({"role": "first_frame"}, "inputs"),
    ):
        answered = await gateway.client.post(
            "/v1/jobs", json={"prompt": PROMPT, "model": "sandbox/video", "inputs": inputs}
        )
        problem = answered.json()
        assert (answered.status_code, problem["errors"][0]["field"]) == (422, field), problem
    assert (await gateway.client.get("/v1/jobs")).json()["data"] == []


async def test_a_picture_that_only_its_url_shows_to_be_wrong_ends_the_job_for_free(gateway: Gateway) -> None:
    async with running_raw_server(reply(b"%PDF-1.7", "Content-Type: image/png")) as server:
        job = await gateway.ended((await gateway.create(inputs=[{"role": "first_frame", "url": server.url}]))["id"])
    assert (job["status"], job["error"]["code"], job["error"]["fault"]) == ("failed", "input_unusable", "input")
    assert "inputs[0].url" in job["error"]["message"]
    assert job["cost"]["certainty"] == "none"
    assert (await gateway.purchases())["accepted"] == 0


async def test_what_a_provider_fetches_is_the_picture_and_nothing_else(public: Gateway) -> None:
    job = await public.create(
        model="kling/kling-3.0",
        seconds=3,
        size="1280x720",
        inputs=[{"role": "first_frame", "file_id": await uploaded(public, RED)}],
    )
    ended = await public.ended(job["id"])
    sent = (await public.client.get(f"/v1/files/{ended['inputs'][0]['sent_file_id']}")).json()
    urls = public.resources.files.urls
    row = await public.resources.files.get((await _account(public)), sent["id"])
    url = urls.of(row.id, "first_frame.png", row.expires_at)
    assert url is not None
    url = url.replace(str(public.settings.api.public_url).rstrip("/"), public.url)  # past the proxy
    async with httpx2.AsyncClient(verify=False) as provider:
        head, whole = await provider.head(url), await provider.get(url)
        assert (head.status_code, head.headers["content-type"]) == (200, "image/png")
        assert int(head.headers["content-length"]) == len(whole.content) == sent["size_bytes"]
        assert whole.status_code == 200
        assert "set-cookie" not in whole.headers
        token = url.rsplit("/", 2)[1]
        for wrong in (url.replace(token, token[:-3]), url.replace(token, "x"), url.replace(token, sent["id"])):
            assert (await provider.get(wrong)).status_code == 404


async def _account(gateway: Gateway) -> Any:
    async with gateway.resources.database.read() as conn:
        return await conn.scalar(text("SELECT id FROM accounts"))


async def test_a_job_whose_inputs_no_provider_can_fetch_is_refused(gateway: Gateway) -> None:
    """Kling takes URLs only, and this gateway has no public one."""
    answered = await gateway.client.post(
        "/v1/jobs",
        json={
            "prompt": PROMPT,
            "model": "kling/kling-3.0",
            "inputs": [{"role": "first_frame", "file_id": await uploaded(gateway, RED)}],
        },
    )
    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, "inputs")
    assert "api.public_url" in answered.json()["detail"]


async def test_a_repeated_create_is_the_same_job_even_when_its_file_is_gone(gateway: Gateway) -> None:
    inputs = [{"role": "first_frame", "file_id": await uploaded(gateway, RED, size=(128, 96))}]
    job = await gateway.create(inputs=inputs, key="once")
    await gateway.ended(job["id"])
    await gateway.client.delete(f"/v1/files/{inputs[0]['file_id']}")
    assert (await gateway.create(inputs=inputs, key="once"))["id"] == job["id"]


async def test_a_job_shows_what_its_last_model_was_sent(gateway: Gateway) -> None:
    """The first model takes any size, and refuses; the fallback takes its own only, and refuses, too."""
    job = await gateway.ended(
        (
            await gateway.create(
                f"{PROMPT} [input-refused]",
                model="runway/gen4.5",
                seconds=5,
                fallbacks=["sandbox/video"],
                mode="adjust",
                inputs=[{"role": "first_frame", "file_id": await uploaded(gateway, RED, size=(300, 300))}],
            )
        )["id"]
    )
    assert (job["status"], job["model_used"]) == ("failed", "sandbox/video")
    sent = (await gateway.client.get(f"/v1/files/{job['inputs'][0]['sent_file_id']}")).json()
    assert (sent["width"], sent["height"]) == (128, 96)
    assert job["fallbacks"][0]["adjustments"][-1]["used"] == "128x96"


async def test_without_a_size_the_video_is_like_its_picture(gateway: Gateway) -> None:
    upright = await uploaded(gateway, RED, size=(96, 128))
    inputs = [{"role": "first_frame", "file_id": upright}]
    assert (await gateway.create(inputs=inputs))["size"] == "96x128"
    assert (await gateway.create(inputs=inputs, size="128x96", mode="adjust"))["size"] == "128x96"


async def test_slow_urls_of_one_account_do_not_keep_another_waiting(settings: Settings, sandbox_url: str) -> None:
    worker = settings.worker.model_copy(update={"preparations": 4})
    files = settings.files.model_copy(update={"fetch_timeout": 3600})
    patient = settings.model_copy(update={"worker": worker, "files": files})
    async with running_gateway(patient, sandbox_url) as gateway, asyncio.timeout(PATIENCE_SECONDS):
        key = await KeyService(gateway.resources.database).create("strangers", "key", set(Scope))
        async with running_raw_server(Say(then=Then.HANG)) as server:
            slow = [{"role": "first_frame", "url": server.url}]
            jobs = [await gateway.create(inputs=slow) for _ in range(8)]
            await server.wait_for(2)
            ours = gateway.client.headers["authorization"]
            gateway.client.headers["authorization"] = f"Bearer {key.text}"
            file_id = await uploaded(gateway, RED, size=(128, 96))
            other = await gateway.create(inputs=[{"role": "first_frame", "file_id": file_id}])
            assert (await gateway.ended(other["id"]))["status"] == "succeeded"
            async with gateway.resources.database.read() as conn:
                states = list(await conn.scalars(text("SELECT state FROM jobs WHERE finished_at IS NULL")))
            assert states == ["preparing"] * len(jobs)
            for job in jobs:
                gateway.client.headers["authorization"] = ours
                assert (await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")).json()["status"] == "canceled"


async def test_models_say_what_they_take(gateway: Gateway) -> None:
    models = {one["name"]: one for one in (await gateway.client.get("/v1/models")).json()["data"]}
    assert [one["role"] for one in models["kling/kling-3.0"]["inputs"]] == ["first_frame", "last_frame"]
    assert models["kling/kling-3.0"]["inputs"][1]["needs"] == ["first_frame"]
    assert models["runway/gen4_turbo"]["needs_input"]
    answered = await gateway.client.post("/v1/jobs", json={"prompt": PROMPT, "model": "runway/gen4_turbo"})
    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, "inputs")
