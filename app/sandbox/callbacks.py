"""Callbacks. Signed by Standard Webhooks if there is a secret.

Callbacks to one URL are sent in order, each once: no source says that Kling retries them.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
from standardwebhooks import Webhook

from app.sandbox.script import Script

TIMEOUT = aiohttp.ClientTimeout(total=5)


@dataclass(frozen=True, slots=True)
class Message:
    """One callback, ready to send."""

    headers: Mapping[str, str]
    body: bytes


class Callbacks:
    """Sends callbacks. The HTTP client opens with the first one; call :meth:`close` at shutdown."""

    def __init__(self, secret: str | None) -> None:
        self._webhook = Webhook(secret) if secret else None
        self._forger = Webhook(secrets.token_bytes(32)) if secret else None
        self._session: aiohttp.ClientSession | None = None
        self._last: dict[str, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def send(self, url: str, content: Mapping[str, Any], script: Script) -> None:
        """Schedule a callback; the script may forge or duplicate it."""
        messages = tuple(self._messages(content, script.asked.get("callback")))
        call = asyncio.create_task(self._call(url, messages, self._last.get(url)))
        self._last[url] = call
        self._calls.add(call)
        call.add_done_callback(partial(self._over, url))

    async def wait_sent(self, url: str) -> None:
        """Wait until all callbacks to ``url`` are sent."""
        if url in self._last:
            await asyncio.wait((self._last[url],))

    async def forget(self) -> None:
        """Cancel the callbacks in progress."""
        calls = tuple(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        await self.forget()
        if self._session is not None:
            await self._session.close()

    def _over(self, url: str, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._last.get(url) is call:
            del self._last[url]

    def _messages(self, content: Mapping[str, Any], spoiled: str | None) -> Iterator[Message]:
        if spoiled == "forged":
            yield _message({**content, "status": "failed", "message": "This was never said."}, self._forger)
        message = _message(content, self._webhook)
        yield message
        if spoiled == "twice":
            yield message

    async def _call(self, url: str, messages: tuple[Message, ...], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
        for message in messages:
            try:
                async with self._session.post(url, data=message.body, headers=message.headers, allow_redirects=False):
                    pass
            except (aiohttp.ClientError, TimeoutError, ValueError):
                continue


def _message(content: Mapping[str, Any], webhook: Webhook | None) -> Message:
    body = json.dumps(content, separators=(",", ":"))
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if webhook is not None:
        name, now = str(uuid.uuid4().int)[:19], datetime.now(UTC)
        headers["webhook-id"] = name
        headers["webhook-timestamp"] = str(int(now.timestamp()))
        headers["webhook-signature"] = webhook.sign(name, now, body)
    return Message(headers, body.encode())
