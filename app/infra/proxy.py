"""Requests through an HTTP proxy."""

from typing import Any

import aiohttp
from yarl import URL

from app.connection_settings import DIRECT


def through(proxy: str | None) -> dict[str, Any]:
    """The HTTP client's options for requests through the proxy of that URL; none without one, or for ``direct``.

    They have the user and password apart: the client quotes the URL in its errors.
    """
    if proxy is None or proxy == DIRECT:
        return {}
    url = URL(proxy)
    # aiohttp sends this to the proxy alone, as Proxy-Authorization.
    login = {"Authorization": aiohttp.encode_basic_auth(url.user or "", url.password or "")} if url.user else None
    return {"proxy": url.with_user(None), "proxy_headers": login}
