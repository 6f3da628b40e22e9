"""Downloads that are compressed although ``identity`` was asked for."""

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from app.providers.decoding import PIECE_BYTES, Undecodable, decoded
from app.providers.http_clients import Clients
from app.providers.transport import Call, NoReply, Transport
from tests.support.raw_server import reply, running_raw_server
from tests.support.sample_videos import video

VIDEO = video()
RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(VIDEO) + RAW.flush()
GZIP = gzip.compress(VIDEO)


SIGNATURE = b";chunk-signature=" + b"0a" * 32


def framed(content: bytes, signature: bytes = SIGNATURE, size: int = 8192, end: bytes = b"") -> bytes:
    """An aws-chunked body."""
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), signature, part) for part in parts) + (
        b"0%b\r\n%b\r\n" % (signature, end)
    )


async def download(clients: Clients, body: bytes, *headers: str) -> tuple[bytes, int | None]:
    """The body as it is read, and the length that was announced for it."""
    async with (
        running_raw_server(reply(body, *headers)) as server,
        Transport(clients, server.url).stream(Call("GET", "/video")) as opened,
    ):
        assert server.heard[0].headers["accept-encoding"] == "identity"
        return b"".join([chunk async for chunk in opened.chunks()]), opened.length


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", GZIP),
        ("GZip", GZIP),
        ("x-gzip", GZIP),
        ("identity, gzip", GZIP),
        ("aws-chunked,gzip", GZIP),
        ("gzip", GZIP + bytes(512)),
        ("gzip", gzip.compress(VIDEO[:100]) + gzip.compress(VIDEO[100:]) + gzip.compress(b"")),
        ("deflate", zlib.compress(VIDEO)),
        ("deflate", RAW_DEFLATE),
    ],
    ids=["gzip", "GZip", "x-gzip", "identity", "aws-chunked", "padded", "members", "deflate", "raw-deflate"],
)
async def test_compressed_videos_are_decoded(clients: Clients, coding: str, body: bytes) -> None:
    assert await download(clients, body, f"Content-Encoding: {coding}") == (VIDEO, None)


@pytest.mark.parametrize("coding", ["identity", "utf-8", "none", "", "br", "gzip, gzip"])
async def test_other_encodings_are_passed_on_with_their_length(clients: Clients, coding: str) -> None:
    assert await download(clients, VIDEO, f"Content-Encoding: {coding}") == (VIDEO, len(VIDEO))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "aws-chunked", "aws-chunked,gzip"])
@pytest.mark.parametrize("body", [VIDEO, video(container="webm"), b""], ids=["mp4", "webm", "nothing"])
async def test_a_header_that_is_wrong_changes_nothing(clients: Clients, coding: str, body: bytes) -> None:
    assert (await download(clients, body, f"Content-Encoding: {coding}"))[0] == body


@pytest.mark.parametrize(
    "body", [GZIP[:-1], GZIP[:100], GZIP[:200] + b"damage" * 20 + GZIP[320:]], ids=["cut", "short", "hole"]
)
async def test_a_compressed_body_that_is_cut_or_damaged_is_no_reply(clients: Clients, body: bytes) -> None:
    with pytest.raises(NoReply, match="compressed body"):
        await download(clients, body, "Content-Encoding: gzip")


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_the_sizes_of_chunks_do_not_matter(size: int) -> None:
    content = VIDEO[:10_000]
    for coding, body in (
        ("gzip", gzip.compress(content)),
        ("deflate", zlib.compress(content)),
        ("gzip", content),
        ("aws-chunked", framed(content)),
        ("aws-chunked", content),
    ):
        assert b"".join([piece async for piece in decoded(in_chunks(body, size), [coding])]) == content


async def test_a_bomb_comes_in_pieces_and_is_not_read_further_than_its_receiver_goes() -> None:
    bomb = gzip.compress(bytes(64 * PIECE_BYTES))
    pieces = decoded(in_chunks(bomb, len(bomb)), ["gzip"])
    sizes = [len(await anext(pieces)) for _ in range(3)]
    assert max(sizes) <= PIECE_BYTES


async def test_a_body_that_expands_to_nothing_ends() -> None:
    empty = gzip.compress(b"") * 1000

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield empty

    with pytest.raises(Undecodable, match="almost nothing"):
        assert [piece async for piece in decoded(endless(), ["gzip"])] == []


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("aws-chunked", framed(VIDEO)),
        ("aws-chunked", framed(VIDEO, b"", 65_536, b"x-amz-checksum-crc32:AAAAAA==\r\n")),
        ("aws-chunked", framed(VIDEO, b"", len(VIDEO))),
        ("aws-chunked,gzip", framed(GZIP)),
        ("gzip, aws-chunked", framed(GZIP)),
    ],
    ids=["signed", "with checksum", "one chunk", "gzip", "gzip first"],
)
async def test_framing_that_a_store_did_not_remove_is_removed(clients: Clients, coding: str, body: bytes) -> None:
    assert await download(clients, body, f"Content-Encoding: {coding}") == (VIDEO, None)


@pytest.mark.parametrize(
    "body",
    [
        framed(VIDEO)[:1000],
        framed(VIDEO)[:-20],
        framed(VIDEO, b"", 8192).replace(b"\r\n0\r\n\r\n", b""),
        framed(VIDEO, b"", 100),
        b"10\r\n" + bytes(20),
        b"10\r\n" + bytes(16) + b"\r\n" + b"?" * 1000,
    ],
    ids=["in a chunk", "after a chunk", "no end", "small chunks", "longer than it says", "no size"],
)
async def test_damaged_framing_is_no_reply(clients: Clients, body: bytes) -> None:
    with pytest.raises(NoReply, match="aws-chunked"):
        await download(clients, body, "Content-Encoding: aws-chunked")
