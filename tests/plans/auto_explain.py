"""What Postgres did for each statement that it was sent, by its own account: auto_explain, out of the server's log.

It sees whatever any client sends, by whatever way, and the checks of references and triggers as well.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.infra.db import Database

_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
}
_ENTRY = re.compile(r"duration: [0-9.]+ ms  plan:\n((?:\t.*\n)+)")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explained:
    """A statement and what was done for it."""

    statement: str
    plan: Node

    @property
    def nodes(self) -> Iterator[Node]:
        return _below(self.plan)


async def explain_everything(database: Database, name: str, **settings: str) -> None:
    """From now on, in every new session of a database of that name; ``settings`` are Postgres's own."""
    async with database.read() as conn:
        for key, value in {**_SETTINGS, **settings}.items():
            await conn.execute(text(f"ALTER DATABASE \"{name}\" SET {key} = '{value}'"))


class ServerLog:
    """The plans in a server's log from a moment on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = path.stat().st_size

    def read(self) -> list[Explained]:
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._begin)
            found = [json.loads(entry) for entry in _ENTRY.findall(file.read())]
        return [Explained(" ".join(entry["Query Text"].split()), entry["Plan"]) for entry in found]


def _below(node: Node) -> Iterator[Node]:
    yield node
    for part in node.get("Plans", ()):
        yield from _below(part)
