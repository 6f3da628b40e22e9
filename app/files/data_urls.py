"""``data:`` URLs (RFC 2397) in base64."""

import binascii
import re
from base64 import b64decode

_DATA_URL = re.compile(r"data:[a-z0-9!#$&^_.+/;=-]*;base64,", re.ASCII | re.IGNORECASE)


def decoded(text: str) -> bytes | None:
    """The bytes in a data URL; None if it is none. Its media type is not believed.

    Line breaks are what tools write into base64, and some leave out its padding.
    """
    found = _DATA_URL.match(text)
    if found is None:
        return None
    encoded = "".join(text[found.end() :].split()).rstrip("=")
    try:
        return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
