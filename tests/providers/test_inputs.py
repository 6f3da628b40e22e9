"""How each adapter gives a picture to its provider: the exact request. Where an SDK was recorded, what it sends."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from app.media.info import FileFormat
from app.providers.base import Access, Provider, ProviderRequest
from app.providers.http_clients import Clients
from app.providers.inputs import InputFile, InputRole, InputWay, JobInput, ProviderInput
from app.providers.kling import Kling
from app.providers.openai_compatible import OpenAICompatible
from app.providers.openai_profiles import PROFILES
from app.providers.runway import Runway

REF = UUID("018f3c5e-7a1b-7cde-8f00-0123456789ab")
PNG = InputFile(UUID(int=1), FileFormat.PNG, 4, "ab" * 32, 1280, 720, "files/1.png")
BYTES = b"\x89PNG"
DATA_URL = "data:image/png;base64,iVBORw=="
ORDER: dict[str, Any] = {"prompt": "A red fox runs", "seconds": 5, "width": 1280, "height": 720}


def by_url(role: InputRole, url: str) -> ProviderInput:
    return ProviderInput(role, PNG, InputWay.PUBLIC_URL, url=url)


def in_body(role: InputRole, way: InputWay = InputWay.BYTES, file: InputFile = PNG) -> ProviderInput:
    return ProviderInput(role, file, way, data=BYTES)


FIRST, LAST, REFERENCE = InputRole.FIRST_FRAME, InputRole.LAST_FRAME, InputRole.REFERENCE_IMAGE
FIRST_URL, LAST_URL = "https://files.example/first.png", "https://files.example/last.png"


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        ([by_url(FIRST, FIRST_URL)], FIRST_URL),
        ([in_body(FIRST, InputWay.DATA_URL)], DATA_URL),
        (
            [by_url(FIRST, FIRST_URL), by_url(LAST, LAST_URL)],
            [{"uri": FIRST_URL, "position": "first"}, {"uri": LAST_URL, "position": "last"}],
        ),
    ],
    ids=["by url", "in the body", "two"],
)
def test_runway_gets_what_its_sdk_sends(clients: Clients, inputs: Sequence[ProviderInput], sent: Any) -> None:
    """As runwayml 5.24.0 does: recorded on 2026-11-28, but for the list, which is of its types."""
    order = ProviderRequest("gen4.5", **ORDER, inputs=tuple(inputs))
    call = Runway.open(Access(credential="key"), clients).order_call(order, REF)
    assert (call.method, call.path) == ("POST", "/v1/image_to_video")
    assert json.loads(call.body) == {
        "duration": 5,
        "model": "gen4.5",
        "promptImage": sent,
        "promptText": "A red fox runs",
        "ratio": "1280:720",
    }


def test_kling_gets_the_prompt_and_the_pictures_in_one_list(clients: Clients) -> None:
    order = ProviderRequest("kling-3.0", **ORDER, inputs=(by_url(FIRST, FIRST_URL), by_url(LAST, LAST_URL)))
    call = Kling.open(Access(credential="key"), clients).order_call(order, REF)
    assert (call.method, call.path) == ("POST", "/image-to-video/kling-3.0")
    body = json.loads(call.body)
    assert body["contents"] == [
        {"type": "prompt", "text": "A red fox runs"},
        {"type": "first_frame", "url": FIRST_URL},
        {"type": "last_frame", "url": LAST_URL},
    ]
    assert "prompt" not in body
    assert body["settings"] == {"resolution": "720p", "aspect_ratio": "16:9", "duration": 5}


def opened(profile: str, clients: Clients) -> Provider:
    return OpenAICompatible.open(Access(base_url="http://x/v1", credential="key", profile=profile), clients)


TAKING_FILES = sorted(name for name, profile in PROFILES.items() if profile.traits.input_ways)


@pytest.mark.parametrize("profile", TAKING_FILES)
def test_servers_with_a_videos_api_get_a_form_with_the_file(clients: Clients, profile: str) -> None:
    """The part of the file as OpenAI's SDK 3.57.0 sends it: recorded on 2026-11-28."""
    order = ProviderRequest("sora-2", **ORDER, inputs=(in_body(FIRST),))
    call = opened(profile, clients).order_call(order, REF)
    mark = REF.hex.encode()
    assert call.headers["Content-Type"] == f"multipart/form-data; boundary={REF.hex}"
    part = (
        b"--" + mark + b'\r\nContent-Disposition: form-data; name="input_reference"; filename="first_frame.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\r\n--" + mark + b"--\r\n"
    )
    assert call.body.endswith(part)
    assert b'name="prompt"\r\n\r\nA red fox runs\r\n' in call.body
    assert b'name="seconds"\r\n\r\n5\r\n' in call.body


def test_vllm_gets_references_under_a_name_of_their_own(clients: Clients) -> None:
    order = ProviderRequest("wan", **ORDER, inputs=(in_body(REFERENCE), in_body(REFERENCE)))
    body = opened("vllm_omni", clients).order_call(order, REF).body
    assert body.count(b'name="input_references"; filename="reference_image.png"') == 2


@pytest.mark.parametrize("adapter", [Runway, Kling], ids=lambda adapter: adapter.name)
def test_without_inputs_nothing_changes(clients: Clients, adapter: type[Provider]) -> None:
    order = ProviderRequest("model", **ORDER)
    call = adapter.open(Access(credential="key"), clients).order_call(order, REF)
    assert "image" not in call.path
    assert "promptImage" not in json.loads(call.body)
    assert "contents" not in json.loads(call.body)


def test_pictures_count_in_what_makes_two_orders_interchangeable() -> None:
    plain = ProviderRequest("model", **ORDER)
    other = InputFile(UUID(int=2), FileFormat.PNG, 4, "cd" * 32, 1280, 720, "files/2.png")
    hashes = [
        ProviderRequest("model", **ORDER, inputs=inputs).hash
        for inputs in ((in_body(FIRST),), (in_body(FIRST, file=other),), (in_body(LAST),))
    ]
    assert len({plain.hash, *hashes}) == 4
    assert ProviderRequest("model", **ORDER, inputs=(by_url(FIRST, FIRST_URL),)).hash == hashes[0]


def test_a_job_keeps_its_inputs() -> None:
    one = JobInput(FIRST, PNG, "https://shop.example/a.png", adjust=True, sent=PNG, tries=1)
    assert JobInput.restored(json.loads(json.dumps(one.stored()))) == one
    assert JobInput.restored(json.loads(json.dumps(JobInput(LAST, url="https://x").stored()))) == JobInput(
        LAST, url="https://x"
    )
