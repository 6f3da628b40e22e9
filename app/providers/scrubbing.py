"""Takes a connection's own secrets out of what its provider says.

Debug echoes and error pages repeat the request, with its ``Authorization``. What a provider says is stored with the
submission and shown to operators, so this happens before anything else reads a reply.
"""

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"
#: A shorter secret is taken out behind the word of its scheme only: elsewhere it may be any part of any word.
SHORTEST_SECRET = 8
#: The characters at either end of a long secret that give it away: a provider may cut what it repeats.
RECOGNISED = 12
# What a cut secret goes on with, as far as it is taken out.
_REST = r"[\w\-+/=.~%]{0,512}"


class Scrubber:
    """Replaces some secrets, however they are written: plain, percent-encoded, in base64, cut at one end."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = tuple(secrets)
        long = [spelling for secret in known if len(secret) >= SHORTEST_SECRET for spelling in _spellings(secret)]
        heads = {spelling[:RECOGNISED] if len(spelling) >= 2 * RECOGNISED else spelling for spelling in long}
        tails = {spelling[-RECOGNISED:] for spelling in long if len(spelling) >= 2 * RECOGNISED}
        short = {secret for secret in known if len(secret) < SHORTEST_SECRET}
        self._marks = tuple(heads | tails | short)
        self._marks_in_bytes = tuple(mark.encode() for mark in self._marks)
        # Each begins with a fixed text, so that a long reply costs no more than its length: tails are looked for from
        # the end.
        forwards = [*(re.escape(head) + _REST for head in _longest_first(heads)), *map(_behind_its_scheme, short)]
        self._forwards = re.compile("|".join(forwards)) if forwards else None
        backwards = [re.escape(tail[::-1]) + _REST for tail in tails]
        self._backwards = re.compile("|".join(backwards)) if backwards else None

    def suspects(self, data: bytes) -> bool:
        """Whether JSON may hold a secret: in plain, or behind an escape."""
        return bool(self._marks) and (b"\\" in data or any(mark in data for mark in self._marks_in_bytes))

    def text(self, text: str) -> str:
        """A text without the secrets."""
        if not any(mark in text for mark in self._marks):
            return text
        if self._forwards is not None:
            text = self._forwards.sub(REDACTED, text)
        if self._backwards is not None:
            text = self._backwards.sub(REDACTED[::-1], text[::-1])[::-1]
        return text

    def value(self, value: Any) -> Any:
        """Decoded JSON without the secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(name): self.value(item) for name, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value


def _spellings(secret: str) -> Iterable[str]:
    percent = quote(secret, safe="")
    yield from {secret, percent, _lower_hex(percent), quote(percent, safe=""), secret.replace("/", "\\/")}
    yield from _base64_inside(secret)


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)


def _behind_its_scheme(secret: str) -> str:
    return r"(?i:(?<=bearer )|(?<=key )|(?<=token )|(?<=basic ))" + re.escape(secret)


def _lower_hex(percent: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), percent)


def _base64_inside(secret: str) -> Iterable[str]:
    """What base64 makes of a secret inside a longer text, such as ``Bearer …``: without the ends, which mix with it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        yield encoded[4 * before // 3 + (before > 0) : len(encoded) - 1]


NOTHING = Scrubber()
