"""The guarded client: no address form, no name server, no redirect and no reply gets anywhere it should not."""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from app.infra.addresses import permitted
from app.infra.egress import (
    LOOKUPS,
    ForbiddenAddress,
    GuardedClient,
    GuardedReply,
    GuardError,
    InvalidUrl,
    NoReply,
    TimedOut,
    Unreachable,
    check_url,
)
from app.settings import WebhookSettings
from tests.support.names import Names
from tests.support.receiver import LOOPBACK, Answer, Body, Receiver, loopback_settings, running_receiver

FORBIDDEN = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.0.0.53", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8"),
    *("100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1", "3ffe::1", "3fff::1", "3fff:fff::1"),
    *("5f00::1", "4000::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%1", "febf::1", "fec0::1"),
    *("ff02::1", "ff0e::1", "2606:4700:4700::1111%1"),
]

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255"),
    *("198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2001:4860:4860::8888", "2606:4700:4700::1111"),
    *("2a00:1450:4001:80e::200e", "64:ff9b::8.8.8.8"),
]

# Every way to write an address that we have met; {port} is that of a socket which counts its visitors.
SPELLINGS = [
    *("http://127.0.0.1:{port}/", "http://127.1:{port}/", "http://127.0.1:{port}/", "http://127.255.255.254:{port}/"),
    *("http://0:{port}/", "http://0.0.0.0:{port}/", "http://00:{port}/", "http://0x0:{port}/"),
    *("http://2130706433:{port}/", "http://4294967295:{port}/", "http://6425673729:{port}/"),
    *("http://0x7f000001:{port}/", "http://0X7F000001:{port}/", "http://0x7f.0.0.1:{port}/", "http://0x7f.1:{port}/"),
    *("http://127.0.0.0x1:{port}/", "http://0x:{port}/", "http://017700000001:{port}/", "http://0177.0.0.1:{port}/"),
    *("http://0177.1:{port}/", "http://00000177.0.0.1:{port}/", "http://127.000.000.001:{port}/"),
    *("http://127.0.0.1.:{port}/", "http://127.0.0.1..:{port}/", "http://127.1.:{port}/", "http://2130706433.:{port}/"),
    *("http://383.0.0.1:{port}/", "http://127.0.0.257:{port}/", "http://127.0.0.1.1:{port}/", "http://256:{port}/"),
    *(
        "http://localhost:{port}/",
        "http://LOCALHOST:{port}/",
        "http://localhost.:{port}/",
        "http://a.localhost:{port}/",
    ),
    *("http://[::1]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/", "http://[::]:{port}/", "http://[::0.0.0.1]:{port}/"),
    *("http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/", "http://[::127.0.0.1]:{port}/"),
    *("http://[0:0:0:0:0:ffff:7f00:0001]:{port}/", "http://[::FFFF:127.0.0.1]:{port}/"),
    *("http://[64:ff9b::7f00:1]:{port}/", "http://[64:ff9b::127.0.0.1]:{port}/", "http://[64:ff9b:1::7f00:1]:{port}/"),
    *("http://[2002:7f00:1::]:{port}/", "http://[2001:0:7f00:1::]:{port}/", "http://[fe80::1%25lo]:{port}/"),
    *(
        "http://[fe80::1%lo]:{port}/",
        "http://[::1%25lo]:{port}/",
        "http://[::1%1]:{port}/",
        "http://[127.0.0.1]:{port}/",
    ),
    *("http://１２７.０.０.１:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://127。0。0。1:{port}/"),
    *("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/", "http://ｌocalhost:{port}/", "http://localhost%2e:{port}/"),
    *("http://%31%32%37.0.0.1:{port}/", "http://127%2e0%2e0%2e1:{port}/", "http://localhost%00.example:{port}/"),
    *("http://127.0.0.1%00.example:{port}/", "http://127.0.0.1 .example:{port}/", "http://127.0.0.1\t:{port}/"),
    *("http://exa\nmple.com@127.0.0.1:{port}/", "http://example.com@127.0.0.1:{port}/", "http://a:b@127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}#@example.com/", "http://127.0.0.1:{port}\\@example.com/"),
    *("http://example.com\\@127.0.0.1:{port}/", "http://127.0.0.1:{port}?@example.com/"),
    *("http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}/"),
    *("//127.0.0.1:{port}/", "127.0.0.1:{port}", " http://127.0.0.1:{port}/", "http://-127.0.0.1:{port}/"),
    *("ftp://127.0.0.1:{port}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "http+unix://127.0.0.1:{port}/"),
    *("ws://127.0.0.1:{port}/", "tcp://127.0.0.1:{port}/", "javascript:alert(1)", "data:,x", "", "http://", "https://"),
    *(
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
    ),
    *("http://0251.0376.0251.0376/", "http://169.254.43518/", "http://[::ffff:a9fe:a9fe]/", "http://168.63.129.16/"),
    *("http://100.100.100.200/", "http://192.0.0.192/", "http://224.0.0.1/", "http://255.255.255.255/"),
]


class Tripwire:
    """A listening socket on loopback that counts who connects."""

    def __init__(self) -> None:
        self._visits = 0
        self._visited = asyncio.Event()
        self.port = 0

    async def visit(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visits += 1
        self._visited.set()
        writer.close()

    async def visits(self) -> int:
        """Connections made so far. Our own comes last in the queue, so that none before it can be overlooked."""
        before = self._visits
        self._visited.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while self._visits == before:
            await self._visited.wait()
            self._visited.clear()
        writer.close()
        await writer.wait_closed()
        self._visits -= 1
        return self._visits


@asynccontextmanager
async def tripwire(port: int = 0) -> AsyncIterator[Tripwire]:
    wire = Tripwire()
    server = await asyncio.start_server(wire.visit, "127.0.0.1", port)
    async with server:
        wire.port = server.sockets[0].getsockname()[1]
        yield wire


@asynccontextmanager
async def receiver_beside_tripwire() -> AsyncIterator[tuple[Receiver, Tripwire]]:
    """A receiver on 127.0.0.2 and a tripwire on 127.0.0.1, on one port."""
    async with AsyncExitStack() as stack:
        receiver, wire = await stack.enter_async_context(running_receiver("127.0.0.2")), None
        while wire is None:
            try:
                wire = await stack.enter_async_context(tripwire(receiver.port))
            except OSError:  # the port is taken on the other address
                receiver = await stack.enter_async_context(running_receiver("127.0.0.2"))
        yield receiver, wire


@asynccontextmanager
async def guarded(settings: WebhookSettings, resolver: AbstractResolver | None = None) -> AsyncIterator[GuardedClient]:
    client = GuardedClient(settings, resolver=resolver)
    try:
        yield client
    finally:
        await client.close()


async def post(settings: WebhookSettings, url: str, resolver: AbstractResolver | None = None) -> GuardedReply:
    async with guarded(settings, resolver) as client:
        return await client.post(url, {"content-type": "application/json"}, b"{}")


# Where it connects to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", FORBIDDEN)
def test_address_is_forbidden(address: str) -> None:
    assert not permitted(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_address_is_public(address: str) -> None:
    assert permitted(ip_address(address))


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    allowed = [IPv4Network("10.1.0.0/16")]
    assert permitted(ip_address("10.1.2.3"), allowed)
    assert permitted(ip_address("64:ff9b::10.1.2.3"), allowed)
    assert not permitted(ip_address("10.2.0.1"), allowed)
    assert not permitted(ip_address("::ffff:10.1.2.3"), allowed)


@pytest.mark.parametrize("url", SPELLINGS)
async def test_no_spelling_of_a_forbidden_address_is_taken_or_connected_to(url: str) -> None:
    settings = WebhookSettings(allow_http=True, timeout=5)
    async with tripwire() as wire:
        spelled = url.format(port=wire.port)
        with pytest.raises(InvalidUrl):
            check_url(spelled, settings)
        # A path that forgot the check is guarded all the same.
        with pytest.raises(GuardError):
            await post(settings, spelled)
        assert await wire.visits() == 0


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_name_that_leads_to_a_forbidden_address_is_not_connected_to(address: str) -> None:
    async with tripwire() as wire:
        with pytest.raises(ForbiddenAddress):
            await post(WebhookSettings(allow_http=True), f"http://hooks.example:{wire.port}/", Names([address]))
        assert await wire.visits() == 0


async def test_several_forbidden_addresses_of_one_name_are_all_refused() -> None:
    async with tripwire() as wire:
        with pytest.raises(ForbiddenAddress):
            await post(WebhookSettings(allow_http=True), f"http://hooks.example:{wire.port}/", Names(FORBIDDEN))
        assert await wire.visits() == 0


async def test_rebinding_after_a_good_look_up_is_refused() -> None:
    settings = WebhookSettings(allow_http=True, allowed_networks=(IPv4Network("127.0.0.2/32"),))
    async with receiver_beside_tripwire() as (receiver, wire):
        names = Names(["127.0.0.2"], ["127.0.0.1"])
        async with guarded(settings, names) as client:
            url = f"http://hooks.example:{receiver.port}/"
            receiver.will_answer(Answer(headers={"Connection": "close"}))
            assert (await client.post(url, {}, b"{}")).status == 200
            with pytest.raises(ForbiddenAddress):
                await client.post(url, {}, b"{}")
        assert await wire.visits() == 0


async def test_rebinding_while_a_connection_is_kept_leads_nowhere_else() -> None:
    settings = WebhookSettings(allow_http=True, allowed_networks=(IPv4Network("127.0.0.2/32"),))
    async with receiver_beside_tripwire() as (receiver, wire):
        names = Names(["127.0.0.2"], ["127.0.0.1"])
        async with guarded(settings, names) as client:
            url = f"http://hooks.example:{receiver.port}/"
            for _ in range(3):
                assert (await client.post(url, {}, b"{}")).status == 200
        assert len(receiver.received) == 3
        assert await wire.visits() == 0


async def test_of_mixed_addresses_only_the_permitted_one_is_connected_to() -> None:
    settings = WebhookSettings(allow_http=True, allowed_networks=(IPv4Network("127.0.0.2/32"),))
    async with receiver_beside_tripwire() as (receiver, wire):
        names = Names(["127.0.0.1", "::1", "10.0.0.1", "127.0.0.2"])
        assert (await post(settings, f"http://hooks.example:{receiver.port}/", names)).status == 200
        assert await wire.visits() == 0


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_redirect_is_a_response_and_is_not_followed(status: int) -> None:
    async with running_receiver() as receiver, tripwire() as wire:
        receiver.will_answer(Answer(status, {"Location": f"http://127.0.0.1:{wire.port}/"}))
        assert (await post(loopback_settings(), receiver.url)).status == status
        assert await wire.visits() == 0
        assert len(receiver.received) == 1


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with running_receiver() as receiver, tripwire() as wire:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{wire.port}")
        assert (await post(loopback_settings(), receiver.url)).status == 200
        assert await wire.visits() == 0
        assert "authorization" not in receiver.received[0].headers


async def test_cookies_are_neither_kept_nor_sent() -> None:
    async with running_receiver() as receiver, guarded(loopback_settings()) as client:
        receiver.will_answer(Answer(headers={"Set-Cookie": "canary=1; Path=/"}))
        await client.post(receiver.url, {}, b"{}")
        await client.post(receiver.url, {}, b"{}")
        assert ["cookie" in request.headers for request in receiver.received] == [False, False]


# What it sends and reads ---------------------------------------------------------------------------------------------


async def test_body_and_headers_arrive_as_given_and_the_reply_comes_back() -> None:
    async with running_receiver() as receiver:
        receiver.will_answer(Answer(202, {"Retry-After": "7"}, b"thanks"))
        async with guarded(loopback_settings()) as client:
            reply = await client.post(f"{receiver.url}/%41/../b?token=a%2Fb%41+", {"webhook-id": "evt_1"}, b'{"a":1}')
    assert (reply.status, reply.headers["retry-after"], reply.body_excerpt) == (202, "7", b"thanks")
    (request,) = receiver.received
    assert request.path == "/hook/%41/../b?token=a%2Fb%41+"
    assert request.body == b'{"a":1}'
    assert request.headers["webhook-id"] == "evt_1"


class Scripted:
    """A server whose connections answer so many requests each, and then break when the next one has come."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self.requests: list[int] = []  # of each connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.requests)
        self.requests.append(0)
        while True:
            try:
                await reader.readuntil(b"{}")
            except asyncio.IncompleteReadError:
                break
            self.requests[number] += 1
            if self.requests[number] > self._answers[number]:
                break
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()


@asynccontextmanager
async def scripted(*answers: int) -> AsyncIterator[tuple[Scripted, str]]:
    script = Scripted(*answers)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    async with server:
        yield script, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_connection_is_kept_for_the_next_post() -> None:
    async with scripted(3) as (server, url), guarded(loopback_settings()) as client:
        for _ in range(3):
            assert (await client.post(url, {}, b"{}")).status == 204
        assert server.requests == [3]


async def test_kept_connection_that_breaks_before_it_replies_is_replaced() -> None:
    async with scripted(1, 1, 1) as (server, url), guarded(loopback_settings()) as client:
        for _ in range(3):
            assert (await client.post(url, {}, b"{}")).status == 204
        assert server.requests == [2, 1, 1]


async def test_a_post_is_sent_twice_at_most_however_many_kept_connections_break() -> None:
    async with scripted(*[1] * 9) as (server, url), guarded(loopback_settings()) as client:
        await asyncio.gather(*(client.post(url, {}, b"{}") for _ in range(8)))
        kept = len(server.requests)
        assert kept > 2
        assert (await client.post(url, {}, b"{}")).status == 204
        assert sum(server.requests) == 8 + 2
        assert len(server.requests) == kept + 1


async def test_new_connection_that_breaks_before_it_replies_is_no_reply() -> None:
    async with scripted(1, 0, 9) as (server, url), guarded(loopback_settings()) as client:
        await client.post(url, {}, b"{}")
        with pytest.raises(NoReply):
            await client.post(url, {}, b"{}")
        assert server.requests == [2, 1]


async def test_reply_that_breaks_off_on_a_kept_connection_is_not_asked_for_again() -> None:
    async with running_receiver() as receiver, guarded(loopback_settings()) as client:
        receiver.will_answer(200, Answer(body=Body.CUT))
        await client.post(receiver.url, {}, b"{}")
        with pytest.raises(NoReply):
            await client.post(receiver.url, {}, b"{}")
        assert len(receiver.received) == 2


async def test_endless_reply_is_read_up_to_the_cap_and_cut() -> None:
    async with running_receiver() as receiver:
        receiver.will_answer(Answer(body=Body.ENDLESS))
        reply = await post(loopback_settings(max_reply_bytes=1000), receiver.url)
        assert len(reply.body_excerpt) == 1000
        await receiver.idle()
        assert receiver.bytes_sent < 64 * 1024 * 1024


async def test_packed_reply_is_never_unpacked() -> None:
    packed = gzip.compress(bytes(50_000_000))
    async with running_receiver() as receiver:
        receiver.will_answer(Answer(headers={"Content-Encoding": "gzip"}, body=packed))
        reply = await post(loopback_settings(), receiver.url)
    assert reply.body_excerpt == packed[:65_536]
    assert receiver.received[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("body", [Body.HANGING, Body.DRIPPING])
async def test_one_deadline_covers_the_whole_response(body: Body) -> None:
    async with running_receiver() as receiver:
        receiver.will_answer(Answer(body=body))
        with pytest.raises(TimedOut, match=r"within 0\.2 seconds"):
            await post(loopback_settings(timeout=0.2), receiver.url)


async def test_reply_that_breaks_off_is_no_reply() -> None:
    async with running_receiver() as receiver:
        receiver.will_answer(Answer(body=Body.CUT))
        with pytest.raises(NoReply):
            await post(loopback_settings(), receiver.url)


@pytest.mark.parametrize(
    "greeting",
    [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, b"HTTP/1.1 99999999 OK\r\n\r\n"],
    ids=["nothing", "another protocol", "an endless header", "a status that is none"],
)
async def test_what_is_not_http_is_no_reply(greeting: bytes) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NoReply):
            await post(loopback_settings(), f"http://127.0.0.1:{port}/")


async def test_refused_connection_and_unknown_name_are_unreachable() -> None:
    async with tripwire() as wire:
        port = wire.port
    with pytest.raises(Unreachable, match="connection refused"):
        await post(loopback_settings(), f"http://127.0.0.1:{port}/")
    with pytest.raises(Unreachable, match="could not be resolved"):
        await post(loopback_settings(), "http://hooks.example/", Names([]))


async def test_certificate_that_no_authority_signed_is_refused(tmp_path: Path) -> None:
    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pytest.fail("the handshake succeeded")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    async with await asyncio.start_server(never, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="certificate was refused: self-signed"):
            await post(WebhookSettings(allowed_networks=LOOPBACK), f"https://127.0.0.1:{port}/")


async def test_slow_name_servers_delay_no_other_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    answer_at_once = socket.getaddrinfo

    def answer_slowly(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "slow.example":
            loop.call_soon_threadsafe(begun.set)
            released.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return answer_at_once(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer_slowly)
    async with guarded(loopback_settings(timeout=60)) as client:
        slow = [asyncio.create_task(client.post("http://slow.example/", {}, b"{}")) for _ in range(LOOKUPS)]
        try:
            await begun.wait()
            async with asyncio.timeout(60):
                assert await loop.getaddrinfo("127.0.0.1", 80)
            async with running_receiver() as receiver:
                assert (await client.post(receiver.url, {}, b"{}")).status == 200
        finally:
            released.set()
        ends = await asyncio.gather(*slow, return_exceptions=True)
    assert {type(end) for end in ends} == {Unreachable}


# What it takes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://EXAMPLE.com:8443/hooks/video?key=a%2Fb&c=d",
        "https://bücher.example/",
        "https://my_host.example./",
        "https://1.example/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://example.com/" + "a" * 2028,
    ],
)
def test_public_https_url_is_taken(url: str) -> None:
    check_url(url, WebhookSettings())


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://example.com/", "https://"),
        ("example.com/hook", "https://"),
        ("https:///hook", "host"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "valid URL"),
        ("https://user@example.com/", "password"),
        ("https://user:secret@example.com/", "password"),
        ("https://:@example.com/", "password"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/\x00", "control"),
        ("https://exa..mple.com/", "valid host"),
        ("https://" + "a" * 64 + ".example/", "valid host"),
        ("https://" + "a." * 130 + "example/", "valid host"),
        ("https://-a.example/", "valid host"),
        ("https://a%20b.example/", "valid host"),
        ("https://127.0.0.1/", "public internet"),
        ("https://localhost/", "public internet"),
        ("https://0x7f.1/", "in full"),
        ("https://example.com/" + "a" * 2029, "2048"),
    ],
)
def test_url_is_refused_with_a_hint(url: str, hint: str) -> None:
    with pytest.raises(InvalidUrl, match=hint):
        check_url(url, WebhookSettings())


PIECES = [*"[]:/@?#%.\\-_0xaé⓪。\u200d\ud800\0 ", "xn--", "localhost", "127.1", "%2e", "ⅷ", "::"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
async def test_no_text_breaks_the_check_or_the_client(text: str) -> None:
    url = f"https://{text}"
    try:
        check_url(url, WebhookSettings())
    except InvalidUrl:
        return
    with pytest.raises((ForbiddenAddress, InvalidUrl)):
        await post(WebhookSettings(), url, Names(["127.0.0.1"]))


async def test_post_refuses_what_check_url_would_have_refused() -> None:
    async with running_receiver() as receiver:
        with pytest.raises(InvalidUrl, match="https://"):
            await post(WebhookSettings(allowed_networks=LOOPBACK), receiver.url)
        assert receiver.received == []


def self_signed(directory: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    file = directory / "receiver.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file
