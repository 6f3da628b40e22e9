"""Removes a connection's secrets from its provider's replies.

Debug echoes and error pages repeat the request, including ``Authorization``. Replies are stored with the submission and
shown to operators, so secrets are removed before anything else reads a reply.
"""

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"
#: A shorter secret is removed only after an authentication scheme: elsewhere it may be part of an ordinary word.
SHORTEST_SECRET = 8
#: How many characters at either end identify a long secret: a provider may truncate what it repeats.
MATCH_LENGTH = 12
# The rest of a truncated secret, which is removed too.
_CONTINUATION = r"[\w\-+/=.~%]{0,512}"


class Scrubber:
    """Redacts secrets in all their encodings: plain, percent-encoded, in base64, or truncated at one end."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = tuple(secrets)
        long = [spelling for secret in known if len(secret) >= SHORTEST_SECRET for spelling in _spellings(secret)]
        heads = {spelling[:MATCH_LENGTH] if len(spelling) >= 2 * MATCH_LENGTH else spelling for spelling in long}
        tails = {spelling[-MATCH_LENGTH:] for spelling in long if len(spelling) >= 2 * MATCH_LENGTH}
        short = {secret for secret in known if len(secret) < SHORTEST_SECRET}
        self._marks = tuple(heads | tails | short)
        self._marks_in_bytes = tuple(mark.encode() for mark in self._marks)
        # Each pattern begins with a fixed text, so that the cost is linear in the length of the reply: tails are
        # searched from the end.
        forwards = [*(re.escape(head) + _CONTINUATION for head in _longest_first(heads)), *map(_after_scheme, short)]
        self._forwards = re.compile("|".join(forwards)) if forwards else None
        backwards = [re.escape(tail[::-1]) + _CONTINUATION for tail in tails]
        self._backwards = re.compile("|".join(backwards)) if backwards else None

    def may_contain_secret(self, data: bytes) -> bool:
        """Whether JSON may contain a secret: in plain text, or behind an escape sequence."""
        return bool(self._marks) and (b"\\" in data or any(mark in data for mark in self._marks_in_bytes))

    def text(self, text: str) -> str:
        """The text with its secrets redacted."""
        if not any(mark in text for mark in self._marks):
            return text
        if self._forwards is not None:
            text = self._forwards.sub(REDACTED, text)
        if self._backwards is not None:
            text = self._backwards.sub(REDACTED[::-1], text[::-1])[::-1]
        return text

    def value(self, value: Any) -> Any:
        """Decoded JSON with its secrets redacted."""
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


def _after_scheme(secret: str) -> str:
    return r"(?i:(?<=bearer )|(?<=key )|(?<=token )|(?<=basic ))" + re.escape(secret)


def _lower_hex(percent: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), percent)


def _base64_inside(secret: str) -> Iterable[str]:
    """The base64 of a secret inside a longer text such as ``Bearer …``, without the ends, which depend on that text."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        yield encoded[4 * before // 3 + (before > 0) : len(encoded) - 1]


NOTHING = Scrubber()
