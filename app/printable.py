"""Makes untrusted text safe to print: no control character can move the cursor, recolour, reverse or hide text."""

import re
from typing import Any

_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# C0, DEL and C1 controls, bidirectional marks, zero-width characters (except the joiners that scripts and emoji need),
# and lone surrogates, which cannot be encoded.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with every control character replaced, except tabs and line breaks."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The same without tabs and line breaks, so that it cannot forge another line of a log or a table."""
    return printable(_BREAKS.sub(" ", text))


def printable_value(value: Any) -> Any:
    """Decoded JSON with every text in it printable, also the names of its fields."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): printable_value(item) for name, item in value.items()}
    return [printable_value(item) for item in value] if isinstance(value, list) else value
