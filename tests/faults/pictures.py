"""The pictures that videos are made from: one for each order, so that a wrong one would be noticed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.support.http_server import every_request, serving
from tests.support.sample_files import picture

SIZE = (320, 320)  # as large as the most demanding model wants


def picture_of(key: str) -> bytes:
    """A PNG in a colour of the order's own."""
    return picture("PNG", size=SIZE, color=f"#{key[:6]}")


@asynccontextmanager
async def serving_pictures() -> AsyncIterator[str]:
    """A server with the picture of each order under its key; its URL."""

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=picture_of(request.path.rpartition("/")[2]), content_type="image/png")

    async with serving(every_request(serve)) as url:
        yield url
