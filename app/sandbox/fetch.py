"""Fetches the URLs of inputs, as providers do: without the caller's credentials, and without following redirects.

The sandbox is a development tool: it resolves any host, and plain http to this machine is allowed.
"""

from urllib.parse import urlsplit

import aiohttp

from app.sandbox.inputs import InputRules, InputSource, InvalidInput

TIMEOUT = aiohttp.ClientTimeout(total=30)


class Fetcher:
    """Fetches URLs. The HTTP client opens with the first one; call :meth:`close` at shutdown."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, source: InputSource, rules: InputRules) -> tuple[bytes, str]:
        """The content behind the source's URL, and its Content-Type.

        Raises:
            InvalidInput: it cannot be fetched, or its headers or its size are not acceptable.
        """
        assert source.url is not None
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
        try:
            if rules.head_first:
                async with self._session.head(source.url, allow_redirects=False) as response:
                    _check(response, source, rules)
            async with self._session.get(source.url, allow_redirects=False) as response:
                kind = _check(response, source, rules)
                content = await _read(response, rules.limit(source.role))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            host = urlsplit(source.url).netloc
            raise InvalidInput(source, f"The URL on {host} cannot be fetched ({type(error).__name__})") from None
        if content is None:
            raise InvalidInput(source, _too_large(rules.limit(source.role)))
        return content, kind

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _check(response: aiohttp.ClientResponse, source: InputSource, rules: InputRules) -> str:
    """The Content-Type of an acceptable reply."""
    if response.status != 200:
        raise InvalidInput(source, f"The URL returned status {response.status}; redirects are not followed")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if rules.typed and kind not in rules.types(source.role):
        raise InvalidInput(source, f"Unsupported Content-Type: {kind or 'none'}")
    length = response.headers.get("Content-Length")
    if length is None and rules.length_required:
        raise InvalidInput(source, "The URL returned no Content-Length")
    if length is not None and int(length) > rules.limit(source.role):
        raise InvalidInput(source, _too_large(rules.limit(source.role)))
    return kind


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body; None if it is longer than ``limit``."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > limit:
            return None
    return bytes(content)


def _too_large(limit: int) -> str:
    return f"The asset is too large; at most {limit} bytes are allowed"
