"""Cursor pagination.

A cursor is opaque to callers: the base64url of the UUID of the last item on a page. It is not signed, because a forged
one only shows the caller's own rows from another position.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from app.errors import FieldError, InvalidRequest
from app.web.input_types import DIGITS

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

Item = TypeVar("Item")
Row = TypeVar("Row")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    next_cursor: str | None = Field(description="Pass it as `cursor` to get the next page; null on the last one.")
    has_more: bool = Field(description="Whether there is a next page.")


@dataclass(frozen=True, slots=True)
class Paging:
    """The requested part of a list: at most ``limit`` items after the one with the id ``after``."""

    limit: int
    after: UUID | None

    @property
    def fetch(self) -> int:
        """The number of rows to select: one more than shown, to tell whether there is a next page."""
        return self.limit + 1

    def page(self, rows: Sequence[Row], id_of: Callable[[Row], UUID], show: Callable[[Row], Item]) -> Page[Item]:
        """The page made of at most ``fetch`` rows, in their order."""
        shown = rows[: self.limit]
        has_more = len(rows) > self.limit
        return Page(
            data=[show(row) for row in shown],
            next_cursor=encode_cursor(id_of(shown[-1])) if has_more else None,
            has_more=has_more,
        )


async def paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The most items on one page."), DIGITS] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.")] = None,
) -> Paging:
    """The dependency of a route that returns a list: ``Annotated[Paging, Depends(paging)]``.

    Raises:
        InvalidRequest: the cursor is malformed.
    """
    return Paging(limit=limit, after=None if cursor is None else decode_cursor(cursor))


def encode_cursor(value: UUID) -> str:
    return base64.urlsafe_b64encode(value.bytes).rstrip(b"=").decode()


def decode_cursor(text: str) -> UUID:
    """
    Raises:
        InvalidRequest: the text is not exactly what ``encode_cursor`` returns.
    """
    try:
        value = UUID(bytes=base64.urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (binascii.Error, ValueError):
        value = None
    if value is None or encode_cursor(value) != text:
        message = "must be the next_cursor of an earlier page, unchanged"
        raise InvalidRequest(f"`cursor` {message}.", [FieldError("query.cursor", "invalid_format", message)])
    return value
