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
#: So many characters of either end of a long secret give it away: a provider may cut what it repeats.
RECOGNISED = 12
_REST = r"[\w\-+/=.~%]"


class Scrubber:
    """Replaces some secrets, however they are written: plain, percent-encoded, in base64."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        patterns = sorted({pattern for secret in secrets for pattern in _spellings(secret)}, key=len, reverse=True)
        self._text = re.compile("|".join(patterns)) if patterns else None
        self._bytes = re.compile("|".join(patterns).encode()) if patterns else None

    def suspects(self, data: bytes) -> bool:
        """Whether JSON may hold a secret: in plain, or behind an escape."""
        return self._bytes is not None and (b"\\" in data or self._bytes.search(data) is not None)

    def bytes(self, data: bytes) -> bytes:
        """Bytes without the secrets."""
        return data if self._bytes is None else self._bytes.sub(REDACTED.encode(), data)

    def value(self, value: Any) -> Any:
        """Decoded JSON without the secrets."""
        if isinstance(value, str):
            return value if self._text is None else self._text.sub(REDACTED, value)
        if isinstance(value, dict):
            return {self.value(name): self.value(item) for name, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value


NOTHING = Scrubber()


def _spellings(secret: str) -> Iterable[str]:
    """Patterns of a secret, most of them also of one that was cut at either end."""
    if len(secret) < SHORTEST_SECRET:
        return [r"(?i:(?<=bearer )|(?<=key )|(?<=token )|(?<=basic ))" + re.escape(secret)]
    percent = quote(secret, safe="")
    spellings = {secret, percent, _lower_hex(percent), quote(percent, safe=""), secret.replace("/", "\\/")}
    spellings.update(_base64_inside(secret))
    return [pattern for spelling in spellings for pattern in _whole_or_cut(spelling)]


def _whole_or_cut(spelling: str) -> Iterable[str]:
    yield re.escape(spelling)
    if len(spelling) >= 2 * RECOGNISED:
        yield f"{re.escape(spelling[:RECOGNISED])}{_REST}*"
        yield f"{_REST}*{re.escape(spelling[-RECOGNISED:])}"


def _lower_hex(percent: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), percent)


def _base64_inside(secret: str) -> Iterable[str]:
    """What base64 makes of a secret inside a longer text, such as ``Bearer …``: without the ends, which mix with it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        yield encoded[4 * before // 3 + (before > 0) : len(encoded) - 1]
