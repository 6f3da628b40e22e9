"""Requests to providers where a proxy is the only way out."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.connection_settings import DIRECT
from app.providers.http_clients import Clients
from app.providers.transport import Call, NotSent, Transport, TransportError
from tests.support.forward_proxy import ForwardProxy, running_forward_proxy
from tests.support.raw_server import RawServer, reply, running_raw_server

BUY = Call("POST", "/videos", body=b"{}")
READ = Call("GET", "/videos/1")
SECRET = "s3cret-of-the-proxy"


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxy]:
    async with running_forward_proxy() as running:
        yield running


@pytest.fixture
async def clients(proxy: ForwardProxy) -> AsyncIterator[Clients]:
    """Of a process with ``egress.proxy``."""
    opened = Clients(proxy=proxy.url)
    yield opened
    await opened.close()


def transport_to(url: str, clients: Clients, *, proxy: str | None = None, private_results: bool = False) -> Transport:
    headers = {"Authorization": "Bearer canary"}
    return Transport(clients, url, headers, timeout=60, proxy=proxy, private_results=private_results)


def soon() -> float:
    return asyncio.get_running_loop().time() + 60


@pytest.fixture
async def provider() -> AsyncIterator[RawServer]:
    async with running_raw_server(reply()) as server:
        yield server


async def test_every_request_goes_through_it(proxy: ForwardProxy, provider: RawServer, clients: Clients) -> None:
    transport = transport_to(provider.url, clients)
    assert (await transport.send_paid(BUY, soon())).status == 200
    assert (await transport.send(READ)).status == 200
    async with transport.stream(READ) as download:
        assert b"".join([chunk async for chunk in download.chunks()]) == b"{}"
    assert [line.split()[0] for line in proxy.asked] == ["POST", "GET"]  # the third uses the second's connection
    assert proxy.credentials == ["Proxy-Authorization: Basic dXNlcjpzM2NyZXQtb2YtdGhlLXByb3h5"] * 2
    assert len(provider.heard) == 3
    assert SECRET not in str(provider.heard)


async def test_a_connection_may_have_its_own_or_none(
    proxy: ForwardProxy, provider: RawServer, clients: Clients
) -> None:
    await transport_to(provider.url, clients, proxy=DIRECT).send_paid(BUY, soon())
    assert proxy.asked == []
    direct = Clients()
    await transport_to(provider.url, direct, proxy=proxy.url).send_paid(BUY, soon())
    await direct.close()
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_proxy_that_lets_nothing_through_is_no_provider(
    proxy: ForwardProxy, provider: RawServer, clients: Clients, scheme: str
) -> None:
    proxy.refusing = True
    transport = transport_to(provider.url.replace("http", scheme, 1), clients)
    if scheme == "https":
        with pytest.raises(NotSent, match="403") as raised:
            await transport.send_paid(BUY, soon())
        assert SECRET not in str(raised.value)
        assert proxy.asked == [f"CONNECT 127.0.0.1:{provider.port} HTTP/1.1"]
    else:
        # Without TLS the proxy's response cannot be told from the provider's: it proves nothing.
        assert (await transport.send_paid(BUY, soon())).status == 403
    assert provider.heard == []


async def test_a_proxy_that_is_away_proves_that_nothing_was_sent(provider: RawServer) -> None:
    async with running_forward_proxy() as gone:
        pass
    clients = Clients(proxy=gone.url)
    with pytest.raises(NotSent) as raised:
        await transport_to(provider.url, clients).send_paid(BUY, soon())
    assert SECRET not in str(raised.value)
    await clients.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0x7f000001"])
async def test_a_result_leads_to_no_private_address(
    proxy: ForwardProxy, provider: RawServer, clients: Clients, host: str
) -> None:
    async with running_raw_server(reply(b"secrets")) as inside:
        url = f"http://{host}:{inside.port}/video"
        with pytest.raises(NotSent, match="not on the public internet"):
            async with transport_to(provider.url, clients).stream(Call("GET", url)):
                pass
        provider.will_say(reply(b"", f"Location: {url}", status="302 Found"))
        with pytest.raises(TransportError, match="not on the public internet"):
            async with transport_to(provider.url, clients).stream(READ):
                pass
        assert inside.connections == 0
    assert len(proxy.asked) == 1


async def test_private_results_are_fetched_through_it_but_for_metadata(
    proxy: ForwardProxy, provider: RawServer, clients: Clients
) -> None:
    async with running_raw_server(reply(b"video")) as inside:
        transport = transport_to(provider.url, clients, private_results=True)
        async with transport.stream(Call("GET", f"{inside.url}/video")) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b"video"
        assert "canary" not in str(inside.heard)
        with pytest.raises(NotSent, match="metadata"):
            async with transport.stream(Call("GET", "http://169.254.169.254/latest/meta-data/")):
                pass
    assert proxy.asked == [f"GET {inside.url}/video HTTP/1.1"]


async def test_a_name_that_only_the_proxy_knows_is_its_to_judge(
    proxy: ForwardProxy, provider: RawServer, clients: Clients
) -> None:
    proxy.refusing = True
    async with transport_to(provider.url, clients).stream(Call("GET", "http://no-such-host.invalid:80/v")) as download:
        assert download.status == 403
    assert proxy.asked == ["GET http://no-such-host.invalid/v HTTP/1.1"]
