"""URLs that providers name are requested as a browser would, and still go through the checks of addresses."""

import pytest
from yarl import URL

from app.providers.http_clients import Clients
from app.providers.locations import url_of
from app.providers.transport import Call, NoReply, NotSent, Transport
from tests.support.raw_server import Say, Then, reply, running_raw_server


def redirect(location: bytes) -> Say:
    return Say(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n", Then.KEEP)


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        (b"/cdn/my film.mp4", "/cdn/my%20film.mp4"),
        ("/cdn/é.mp4".encode(), "/cdn/%C3%A9.mp4"),
        (b"/cdn/\xe9.mp4", "/cdn/%E9.mp4"),
        ("/影片.mp4?名=a b".encode(), "/%E5%BD%B1%E7%89%87.mp4?%E5%90%8D=a%20b"),
        (b'/a"b<c>d`e{f}g|h^i', "/a%22b%3Cc%3Ed%60e%7Bf%7Dg%7Ch%5Ei"),
        (b"/\x01\x7f", "/%01%7F"),
        (b"/100%.mp4?p=50%&q=%zz", "/100%.mp4?p=50%&q=%zz"),
        (b"/a%2Fb%20c?sig=a%2Bb+c%3d/==&x=%c3%a9", "/a%2Fb%20c?sig=a%2Bb+c%3d/==&x=%c3%a9"),
        (b"/a%2Fb c?sig=%2B+/= d", "/a%2Fb%20c?sig=%2B+/=%20d"),
        (b"/a;b=c,d:e@f!$&'()*~?x[0]=1", "/a;b=c,d:e@f!$&'()*~?x[0]=1"),
        (b"/video.mp4#t=1", "/video.mp4"),
        (b"/a?b#c?d#e", "/a?b"),
        (b"other name.mp4", "/videos/1/other%20name.mp4"),
        (b"../2/content?x", "/videos/2/content?x"),
        (b"?token=a b", "/videos/1/content?token=a%20b"),
        (b"\\cdn\\a.mp4?back\\slash", "/cdn/a.mp4?back%5Cslash"),
        (b"  /a\tb.mp4 ", "/ab.mp4"),
    ],
)
async def test_redirects_are_requested_percent_encoded_and_signatures_byte_for_byte(
    clients: Clients, location: bytes, requested: str
) -> None:
    async with running_raw_server(redirect(location), reply(b"video")) as server:
        async with Transport(clients, server.url).stream(Call("GET", "/videos/1/content")) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b"video"
        assert server.heard[1].line == f"GET {requested} HTTP/1.1"


@pytest.mark.parametrize("form", ["http://{}/a b.mp4", "//{}/a b.mp4", "HTTP://{}/a b.mp4", "\\\\{}\\a b.mp4"])
async def test_redirects_to_other_hosts_get_no_credential(clients: Clients, form: str) -> None:
    async with running_raw_server(reply(b"video")) as theirs:
        away = redirect(form.format(f"127.0.0.1:{theirs.port}").encode())
        async with running_raw_server(away) as ours:
            transport = Transport(clients, ours.url, {"Authorization": "Bearer canary"}, private_results=True)
            async with transport.stream(Call("GET", "/videos/1/content")) as download:
                assert b"".join([chunk async for chunk in download.chunks()]) == b"video"
        assert theirs.heard[0].line == "GET /a%20b.mp4 HTTP/1.1"
        assert "canary" not in str(theirs.heard)


async def test_the_first_url_is_requested_percent_encoded_too(clients: Clients) -> None:
    async with running_raw_server(reply(b"video")) as server:
        url = f"{server.url}/mein fïlm.mp4?sig=a%2Bb+c"
        async with Transport(clients, server.url).stream(Call("GET", url)) as download:
            assert download.status == 200
        assert server.heard[0].line == "GET /mein%20f%C3%AFlm.mp4?sig=a%2Bb+c HTTP/1.1"


@pytest.mark.parametrize(
    "location",
    [
        *(b"http://169.254.169.254/a b", b"//169.254.169.254/", b"\\\\169.254.169.254\\x", b"http://[fe80::1]/a b"),
        "http://１６９.254.169.254/".encode(),
        b"http://public.example\\@169.254.169.254/",
        b"http://user:pass word@169.254.169.254/",
    ],
)
async def test_every_hop_is_checked(clients: Clients, location: bytes) -> None:
    async with running_raw_server(redirect(location)) as server:
        with pytest.raises((NotSent, NoReply)) as caught:
            async with Transport(clients, server.url, private_results=True).stream(Call("GET", "/video")):
                pass
        # The host with the backslash is a name; the others reach the check of the address.
        assert ("metadata service" in str(caught.value)) == (b"public.example" not in location)
        assert len(server.heard) == 1


@pytest.mark.parametrize(
    "location", [b"http://a b/", b"http://a\xe9\xff/", b"http://", b"file:///etc/passwd", b"ftp://127.0.0.1/", b"a:b c"]
)
async def test_what_no_client_can_request_is_a_transport_error(clients: Clients, location: bytes) -> None:
    async with running_raw_server(redirect(location)) as server:
        with pytest.raises((NotSent, NoReply)):
            async with Transport(clients, server.url).stream(Call("GET", "/video")):
                pass
        assert len(server.heard) == 1


async def test_redirects_with_raw_bytes_come_to_an_end(clients: Clients) -> None:
    async with running_raw_server(redirect(b"/a b")) as server:
        with pytest.raises(NoReply, match="redirects"):
            async with Transport(clients, server.url).stream(Call("GET", "/video")):
                pass
        assert len(server.heard) == 6


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Bücher.Example:8443/ä", "https://xn--bcher-kva.example:8443/%C3%A4"),
        ("https://CDN.Example/A?B", "https://cdn.example/A?B"),
        ("https://a@b@[2001:DB8::1]:80/x", "https://a@b@[2001:db8::1]:80/x"),
        ("https://cdn.example?q=a/b", "https://cdn.example/?q=a/b"),
    ],
)
def test_hosts_are_in_lower_case_ascii(text: str, url: str) -> None:
    assert url_of(text) == URL(url, encoded=True)
