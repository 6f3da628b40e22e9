"""Pictures and videos for the sandbox's inputs, a server that hosts them, and what a video shows."""

import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import aiohttp
import av
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer
from numpy.typing import NDArray
from PIL import Image

from tests.sandbox.server import Client

Colour = tuple[int, int, int]
Pixels = NDArray[np.int16]
RED, BLUE, GREEN, YELLOW = (200, 30, 40), (30, 50, 190), (40, 150, 60), (210, 190, 40)
#: The mean difference of two pictures that are the same but for the loss of the codec, and of unlike ones.
SAME, OTHER = 6, 20


@cache
def halves(
    left: Colour = RED, right: Colour = BLUE, *, size: tuple[int, int] = (320, 180), kind: str = "PNG", turned: int = 1
) -> bytes:
    """A picture of two colours, side by side. ``turned`` is EXIF's orientation."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    exif, target = Image.Exif(), io.BytesIO()
    exif[0x0112] = turned
    image.save(target, kind, exif=exif)
    return target.getvalue()


@cache
def clip(*colours: Colour, size: tuple[int, int] = (320, 180), rate: int = 24, each: int = 12) -> bytes:
    """An MP4 that shows the colours one after the other, ``each`` frames long."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "18", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(len(colours) * each):
            image = Image.new("RGB", size, colours[number // each])
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def pixels(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def frames_of(video: bytes) -> list[Pixels]:
    """All frames of a video as RGB."""
    with av.open(io.BytesIO(video), "r") as container:
        return [frame.to_ndarray(format="rgb24").astype(np.int16) for frame in container.decode(video=0)]


def ends_of(video: bytes) -> tuple[Pixels, Pixels, int]:
    """The first and the last frame, and the number of frames: for videos too large to convert whole."""
    with av.open(io.BytesIO(video), "r") as container:
        frames = list(container.decode(video=0))
        first, last = (frame.to_ndarray(format="rgb24").astype(np.int16) for frame in (frames[0], frames[-1]))
        return first, last, len(frames)


def difference(one: Pixels, other: Pixels) -> float:
    """The mean difference of two pictures of one size."""
    assert one.shape == other.shape
    return float(abs(one - other).mean())


def shows(frame: Pixels, picture: bytes) -> bool:
    """Whether the frame is the picture, which has the frame's size."""
    return difference(frame, pixels(picture)) < SAME


def is_coloured(area: Pixels, colour: Colour) -> bool:
    """Whether the area has this colour, on average."""
    return bool((abs(area.reshape(-1, 3).mean(axis=0) - np.array(colour)) < 12).all())


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def form_of(*files: tuple[str, bytes, str], **fields: str) -> aiohttp.FormData:
    """A multipart form: files as name, content, content type."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    for name, content, kind in files:
        form.add_field(name, content, filename="picture", content_type=kind)
    return form


@dataclass(frozen=True, slots=True)
class Hosted:
    """What a URL returns."""

    content: bytes = b""
    kind: str = "image/png"
    status: int = 200
    location: str | None = None
    measured: bool = True


class Host:
    """Hosts files on loopback and records the requests for them."""

    def __init__(self) -> None:
        self.files: dict[str, Hosted] = {}
        self.requests: list[str] = []
        self.url = ""

    def put(self, name: str, content: bytes = b"", **options: Any) -> str:
        """Host a file; gives its URL."""
        self.files[f"/{name}"] = Hosted(content, **options)
        return f"{self.url}/{name}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        hosted = self.files.get(request.path)
        if hosted is None:
            return web.Response(status=404)
        headers = {"Content-Type": hosted.kind} | ({"Location": hosted.location} if hosted.location else {})
        if hosted.measured:
            return web.Response(body=hosted.content, status=hosted.status, headers=headers)
        response = web.StreamResponse(status=hosted.status, headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(hosted.content)
        return response


@asynccontextmanager
async def hosting() -> AsyncIterator[Host]:
    """A host on a free loopback port."""
    host = Host()
    app = web.Application()
    app.router.add_route("*", "/{name}", host.handle)
    async with TestServer(app) as server:
        host.url = f"http://127.0.0.1:{server.port}"
        yield host


async def entry_of(client: Client) -> dict[str, Any]:
    """The ledger's only entry."""
    (entry,) = (await client.get("ledger")).json["entries"]
    return dict(entry)


async def roles_of(client: Client) -> list[tuple[str, tuple[int, int]]]:
    """The role and the size of each input in the ledger's only entry."""
    return [(item["role"], (item["width"], item["height"])) for item in (await entry_of(client))["inputs"]]
