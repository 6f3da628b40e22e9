"""Writes down what came of attempts, those that end at the same time together: one commit for all of them."""

from collections.abc import Sequence

from app.batching import Batcher
from app.failpoints import Checkpoint, checkpoint
from app.infra.db import Database, left_nothing
from app.webhooks import claims
from app.webhooks.records import Attempted

#: At most so many in one statement.
BATCH = 200


class AttemptRecorder:
    """One per process. The first attempt to end is written at once; what ends meanwhile is written after that."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = Batcher(self._write, largest=BATCH, at_once=1, separable=left_nothing)

    async def record(self, attempted: Attempted) -> bool:
        """Return once it is committed; False, and nothing written, when the lease was lost.

        Whoever is cancelled here leaves it to be written all the same. What the database raises comes through.
        """
        return await self._writing(attempted)

    async def _write(self, batch: Sequence[Attempted]) -> Sequence[bool]:
        async with self._database.begin() as connection:
            recorded = await claims.record(connection, batch)
            await checkpoint(Checkpoint.DELIVER_RECORDED)
        return [attempted.key in recorded for attempted in batch]
