"""Redacts secrets in logs and messages.

Three methods are combined, because each has gaps: the name of a field, the pattern of a value, and the secrets in the
settings of this process.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, SecretStr

from app.printable import printable

REDACTED = "[redacted]"
DEEPEST = 6
SHORT_TEXT = 64
LONGEST_TEXT = 16_384
# Redacting every occurrence of a shorter secret would make logs unreadable.
SHORTEST_SECRET = 12

_NAMES = (
    r"authorization|cookie|(?:api|access|account)[_-]?key|secret(?:[_-]key)?|passw(?:or)?d|credentials?|signature|sig"
    r"|token"
)
_SECRET_FIELD = re.compile(rf"(?:.*[_-])?(?:{_NAMES})", re.IGNORECASE)
_PROMPT_FIELD = re.compile(r"(?:.*_)?prompt", re.IGNORECASE)
# `name=value`, `"name": "value"`, `Name: Bearer value`, in sentences, headers, JSON and query strings; but not
# messages about a setting: `api_key: is not set`.
_ASSIGNED = re.compile(
    rf"\b([\w-]{{0,40}}(?:{_NAMES})\b['\"]?\s*[:=]\s*b?['\"]?(?:(?:bearer|basic|key|token)\s+)?)(?!\[redacted|(?:is|must|needs)\s)[^\s'\",;&)}}\]]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer\s+)(?!\[redacted)[\w.~+/=-]{8,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)([^\s/]+)@", re.IGNORECASE)
# A text without a match of this pattern matches none of the others, which spares most texts four searches.
_SUSPECT = re.compile(
    r"fgk_|whsec_|sk-|akia|bearer|://|authoriz|cookie|(?:api|access|account).?key|secret|passw|credential|token|sig"
)
_KEYS = re.compile(r"fgk_[0-9a-z]{6,}|whsec_[\w+/=-]+|\bsk-[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b")


def secrets_in(settings: BaseModel) -> Iterator[str]:
    """Every secret value inside settings, at any depth."""
    for _, value in settings:
        yield from _secrets(value)


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        yield text
        if password := _URL_PASSWORD.match(text):
            yield password[2]
    elif isinstance(value, BaseModel):
        yield from secrets_in(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and _SECRET_FIELD.fullmatch(str(name)):
                yield inner
            yield from _secrets(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _secrets(inner)


class Redactor:
    """Redacts secrets in texts and nested values."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Occurrences of ``secrets`` are redacted if they have at least twelve characters."""
        known = sorted({secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        # Most short texts repeat from line to line: names of events, routes, methods.
        self._short = lru_cache(maxsize=1024)(self._redacted)

    def text(self, text: str) -> str:
        """The text without anything that is, or looks like, a secret. The middle of a very long text is omitted."""
        return self._short(text) if len(text) <= SHORT_TEXT else self._redacted(text)

    def _redacted(self, text: str) -> str:
        # Cut first to bound the time of the patterns, and again afterwards, so that the edge never splits a secret.
        text = printable(_cut(text, 4 * LONGEST_TEXT))
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if not _SUSPECT.search(text.lower()):
            return _cut(text, LONGEST_TEXT)
        text = _KEYS.sub(REDACTED, text)
        text = _URL_PASSWORD.sub(rf"\g<1>{REDACTED}@", text)
        text = _ASSIGNED.sub(rf"\g<1>{REDACTED}", text)
        text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
        return _cut(text, LONGEST_TEXT)

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same structure with redacted texts, as JSON types; other objects become text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        return self._nested(value, depth) if depth < DEEPEST else "[…]"

    def _nested(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.field(str(name), inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner, depth + 1) for inner in value]
        if isinstance(value, bytes | bytearray):
            return self.text(bytes(value).decode(errors="replace"))
        return self.text(_shown(value))

    def field(self, name: str, value: Any, depth: int = 0) -> Any:
        """A named value: redacted whole if its name is sensitive, else like any other."""
        return REDACTED if value is not None and _hides(name) else self.value(value, depth)


@lru_cache(maxsize=1024)
def _hides(name: str) -> bool:
    return bool(_SECRET_FIELD.fullmatch(name) or _PROMPT_FIELD.fullmatch(name))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]} […] {text[-longest // 2 :]}"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, BaseException) else str(value)
