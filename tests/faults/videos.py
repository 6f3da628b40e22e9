"""Which video a job got: the picture names the remote job, the sandbox's ledger whose submission that was.

Orders with equal parameters of one account are interchangeable: each may have taken the other's record, and its video.
Anything else is somebody else's video, even where the orders differ in the seed alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from tests.faults.snapshots import Books, Entry, Sale
from tests.support.fingerprint import mark_of, read_mark

VIDEO = "video"  # the kind of asset


class Videos:
    """Compares stored videos with orders; reads each file once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._marks: dict[UUID, int | None] = {}  # by asset; None where there is no picture to read

    def read(self, entries: Iterable[Entry]) -> None:
        """Read the marks of the videos that were stored since the last time. Decodes: call it in a thread."""
        for entry in entries:
            for asset in _videos(entry):
                if asset["id"] not in self._marks:
                    self._marks[asset["id"]] = _mark(self._store / asset["object_key"])

    def wrong(self, books: Books) -> Mapping[UUID, list[str]]:
        """Broken promises by job: its video, or a record that it holds, is that of another order."""
        senders = {one["id"]: (entry, one) for entry in books.entries for one in entry.submissions}
        marked = {mark_of(sale.remote_id): sale for sale in books.sales}
        found: dict[UUID, list[str]] = {}
        for entry in books.entries:
            problems = [*self._shown(entry, marked, senders), *_held(entry, senders)]
            if problems:
                found[entry.row["id"]] = problems
        return found

    def _shown(self, entry: Entry, marked: Mapping[int, Sale], senders: "Senders") -> Iterator[str]:
        for asset in _videos(entry):
            mark = self._marks.get(asset["id"])
            sale = None if mark is None else marked.get(mark)
            if sale is None:
                yield f"{entry.id}: its video shows no job that the sandbox has sold"
            elif (why := _is_foreign(entry, sale, senders)) is not None:
                yield f"{entry.id} got the video of another order: it shows {sale.remote_id}, {why}"


Senders = Mapping[UUID, tuple[Entry, asyncpg.Record]]


def order_of(entry: Entry, model: str) -> Mapping[str, Any] | None:
    """What a job orders of one of its models; None where the model is none of them."""
    orders = {one["model"]: one["ordered"] for one in json.loads(entry.row["fallbacks"])}
    orders[entry.row["model"]] = json.loads(entry.row["request"])
    order = orders.get(model)
    return None if order is None else {name: value for name, value in order.items() if value not in (None, {})}


def _held(entry: Entry, senders: Senders) -> Iterator[str]:
    """A submission holds the record of its own request, or that of an interchangeable order."""
    for sale, submission in entry.sales:
        held = submission["remote_id"] == sale.remote_id and sale.reference != submission["id"]
        if held and (why := _is_foreign(entry, sale, senders)) is not None:
            yield f"{entry.id} holds the record of another order: {sale.remote_id}, {why}"


def _is_foreign(entry: Entry, sale: Sale, senders: Senders) -> str | None:
    """Why a sale is none of a job's; None where it is."""
    if sale.reference is None or sale.reference not in senders:
        return "which no submission of ours has ordered"
    sender, submission = senders[sale.reference]
    if sender.row["account_id"] != entry.row["account_id"]:
        return f"ordered for {sender.id} of another account"
    theirs, ours = order_of(sender, submission["model"]), order_of(entry, submission["model"])
    if theirs == ours:
        return None
    differ = sorted(
        name for name in {*(theirs or {}), *(ours or {})} if (theirs or {}).get(name) != (ours or {}).get(name)
    )
    return f"ordered for {sender.id}, which differs in: {', '.join(differ)}"


def _videos(entry: Entry) -> list[asyncpg.Record]:
    return [asset for asset in entry.assets if asset["kind"] == VIDEO]


def _mark(file: Path) -> int | None:
    try:
        return read_mark(file)
    except Exception:  # noqa: BLE001  # whatever a decoder says: there is no mark, and that is a finding
        return None
