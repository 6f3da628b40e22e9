"""What can be said of a request after the network has had its way, over real sockets."""

import asyncio

import pytest

from app.providers.download import Download
from app.providers.http_clients import Clients
from app.providers.transport import (
    MAX_REPLY_BYTES,
    Call,
    NoReply,
    NotSent,
    Reply,
    Transport,
    TransportError,
)
from tests.support.raw_server import RawServer, Say, Then, reply, running_raw_server

BUY = Call("POST", "/videos", headers={"Content-Type": "application/json"}, body=b'{"prompt":"a video"}')
LOOK = Call("GET", "/videos/1")
SECRET = {"Authorization": "Bearer canary"}


def soon(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


def transport_to(server: RawServer, clients: Clients, *, private_results: bool = False) -> Transport:
    return Transport(clients, server.url, SECRET, timeout=30, private_results=private_results)


async def read(download: Download) -> bytes:
    return b"".join([chunk async for chunk in download.chunks()])


# Paid requests --------------------------------------------------------------------------------------------------------


async def test_refused_connection_is_proof_that_nothing_was_sent(clients: Clients) -> None:
    async with running_raw_server() as server:
        gone = transport_to(server, clients)
    with pytest.raises(NotSent):
        await gone.send_paid(BUY, soon())


async def test_unknown_host_is_proof_that_nothing_was_sent(clients: Clients) -> None:
    with pytest.raises(NotSent):
        await Transport(clients, "http://no-such-host.invalid").send_paid(BUY, soon())


async def test_deadline_that_has_passed_sends_nothing(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        with pytest.raises(NotSent):
            await transport_to(server, clients).send_paid(BUY, soon(-1))
        assert server.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Say(unheard=True), id="accepted and closed"),
        pytest.param(Say(), id="read and closed"),
        pytest.param(Say(b"HTTP/1.1 200 OK\r\nContent-Le"), id="half a head"),
        pytest.param(Say(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id":"vid'), id="half a body"),
        pytest.param(Say(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"id"'), id="half a chunk"),
        pytest.param(Say(b"\x00\xff garbage \r\n\r\n"), id="garbage"),
    ],
)
async def test_broken_reply_is_no_reply_and_nothing_is_sent_twice(answer: Say, clients: Clients) -> None:
    async with running_raw_server(answer, reply()) as server:
        with pytest.raises(NoReply):
            await transport_to(server, clients).send_paid(BUY, soon())
        assert server.connections == 1
        assert len(server.heard) <= 1


async def test_black_hole_ends_at_the_deadline_as_no_reply(clients: Clients) -> None:
    async with running_raw_server(Say(then=Then.HANG)) as server:
        with pytest.raises(NoReply):
            await transport_to(server, clients).send_paid(BUY, soon(0.2))
        assert server.connections == len(server.heard) == 1


async def test_reply_that_begins_in_time_and_never_ends_is_no_reply(clients: Clients) -> None:
    beginning = Say(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id":', Then.HANG)
    async with running_raw_server(beginning) as server:
        with pytest.raises(NoReply):
            await transport_to(server, clients).send_paid(BUY, soon(0.2))


@pytest.mark.parametrize("declared", [True, False])
async def test_reply_without_measure_is_no_reply(clients: Clients, *, declared: bool) -> None:
    length = f"Content-Length: {MAX_REPLY_BYTES + 1}\r\n" if declared else ""
    flood = Say(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode() + b" " * (MAX_REPLY_BYTES + 1))
    async with running_raw_server(flood) as server:
        with pytest.raises(NoReply, match="longer than"):
            await transport_to(server, clients).send_paid(BUY, soon())


async def test_each_paid_request_has_a_connection_of_its_own(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        transport = transport_to(server, clients)
        for _ in range(3):
            await transport.send_paid(BUY, soon())
        assert server.connections == 3


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_redirect_of_a_paid_request_is_not_followed(status: str, clients: Clients) -> None:
    async with running_raw_server(reply(b"", "Location: /elsewhere", status=status)) as server:
        answer = await transport_to(server, clients).send_paid(BUY, soon())
        assert answer.status == int(status[:3])
        assert len(server.heard) == 1


async def test_cancelled_paid_request_does_not_linger(clients: Clients) -> None:
    async with running_raw_server(Say(then=Then.HANG)) as server:
        sending = asyncio.create_task(transport_to(server, clients).send_paid(BUY, soon()))
        await server.wait_for(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert server.connections == 1


# Others ---------------------------------------------------------------------------------------------------------------


async def test_status_requests_share_a_connection(clients: Clients) -> None:
    async with running_raw_server(reply(b'{"status":"queued"}')) as server:
        transport = transport_to(server, clients)
        for _ in range(3):
            assert (await transport.send(LOOK)).json() == {"status": "queued"}
        assert server.connections == 1


async def test_silent_status_request_ends_with_the_connection_s_time_out(clients: Clients) -> None:
    async with running_raw_server(Say(then=Then.HANG)) as server:
        with pytest.raises(NoReply):
            await Transport(clients, server.url, timeout=0.2).send(LOOK)


async def test_query_and_odd_ids_arrive_as_they_are(clients: Clients) -> None:
    async with running_raw_server(reply()) as server:
        await transport_to(server, clients).send(Call("GET", "/videos/a%2Fb%3F", query={"after": "x&y=z"}))
        assert server.heard[0].line == "GET /videos/a%2Fb%3F?after=x%26y%3Dz HTTP/1.1"


async def test_packed_reply_is_not_asked_for_and_not_unpacked(clients: Clients) -> None:
    async with running_raw_server(reply(b"\x1f\x8b a bomb", "Content-Encoding: gzip")) as server:
        answer = await transport_to(server, clients).send(LOOK)
        assert server.heard[0].headers["accept-encoding"] == "identity"
        assert answer.json() is None


@pytest.mark.parametrize("body", [b"<html>", b'{"progress": NaN}', b"[" * 200_000, b"\xff\xfe", b""])
def test_what_is_not_json_is_read_as_nothing(body: bytes) -> None:
    assert Reply(200, {}, body).json() is None


# Results --------------------------------------------------------------------------------------------------------------


async def test_video_is_streamed_with_its_status_and_headers(clients: Clients) -> None:
    async with running_raw_server(reply(b"video", "Content-Type: video/mp4")) as server:
        async with transport_to(server, clients).stream(Call("GET", "/video")) as download:
            assert (download.status, download.headers["content-type"]) == (200, "video/mp4")
            assert await read(download) == b"video"
        assert server.heard[0].headers["authorization"] == "Bearer canary"
        assert server.heard[0].headers["accept-encoding"] == "identity"


async def test_video_that_breaks_off_is_no_reply(clients: Clients) -> None:
    cut = Say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf a video")
    async with (
        running_raw_server(cut) as server,
        transport_to(server, clients).stream(Call("GET", "/video")) as download,
    ):
        with pytest.raises(NoReply):
            await read(download)


async def test_video_that_stalls_is_no_reply(clients: Clients) -> None:
    stalled = Say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf a video", Then.HANG)
    async with (
        running_raw_server(stalled) as server,
        Transport(clients, server.url, timeout=0.2).stream(Call("GET", "/video")) as download,
    ):
        with pytest.raises(NoReply):
            await read(download)


async def test_our_own_trouble_while_streaming_is_not_the_network_s(clients: Clients) -> None:
    async def keep_it(server: RawServer) -> None:
        async with transport_to(server, clients).stream(Call("GET", "/video")) as download:
            await read(download)
            raise OSError("No space left on device")

    async with running_raw_server(reply(b"video")) as server:
        with pytest.raises(OSError, match="No space left"):
            await keep_it(server)


async def test_credential_goes_to_no_other_origin(clients: Clients) -> None:
    async with running_raw_server(reply(b"video")) as theirs, running_raw_server(reply()) as ours:
        transport = transport_to(ours, clients, private_results=True)
        async with transport.stream(Call("GET", f"{theirs.url}/video?sig=a%2Bb%3D")) as download:
            assert await read(download) == b"video"
        assert "canary" not in str(theirs.heard)
        assert theirs.heard[0].line == "GET /video?sig=a%2Bb%3D HTTP/1.1"


async def test_redirect_of_a_video_is_followed_without_the_credential(clients: Clients) -> None:
    async with running_raw_server(reply(b"video")) as theirs:
        away = reply(b"", f"Location: {theirs.url}/video?sig=a%2Bb", status="302 Found")
        async with running_raw_server(away) as ours:
            transport = transport_to(ours, clients, private_results=True)
            async with transport.stream(Call("GET", "/videos/1/content")) as download:
                assert await read(download) == b"video"
            assert ours.heard[0].headers["authorization"] == "Bearer canary"
        assert "canary" not in str(theirs.heard)
        assert theirs.heard[0].line == "GET /video?sig=a%2Bb HTTP/1.1"


async def test_redirects_come_to_an_end(clients: Clients) -> None:
    async with running_raw_server(reply(b"", "Location: /video", status="302 Found")) as server:
        with pytest.raises(NoReply, match="redirects"):
            async with transport_to(server, clients).stream(Call("GET", "/video")):
                pass
        assert len(server.heard) == 6


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0x7f000001"])
async def test_provider_cannot_send_us_to_a_private_address(host: str, clients: Clients) -> None:
    async with running_raw_server(reply(b"secrets")) as inside, running_raw_server(reply()) as ours:
        with pytest.raises(NotSent, match="not on the public internet; private_results would allow it"):
            async with transport_to(ours, clients).stream(Call("GET", f"http://{host}:{inside.port}/video")):
                pass
        assert inside.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "0xa9fea9fe", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]"),
        *("169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fe80::a9fe:a9fe]"),
    ],
)
async def test_private_results_open_no_metadata_service(host: str, clients: Clients) -> None:
    async with running_raw_server(reply()) as ours:
        transport = transport_to(ours, clients, private_results=True)
        with pytest.raises(NotSent, match="metadata service"):
            async with transport.stream(Call("GET", f"http://{host}/latest/meta-data/")):
                pass
    async with running_raw_server(reply(b"", f"Location: http://{host}/x", status="302 Found")) as ours:
        transport = transport_to(ours, clients, private_results=True)
        with pytest.raises(TransportError, match="metadata service"):
            async with transport.stream(Call("GET", "/video")):
                pass


async def test_provider_cannot_redirect_us_to_a_private_address(clients: Clients) -> None:
    async with running_raw_server(reply(b"secrets")) as inside:
        away = reply(b"", f"Location: {inside.url}/video", status="302 Found")
        async with running_raw_server(away) as ours:
            with pytest.raises((NotSent, NoReply)):
                async with transport_to(ours, clients).stream(Call("GET", "/videos/1/content")):
                    pass
        assert inside.connections == 0


@pytest.mark.parametrize("url", ["http://", "https://[", "http://host:port/", "http://a b/"])
async def test_unusable_result_url_is_a_transport_error(url: str, clients: Clients) -> None:
    async with running_raw_server(reply()) as ours:
        with pytest.raises(NotSent):
            async with transport_to(ours, clients).stream(Call("GET", url)):
                pass


async def test_secrets_are_in_no_repr(clients: Clients) -> None:
    async with running_raw_server(reply(b'{"token":"canary"}')) as server:
        transport = transport_to(server, clients)
        answer = await transport.send(LOOK)
        assert "canary" not in repr(transport) + repr(answer) + repr(vars(BUY.__class__))
