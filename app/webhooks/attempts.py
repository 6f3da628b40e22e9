"""Records results of attempts in batches: one commit for all attempts that end at the same time."""

from collections.abc import Sequence

from app.batching import Batcher
from app.failpoints import Failpoint, failpoint
from app.infra.db import Database, left_nothing
from app.webhooks import claims
from app.webhooks.records import Attempted

#: The most attempts in one statement.
BATCH = 200


class AttemptWriter:
    """One per process. Writes the first attempt at once, and those that end meanwhile in the next batch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = Batcher(self._write, largest=BATCH, at_once=1, separable=left_nothing)

    async def record(self, attempted: Attempted) -> bool:
        """Record an attempt; returns after the commit. False if the lease was lost and nothing was written.

        Cancelling the caller does not cancel the write. Exceptions of the database propagate.
        """
        return await self._writing(attempted)

    async def _write(self, batch: Sequence[Attempted]) -> Sequence[bool]:
        async with self._database.begin() as conn:
            recorded = await claims.record(conn, batch)
            await failpoint(Failpoint.DELIVER_RECORDED)
        return [attempted.key in recorded for attempted in batch]
