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


class Scrubber:
    """Replaces some secrets, however they are written: plain, percent-encoded, in base64."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        patterns = sorted({pattern for secret in secrets for pattern in _spellings(secret)}, key=len, reverse=True)
        self._text = re.compile("|".join(patterns)) if patterns else None
        self._bytes = re.compile("|".join(patterns).encode()) if patterns else None

    def bytes(self, data: bytes) -> bytes:
        """Bytes without the secrets."""
        return data if self._bytes is None else self._bytes.sub(REDACTED.encode(), data)

    def value(self, value: Any) -> Any:
        """Decoded JSON without the secrets: an escape can hide one from :meth:`bytes`."""
        if isinstance(value, str):
            return value if self._text is None else self._text.sub(REDACTED, value)
        if isinstance(value, dict):
            return {self.value(name): self.value(item) for name, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value


NOTHING = Scrubber()


def _spellings(secret: str) -> Iterable[str]:
    spellings = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}
    scheme = "" if len(secret) >= SHORTEST_SECRET else r"(?i:(?<=bearer )|(?<=key )|(?<=token )|(?<=basic ))"
    return [scheme + re.escape(spelling) for spelling in spellings]
