"""A way to Postgres that is cut at the COMMIT of a chosen transaction."""

from app.embedded.servers import Postgres
from tests.support.fault_proxy import COMMIT, CommitCutter, Link, Side


class Wire(CommitCutter):
    """``cut_at`` chooses a transaction by bytes that go over the wire in it; the first one that has them is cut."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres.port)
        self.url = postgres.url.replace(f":{postgres.port}/", f":{self.port}/")
        self.cuts = 0
        self._mark: bytes | None = None
        self._wanted = Side.BEFORE
        self._chosen: Link | None = None

    def cut_at(self, mark: bytes, side: Side) -> None:
        self._mark, self._wanted = mark, side

    async def request(self, data: bytes, link: Link) -> bytes:
        if self._mark is not None and self._mark in data:
            self._mark, self._chosen = None, link
        if link is self._chosen and COMMIT.search(data):
            self._chosen = None
            self.cuts += 1
            self.cut(self._wanted)
        return await super().request(data, link)
