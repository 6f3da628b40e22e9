"""Text of others, made safe to print: nothing in it moves a cursor, recolours, reverses or hides text in a terminal."""

import re

_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# C0, DEL and C1 controls, the marks that turn the direction of writing, what has no width (but for the joiners that
# scripts and emoji need), and half surrogate pairs, which none encodes.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with every control character replaced, but for tabs and new lines."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The same without tabs and new lines either: it cannot pass for another line of a log or a table."""
    return printable(_BREAKS.sub(" ", text))
