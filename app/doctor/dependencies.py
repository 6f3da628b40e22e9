"""Checks of what the gateway depends on: database, Redis, storage, disk."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.database_settings import DatabaseSettings
from app.doctor import pooler
from app.doctor.findings import Finding, one_line, problem
from app.infra import migrate
from app.media.spool import Spool
from app.readiness import Check, readiness_of
from app.resources import Resources
from app.settings import AssetSettings

ADVICE = {
    "postgres": "Check database.url and that the server accepts connections: without it the gateway does no work.",
    "redis": "Check redis.url and that the server runs: until then workers fall back to polling, which is slower.",
    "storage": "Check assets.store, its credentials and its free space: until then finished videos cannot be stored.",
}
CODES = {"postgres": "database_unusable", "redis": "redis_unusable", "storage": "storage_unusable"}
NAMES = {"postgres": "database", "redis": "Redis", "storage": "video storage"}

log = structlog.get_logger()


async def examine(resources: Resources) -> tuple[list[Finding], bool]:
    """The findings, and whether the database is usable for further checks."""
    checks = (await readiness_of(resources)).checks
    differences = await _differences(resources.settings.database)
    findings = await pooler.examine(resources.settings.database)
    if differences:
        findings.append(_not_migrated(differences))
    explained = {"postgres"} if findings else set()
    for name, check in checks.items():
        if not check.ok and name not in explained:
            findings.append(_unusable(name, check))
    findings += await asyncio.to_thread(_spool, resources.settings.assets)
    return findings, checks["postgres"].ok


async def _differences(settings: DatabaseSettings) -> list[str]:
    try:
        async with asyncio.timeout(settings.command_timeout):
            return await migrate.check(settings)
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        # The readiness check reports why the database is unusable.
        log.warning("schema check failed", error=repr(error))
        return []


def _not_migrated(differences: list[str]) -> Finding:
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return problem(
        "database_not_migrated",
        f"The database schema differs from what this version expects: {one_line(differences[0])}{more}.",
        "Run: filmgate migrate. If differences remain, revert manual changes to the schema.",
        differences=len(differences),
    )


def _unusable(name: str, check: Check) -> Finding:
    reason = one_line(check.reason)
    return problem(CODES[name], f"The {NAMES[name]} is not usable: {reason}.", ADVICE[name], reason=reason)


def _spool(settings: AssetSettings) -> list[Finding]:
    """Checks the spool of this machine; workers may run on others. Blocks."""
    directory = Spool(settings.spool, settings.min_free_bytes).directory
    free = shutil.disk_usage(_existing(directory)).free
    if free >= settings.min_free_bytes:
        return []
    return [
        problem(
            "spool_low",
            f"The spool {directory} has {_size(free)} free, less than the {_size(settings.min_free_bytes)} of "
            "assets.min_free_bytes.",
            "Free disk space on this machine, or set assets.spool to another directory: no video is ingested here.",
            directory=str(directory),
            free_bytes=free,
            min_free_bytes=settings.min_free_bytes,
        )
    ]


def _existing(directory: Path) -> Path:
    """The nearest existing parent: a worker creates its spool when it starts."""
    return next(path for path in (directory, *directory.absolute().parents) if path.exists())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
