"""Ranges and conditions, as RFC 9110 has them."""

from datetime import UTC, datetime

import pytest

from app.errors import RangeNotSatisfiable
from app.media.ranges import Part, Version, not_modified, wanted

SIZE = 1000
VERSION = Version('"abc"', datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC))


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-499", Part(0, 500)),
        ("bytes=500-", Part(500, 1000)),
        ("bytes=999-", Part(999, 1000)),
        ("bytes=990-5000", Part(990, 1000)),
        ("bytes=-1", Part(999, 1000)),
        ("bytes=-5000", Part(0, 1000)),
        ("BYTES=1-2", Part(1, 3)),
        (" bytes= 1-2 ", Part(1, 3)),
    ],
)
def test_one_range_is_understood(header: str, part: Part) -> None:
    assert wanted({"range": header}, VERSION, SIZE) == part


@pytest.mark.parametrize(
    "header",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1-2-3", "bytes=+1-2", "bytes=1 - 2"),
        *("bytes=0-1,5-6", "bytes=0-1,", "chars=0-1", "bytes=٣-٤", "bytes=" + "9" * 30 + "-", "0-1"),
    ],
)
def test_several_ranges_and_unknown_words_mean_the_whole(header: str) -> None:
    assert wanted({"range": header}, VERSION, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1001", "bytes=5000-", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_had(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        wanted({"range": header}, VERSION, SIZE)
    assert caught.value.size == SIZE


@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ('"abc"', True),
        ("Sun, 22 Nov 2026 12:00:00 GMT", True),
        ('"other"', False),
        ('W/"abc"', False),
        ("Sun, 22 Nov 2026 12:00:01 GMT", False),
        ("*", False),
    ],
)
def test_a_range_of_another_version_is_the_whole(condition: str, counts: bool) -> None:
    part = wanted({"range": "bytes=0-1", "if-range": condition}, VERSION, SIZE)
    assert part == (Part(0, 2) if counts else None)


@pytest.mark.parametrize(
    ("condition", "same"),
    [
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"x"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_a_file_that_the_caller_has_is_not_sent_again(condition: str, same: bool) -> None:
    assert not_modified({"if-none-match": condition}, VERSION) is same
    assert not not_modified({}, VERSION)
