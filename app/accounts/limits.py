"""Limits on what one account may have open at once, in one process."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import Request

from app.counting import counted
from app.errors import RateLimited
from app.web.concurrency import hold_back, release

RETRY_AFTER = 5.0


class PerAccount:
    """Counts what each account has open. ``what`` is its name in the error, in the plural."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._open: Counter[UUID] = Counter()

    @asynccontextmanager
    async def one(self, request: Request, account_id: UUID) -> AsyncIterator[None]:
        """Count one as open while the block runs.

        Raises:
            RateLimited: the account has as many open as it may.
        """
        if self._open[account_id] >= self._limit:
            release(request)
            await hold_back(request.receive)
            message = f"This account has {self._limit} {self._what} open already; close some, or try again later."
            raise RateLimited(message, retry_after=RETRY_AFTER)
        with counted(self._open, account_id):
            yield
