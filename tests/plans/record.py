"""Writes docs/plans.md: what Postgres does for the statements of a day, behind a million finished jobs.

``make plans`` runs it. It takes some minutes, five gigabytes under the temporary directory, and changes nothing else.
"""

import asyncio
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sqlalchemy import text

from app.database_settings import DatabaseSettings
from app.embedded.servers import DATABASE, Postgres
from app.infra import migrate
from app.infra.db import Database
from app.sandbox.settings import SandboxSettings
from tests.plans import workload
from tests.plans.auto_explain import Explained, Node, ServerLog, explain_everything
from tests.plans.history import live_through
from tests.plans.plan_rules import GROWING, faults_of
from tests.sandbox.server import serving
from tests.support.redis import running_valkey

FINISHED, LIVE = 1_000_000, 2_000
TARGET = Path(__file__).parents[2] / "docs" / "plans.md"
LONGEST_STATEMENT = 160
#: The tables in the order of the document.
TABLES = ("jobs", "schedule", "submissions", "watches", "events", "webhook_deliveries", "webhook_attempts", "assets")
MORE_TABLES = ("idempotency_keys", "api_keys")
_CASTS = re.compile(r"::(TIMESTAMP WITH TIME ZONE|DOUBLE PRECISION|[A-Z]+)(\([^)]*\))?(\[\])?")
_COLUMNS = re.compile(r"(?<=SELECT ).{200,}?(?= FROM )")


async def record(directory: Path) -> str:
    """Live through the past and a day; the document."""
    server = Postgres(directory / "postgres", durable=False)
    await server.start()
    try:
        await migrate.upgrade(server.url)
        settings = DatabaseSettings.model_validate({"url": server.url, "command_timeout": 3600})
        database = Database.open(settings, application="plans")
        await live_through(database, finished=FINISHED, live=LIVE)
        await explain_everything(database, DATABASE)
        async with database.read() as conn:
            version = await conn.scalar(text("SHOW server_version"))
        await database.close()
        log = ServerLog(server.log)
        sandbox = SandboxSettings(data_dir=directory / "sandbox", render_seconds=0.1)
        async with running_valkey() as valkey, serving(sandbox) as sandbox_url:
            gateway = workload.settings_of(server.url, valkey.url, sandbox_url, directory)
            async with workload.opened(gateway, sandbox_url) as running:
                await workload.live(running)
        return "\n".join(document(log.read(), str(version)))
    finally:
        await server.stop()


def document(explained: Sequence[Explained], version: str) -> Iterator[str]:
    """Markdown: a table for each table, then the plans."""
    statements = dearest(explained)
    faults = sorted({fault for one in explained for fault in faults_of(one)})
    yield "# What Postgres does"
    yield ""
    yield (
        f"Recorded by `make plans` on Postgres {version} behind {FINISHED:,} finished jobs (with their submissions, "
        f"five events each, webhooks, videos and keys) and {LIVE:,} live ones: every statement that the services sent "
        "in one day of everything, at its dearest execution. A page is 8 kB. "
        "`tests/plans` checks the same behind fewer jobs."
    )
    yield ""
    yield f"Statements that read what grows: {len(faults) or 'none'}."
    yield from (f"* {fault}" for fault in faults)
    for table in (*TABLES, *MORE_TABLES):
        of_table = [one for one in statements if _main_table(one) == table]
        if of_table:
            yield from _table(table, of_table)


def dearest(explained: Iterable[Explained]) -> list[Explained]:
    """Each statement once: the execution that touched the most pages."""
    found: dict[str, Explained] = {}
    for one in explained:
        if one.statement not in found or pages(one.plan) > pages(found[one.statement].plan):
            found[one.statement] = one
    return [found[statement] for statement in sorted(found)]


def pages(node: Node) -> int:
    """Touched in all."""
    return int(node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0))


def _main_table(one: Explained) -> str | None:
    """The first table that it names."""
    named = re.search(r"\b(?:FROM(?: ONLY)?|INTO|UPDATE)\s+(?:\w+\.)?\"?(\w+)", one.statement)
    tables = [node["Relation Name"] for node in one.nodes if "Relation Name" in node]
    if named and named[1] in tables:
        return str(named[1])
    return next((name for name in tables if name in GROWING), tables[0] if tables else None)


def _table(name: str, statements: Iterable[Explained]) -> Iterator[str]:
    yield ""
    yield f"## {name}"
    yield ""
    yield "| statement | plan | rows | pages |"
    yield "|---|---|--:|--:|"
    for one in statements:
        plan = " ← ".join(_steps(one.plan))
        yield f"| `{_short(one.statement)}` | {plan} | {one.plan.get('Actual Rows', 0):.0f} | {pages(one.plan)} |"


def _steps(node: Node) -> Iterator[str]:
    """The nodes that touch a table, and those that sort."""
    where = node.get("Index Name") or node.get("Relation Name")
    if where:
        yield f"{node['Operation']} {where}" if node["Node Type"] == "ModifyTable" else f"{node['Node Type']} `{where}`"
    elif node["Node Type"] in {"Sort", "Incremental Sort"}:
        yield node["Node Type"]
    for part in node.get("Plans", ()):
        yield from _steps(part)


def _short(statement: str) -> str:
    words = _COLUMNS.sub("…", _CASTS.sub("", statement)).replace("|", "\\|")
    return words if len(words) <= LONGEST_STATEMENT else f"{words[:LONGEST_STATEMENT]}…"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="filmgate-plans-") as directory:
        TARGET.write_text(asyncio.run(record(Path(directory))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
