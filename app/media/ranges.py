"""Conditional and range requests for a file: RFC 9110, sections 13 (conditions) and 14 (ranges)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from app.errors import RangeNotSatisfiable

_RANGES = re.compile(r"bytes=(?P<ranges>.*)", re.IGNORECASE)
_RANGE = re.compile(r"(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from ``start`` to ``end``, exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Version:
    """The validators of the content: a strong ETag with its quotes, and the time of storing."""

    etag: str
    modified: datetime

    @property
    def last_modified(self) -> str:
        return format_datetime(self.modified.astimezone(UTC), usegmt=True)


def not_modified(headers: Mapping[str, str], version: Version) -> bool:
    """Whether the client already has this version (``If-None-Match``)."""
    condition = headers.get("if-none-match")
    if condition is None:
        return False
    return condition.strip() == "*" or version.etag in _ETAG.findall(condition)


def wanted(headers: Mapping[str, str], version: Version, size: int) -> Part | None:
    """The single range that the request asks for; None for the whole file.

    A request for several ranges or in an unknown range unit gets the whole file, as the RFC allows.

    Raises:
        RangeNotSatisfiable: the range is well formed and begins after the end of the file.
    """
    ranges = _RANGES.fullmatch(headers.get("range", "").strip())
    condition = headers.get("if-range", "").strip()
    if ranges is None or (condition and condition not in {version.etag, version.last_modified}):
        return None
    match = _RANGE.fullmatch(ranges["ranges"].strip())
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        part = Part(max(0, size - int(match["last"])), size)
    else:
        first, last = int(match["first"]), int(match["last"] or size - 1)
        if match["last"] and last < first:
            return None
        part = Part(first, min(last + 1, size))
    if part.start >= part.end:
        raise RangeNotSatisfiable(f"The file has {size} bytes.", size)
    return part
