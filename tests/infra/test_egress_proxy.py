"""Webhooks where a proxy is the only way out: customers' private targets are refused before it is asked."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import AbstractResolver

from app.infra.egress import ForbiddenAddress, GuardedClient, InvalidUrl, Unreachable
from app.settings import WebhookSettings
from tests.support.forward_proxy import ForwardProxy, running_forward_proxy
from tests.support.names import Names
from tests.support.receiver import LOOPBACK, loopback_settings, running_receiver


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxy]:
    async with running_forward_proxy() as running:
        yield running


async def post(
    settings: WebhookSettings, proxy: ForwardProxy, url: str, resolver: AbstractResolver | None = None
) -> int:
    client = GuardedClient(settings, proxy=proxy.url, resolver=resolver)
    try:
        return (await client.post(url, {}, b"{}")).status
    finally:
        await client.close()


async def test_a_webhook_goes_through_it(proxy: ForwardProxy) -> None:
    async with running_receiver() as receiver:
        assert await post(loopback_settings(), proxy, receiver.url) == 200
        assert proxy.asked == [f"POST {receiver.url} HTTP/1.1"]
        by_name = receiver.url.replace("127.0.0.1", "localhost")
        networks = [str(network) for network in LOOPBACK]
        settings = WebhookSettings.model_validate({"allow_http": True, "allowed_networks": [*networks, "::1/128"]})
        assert await post(settings, proxy, by_name) == 200


@pytest.mark.parametrize("inside", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "fd00::1", "64:ff9b::a00:1"])
async def test_a_name_that_leads_inside_is_refused_before_it_is_asked(proxy: ForwardProxy, inside: str) -> None:
    with pytest.raises(ForbiddenAddress):
        await post(WebhookSettings(), proxy, "https://hooks.example/", Names(["93.184.216.34", inside]))
    assert proxy.asked == []


async def test_a_name_that_leads_outside_is_asked_for_by_name(proxy: ForwardProxy) -> None:
    proxy.refusing = True
    with pytest.raises(Unreachable):
        await post(WebhookSettings(), proxy, "https://hooks.example/", Names(["93.184.216.34"]))
    assert proxy.asked == ["CONNECT hooks.example:443 HTTP/1.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[fd00::1]"])
async def test_an_address_inside_is_refused_by_its_text(proxy: ForwardProxy, host: str) -> None:
    with pytest.raises(InvalidUrl):
        await post(WebhookSettings(), proxy, f"https://{host}/hook")
    assert proxy.asked == []


async def test_a_name_that_cannot_be_looked_up_is_not_left_to_it(proxy: ForwardProxy) -> None:
    with pytest.raises(Unreachable, match="could not be resolved"):
        await post(WebhookSettings(), proxy, "https://no-such-host.invalid/hook")
    assert proxy.asked == []


async def test_a_proxy_that_refuses_is_named(proxy: ForwardProxy) -> None:
    proxy.refusing = True
    with pytest.raises(Unreachable, match="the way out is closed: the proxy responded with HTTP 403"):
        await post(loopback_settings(), proxy, "https://127.0.0.1:9/hook")
