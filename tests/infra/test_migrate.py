"""The migrations make exactly the tables that the code describes."""

from collections.abc import Sequence

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.embedded.servers import Postgres
from app.infra import migrate

# Alembic's own comparison overlooks checks, index predicates, operator classes, storage parameters and triggers.
CATALOG = """
    select 'column', table_name, column_name || ' ' || concat_ws(
        ' ', data_type, udt_name, numeric_precision, numeric_scale, is_nullable, column_default, identity_generation)
    from information_schema.columns where table_schema = 'public'
    union all
    select 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select 'index', tablename, indexdef from pg_indexes where schemaname = 'public'
    union all
    select 'storage', oid::regclass::text, reloptions::text
    from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
    union all
    select 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all
    select 'function', proname, prosrc from pg_proc where pronamespace = 'public'::regnamespace
    order by 1, 2, 3
"""


async def catalog(conn: AsyncConnection) -> list[Sequence[str]]:
    rows = await conn.execute(text(CATALOG))
    return [tuple(row) for row in rows if row[1] != "alembic_version"]


async def test_migrations_from_empty_make_exactly_the_described_tables(postgres: Postgres) -> None:
    migrated = await postgres.create_database("migrated")
    described = await postgres.create_database("described")
    await migrate.upgrade(migrated)
    async with migrate.connect(described) as conn:
        await conn.run_sync(migrate.all_tables().create_all)
        await conn.commit()
        expected = await catalog(conn)
    async with migrate.connect(migrated) as conn:
        assert await catalog(conn) == expected
    assert expected


async def test_check_finds_nothing_in_a_migrated_database(postgres_url: str) -> None:
    assert await migrate.check(postgres_url) == []


async def test_check_names_the_missing_migration(postgres: Postgres) -> None:
    (difference,) = await migrate.check(await postgres.create_database("never_migrated"))
    assert "filmgate migrate" in difference


async def test_check_names_a_difference(postgres: Postgres) -> None:
    url = await postgres.create_database("altered")
    await migrate.upgrade(url)
    async with migrate.connect(url) as conn:
        await conn.execute(text("alter table jobs drop column progress"))
        await conn.commit()
    (difference,) = await migrate.check(url)
    assert "progress" in difference


async def test_a_second_upgrade_changes_nothing(postgres: Postgres) -> None:
    url = await postgres.create_database("twice")
    await migrate.upgrade(url)
    await migrate.upgrade(url)
    assert await migrate.check(url) == []


async def test_a_database_of_a_newer_version_is_left_alone(postgres: Postgres) -> None:
    url = await postgres.create_database("newer")
    await migrate.upgrade(url)
    async with migrate.connect(url) as conn:
        await conn.execute(text("update alembic_version set version_num = '209901010000'"))
        await conn.commit()
    with pytest.raises(migrate.MigrationFailed, match="another version of filmgate"):
        await migrate.upgrade(url)


async def test_a_migration_never_waits_long_for_a_lock(postgres_url: str) -> None:
    async with migrate.connect(postgres_url) as conn:
        assert await conn.scalar(text("show lock_timeout")) == "5s"
        assert await conn.scalar(text("show statement_timeout")) == "1min"


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(migrate.config()).get_heads()) == 1


@pytest.mark.parametrize("to", ["", "nonsense", "base", "+1", "heads", "202611281500@head", "2026"])
async def test_only_a_whole_revision_or_head_is_a_target(postgres_url: str, to: str) -> None:
    with pytest.raises(migrate.MigrationFailed, match="there is no revision"):
        await migrate.upgrade(postgres_url, to)


async def test_an_upgrade_says_where_the_database_is(postgres: Postgres) -> None:
    url = await postgres.create_database("stepwise")
    assert await migrate.upgrade(url, "202611221200") == "202611221200"
    head = await migrate.upgrade(url)
    assert await migrate.upgrade(url, "202611221200") == head
