"""``data:`` URLs (RFC 2397) in base64."""

import binascii
import re
from base64 import b64decode

_DATA_URL = re.compile(r"data:[a-zA-Z0-9!#$&^_.+/;=-]*;base64,", re.ASCII)


def decoded(text: str) -> bytes | None:
    """The bytes in a data URL; None if it is none. Its media type is not believed."""
    found = _DATA_URL.match(text)
    try:
        return b64decode(text[found.end() :], validate=True) if found else None
    except (binascii.Error, ValueError):
        return None
