"""A Valkey of our own for one test session."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.embedded.servers import Valkey


@asynccontextmanager
async def running_valkey() -> AsyncIterator[Valkey]:
    """A started server on a free port; its data goes away with it."""
    with tempfile.TemporaryDirectory(prefix="filmgate-valkey-") as directory:
        server = Valkey(Path(directory) / "valkey")
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
