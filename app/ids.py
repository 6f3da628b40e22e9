"""TypeIDs: ``job_01h455vb4pex5vsknk084sn02q`` in the API, a plain UUIDv7 in the database (TypeID spec 0.3)."""

import secrets
import time
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SUFFIX_LENGTH = 26
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}


class Prefix(StrEnum):
    """The kind of resource that an id identifies."""

    ACCOUNT = "acc"
    KEY = "key"
    JOB = "job"
    SUBMISSION = "sub"
    ASSET = "ast"
    FILE = "file"
    EVENT = "evt"
    DELIVERY = "whd"


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): the first 48 bits are Unix milliseconds, so ids sort by creation."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(secrets.token_bytes(10), "big")
    value = milliseconds << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def earliest(moment: datetime, seconds: float = 0) -> UUID:
    """The lower bound of all ids created from ``seconds`` after ``moment`` on, for range queries by time."""
    return UUID(int=max(0, int((moment.timestamp() + seconds) * 1000)) << 80)


@lru_cache(maxsize=4096)  # one request names an account, a key and a job several times
def encode(prefix: Prefix, value: UUID) -> str:
    """The public form of an id."""
    number = value.int
    letters = [ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(letters)}"


def decode(prefix: Prefix, text: str) -> UUID | None:
    """The UUID of a public id, or None if the text is not an id of that kind."""
    head, _, suffix = text.rpartition("_")
    if head != prefix or len(suffix) != SUFFIX_LENGTH or suffix[0] > "7":
        return None
    number = 0
    for letter in suffix:
        value = _VALUES.get(letter)
        if value is None:
            return None
        number = number << 5 | value
    return UUID(int=number)
