"""What the gateway stands on is looked at first; what is broken does not hide the rest."""

from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.embedded.servers import Postgres
from app.infra import migrate
from app.settings import Settings
from tests.doctor.broken_gateway import BrokenGateway, examined


def changed(settings: Settings, group: str, **values: Any) -> Settings:
    before = getattr(settings, group)
    return settings.model_copy(update={group: type(before).model_validate({**before.model_dump(), **values})})


async def test_a_database_that_is_away_is_the_one_finding_about_it(settings: Settings, unused_tcp_port: int) -> None:
    away = changed(settings, "database", url=f"postgresql://filmgate@127.0.0.1:{unused_tcp_port}/filmgate")
    found = await examined(away, ask_providers=True)
    assert list(found) == ["database_unusable"]
    assert found["database_unusable"].severity == "problem"
    assert "database.url" in found["database_unusable"].advice


async def test_a_database_that_was_never_migrated_is_told_so(settings: Settings, postgres: Postgres) -> None:
    empty = changed(settings, "database", url=await postgres.create_database("never_migrated"))
    found = await examined(empty)
    assert list(found) == ["database_not_migrated"]
    assert "filmgate migrate" in found["database_not_migrated"].advice


async def test_a_check_that_breaks_off_hides_no_other(settings: Settings, postgres: Postgres) -> None:
    url = await postgres.create_database("without_watches")
    await migrate.upgrade(url)
    async with migrate.connect(url) as conn:
        await conn.execute(text("DROP TABLE watches"))
        await conn.execute(text("INSERT INTO connections (name, failures) VALUES ('sandbox', 1), ('of old days', 9)"))
        await conn.commit()
    found = await examined(changed(settings, "database", url=url))
    assert list(found) == ["database_not_migrated", "connection_troubled", "not_checked"]
    assert "watches" in found["database_not_migrated"].message
    assert "overdue jobs" in found["not_checked"].message


async def test_a_redis_that_is_away_does_not_hide_the_rest(
    broken: BrokenGateway, settings: Settings, unused_tcp_port: int
) -> None:
    await broken.order()
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '2 min'")
    found = await examined(changed(settings, "redis", url=f"redis://127.0.0.1:{unused_tcp_port}"))
    assert list(found) == ["redis_unusable", "job_overdue"]


async def test_a_full_disk_is_found_before_the_spool_is_made(settings: Settings, tmp_path: Path) -> None:
    spool = tmp_path / "not" / "yet" / "made"
    found = await examined(changed(settings, "assets", spool=spool, min_free_bytes=10**18))
    assert list(found) == ["storage_unusable", "spool_low"]
    assert found["storage_unusable"].message == "The video storage is not usable: The video storage is full."
    assert found["spool_low"].facts["directory"] == str(spool)
    assert "less than the 1000000000.0 GB of assets.min_free_bytes" in found["spool_low"].message
    assert not spool.exists()
