"""Text of others in a terminal and in a log: no control character of theirs arrives."""

import io

import pytest
from rich.console import Console

from app.infra.redaction import Redactor
from app.printable import one_line, printable
from app.terminal import say

HOSTILE = [
    "\x1b[2J\x1b[1;1Hgone",  # clears the screen
    "\x9b31mred",  # the same, as one C1 control
    "\u202edezilatot",  # reversed
    "\u2066isolated\u2069",
    "\u200emark\u061c",
    "bell\a back\b delete\x7f",
    "half \ud83d pair",
    "zero\u200bwidth\u00ad",
    "tag \U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_are_replaced(text: str) -> None:
    for shown in (
        printable(text),
        one_line(text),
        Redactor().text(text),
        Redactor().value({"said": [text]})["said"][0],
    ):
        assert "\N{REPLACEMENT CHARACTER}" in shown
        assert shown.isprintable()


@pytest.mark.parametrize("lines", ["a\nb", "a\r\nb", "a\u2028b", "a\x85b", "a\v\fb", "a\tb"])
def test_text_of_others_is_one_line(lines: str) -> None:
    assert one_line(lines) == "a b"


def test_lines_of_our_own_stay_lines() -> None:
    assert printable("settings:\n\tone\n\ttwo") == "settings:\n\tone\n\ttwo"


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Ünïcödé – 映画 \N{CLAPPER BOARD} family \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"
    assert printable(text) == one_line(text) == text


def test_what_a_command_says_moves_no_cursor() -> None:
    screen = io.StringIO()
    say(Console(file=screen, force_terminal=True), "detail: \x1b[2Jgone\nnext")
    assert screen.getvalue() == "detail: \N{REPLACEMENT CHARACTER}[2Jgone next\n"
