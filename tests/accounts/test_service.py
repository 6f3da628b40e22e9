"""Making, listing and revoking keys."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, text

from app import ids
from app.accounts import keys
from app.accounts.service import KeyService
from app.accounts.tables import accounts, api_keys
from app.errors import InvalidRequest
from app.ids import Prefix
from app.infra.db import Database


@pytest.fixture
def service(database: Database) -> KeyService:
    return KeyService(database)


async def test_a_key_is_stored_as_its_digest_and_nowhere_else(service: KeyService, database: Database) -> None:
    created = await service.create("acme", "backend")
    async with database.read() as conn:
        assert await conn.scalar(select(api_keys.c.digest)) == keys.digest(created.text)
        everything = await conn.scalar(text("select string_agg(k::text || a::text, '') from api_keys k, accounts a"))
    assert created.text not in str(everything)
    assert created.text[4:] not in str(everything)
    assert created.text not in repr(created)


async def test_keys_of_the_same_account_share_it(service: KeyService, database: Database) -> None:
    first = await service.create("acme", "backend")
    second = await service.create("acme", "backend")
    other = await service.create("umbrella", "backend")
    assert first.account_id == second.account_id != other.account_id
    assert len({first.text, second.text, other.text}) == 3
    async with database.read() as conn:
        assert await conn.scalar(select(func.count()).select_from(accounts)) == 2


async def test_an_account_made_by_many_at_once_is_made_once(service: KeyService) -> None:
    created = await asyncio.gather(*(service.create("acme", f"key {number}") for number in range(12)))
    assert len({key.account_id for key in created}) == 1
    assert len({key.id for key in created}) == 12


async def test_a_key_can_do_everything_with_its_own_account_unless_told_otherwise(service: KeyService) -> None:
    await service.create("acme", "all")
    await service.create("acme", "some", ["jobs:write", "jobs:read", "jobs:read"])
    everything, some = await service.list()
    assert everything.scopes == {"jobs:read", "jobs:write", "assets:read", "files:read", "files:write", "webhooks:read"}
    assert some.scopes == {"jobs:read", "jobs:write"}


@pytest.mark.parametrize("scopes", [["jobs:read", "jobs:fly"], ["*"], [""], []])
async def test_an_unknown_scope_or_none_is_refused_with_the_list_of_scopes(
    service: KeyService, scopes: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await service.create("acme", "backend", scopes)
    allowed = "the scopes are jobs:read, jobs:write, assets:read, files:read, files:write, webhooks:read, metrics:read"
    assert allowed in caught.value.message
    assert [(field.field, field.code) for field in caught.value.fields] == [("scopes", "not_allowed")]
    assert await service.list() == []


@pytest.mark.parametrize("name", ["", " ", "a ", "\ta", "a\x00b", "a\nb", "x" * 101])
async def test_a_name_that_cannot_be_read_is_refused(service: KeyService, name: str) -> None:
    for arguments, field in ((("acme", name), "name"), ((name, "backend"), "account")):
        with pytest.raises(InvalidRequest) as caught:
            await service.create(*arguments)
        assert [error.field for error in caught.value.fields] == [field]
    assert await service.list() == []


async def test_the_list_tells_everything_but_the_key(service: KeyService) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    created = await service.create("acme", "Grüße, 世界", ["jobs:read"], expires_at=until)
    [listed] = await service.list()
    assert (listed.id, listed.account, listed.name) == (created.id, "acme", "Grüße, 世界")
    assert (listed.expires_at, listed.revoked_at) == (until, None)
    assert listed.created_at.tzinfo is not None
    assert created.text not in repr(listed)


async def test_keys_are_listed_oldest_first(service: KeyService) -> None:
    made = [(await service.create("acme", f"key {number}")).id for number in range(3)]
    assert {key.id for key in await service.list()} == set(made)
    assert [key.id for key in await service.list()] == sorted(made)


async def test_revoking_works_once_and_is_remembered(service: KeyService) -> None:
    created = await service.create("acme", "backend")
    kept = await service.create("acme", "other")
    assert await service.revoke(created.id)
    first = {key.id: key.revoked_at for key in await service.list()}
    assert first[created.id] is not None
    assert first[kept.id] is None
    assert not await service.revoke(created.id)
    assert {key.id: key.revoked_at for key in await service.list()} == first


async def test_revoking_what_is_not_a_key_changes_nothing(service: KeyService) -> None:
    created = await service.create("acme", "backend")
    foreign = ids.encode(Prefix.ACCOUNT, created.account_id)
    for wrong in ("", "nonsense", created.text, foreign, ids.encode(Prefix.KEY, ids.new_id())):
        assert not await service.revoke(wrong)
    [listed] = await service.list()
    assert listed.revoked_at is None
