"""The format of an API key: ``fgk_`` + 32 letters + 6 letters of checksum.

The 32 letters are 160 random bits in the alphabet of the ids (lower case, no i, l, o, u), five bits each. The checksum
is the low 30 bits of the CRC-32 of everything before it, in the same alphabet: it tells a mistyped or cut key from an
unknown one without a query, and lets secret scanners recognise a real key. It is not a security measure.
"""

import hashlib
import re
import secrets
import zlib

from app.ids import ALPHABET

PREFIX = "fgk_"
RANDOM_LETTERS = 32
CHECKSUM_LETTERS = 6
_SHAPE = re.compile(f"{PREFIX}[{ALPHABET}]{{{RANDOM_LETTERS + CHECKSUM_LETTERS}}}")


def generate() -> str:
    """A new key. It is shown once and stored only as its digest."""
    body = PREFIX + _letters(secrets.randbits(5 * RANDOM_LETTERS), RANDOM_LETTERS)
    return body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether ``text`` has the shape and the checksum of a key."""
    if not _SHAPE.fullmatch(text):
        return False
    return _checksum(text[:-CHECKSUM_LETTERS]) == text[-CHECKSUM_LETTERS:]


def digest(text: str) -> bytes:
    """What is stored: SHA-256 of the whole key."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(body: str) -> str:
    return _letters(zlib.crc32(body.encode()), CHECKSUM_LETTERS)


def _letters(number: int, count: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(count)))
