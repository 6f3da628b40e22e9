"""From a header to a caller, and what it costs to find out."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from app import ids
from app.accounts import auth, keys
from app.accounts.auth import Authenticator, Caller
from app.accounts.service import CreatedKey, KeyService
from app.errors import Unauthenticated
from app.ids import Prefix
from app.infra.db import Database


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(database: Database, clock: Clock) -> Authenticator:
    return Authenticator(database, clock)


@pytest.fixture
async def key(database: Database) -> CreatedKey:
    return await KeyService(database).create("acme", "backend", ["jobs:read"])


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements sent meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_key_leads_to_its_account_and_scopes(authenticator: Authenticator, key: CreatedKey) -> None:
    caller = await authenticator.authenticate(f"Bearer {key.text}")
    assert caller == Caller(account_id=key.account_id, key_id=caller.key_id, scopes=frozenset({"jobs:read"}))
    assert ids.encode(Prefix.KEY, caller.key_id) == key.id


@pytest.mark.parametrize("header", ["bearer {}", "BEARER {}", "Bearer   {} ", " Bearer {}"])
async def test_the_scheme_is_read_as_http_says(authenticator: Authenticator, key: CreatedKey, header: str) -> None:
    assert (await authenticator.authenticate(header.format(key.text))).account_id == key.account_id


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, auth.MISSING),
        ("", auth.NOT_BEARER),
        ("Bearer", auth.NOT_BEARER),
        ("Basic dXNlcjpwYXNz", auth.NOT_BEARER),
        ("fgk_0123", auth.NOT_BEARER),
        ("Bearer sk-1234", auth.MALFORMED),
        ("Bearer fgk_", auth.MALFORMED),
        ("Bearer fgk_0123456789abcdefghjkmnpqrstvwxyzeeagw3", auth.MALFORMED),
        ("Bearer ' OR 1=1; --", auth.MALFORMED),
        ("Bearer fgk_' UNION SELECT id FROM accounts; --", auth.MALFORMED),
        ("Bearer \x00\xff", auth.MALFORMED),
        ("Bearer " + "x" * 100_000, auth.MALFORMED),
    ],
)
async def test_what_cannot_be_a_key_costs_no_query(
    database: Database, authenticator: Authenticator, header: str | None, message: str
) -> None:
    with counted(database) as statements, pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(header)
    assert statements == []
    assert caught.value.message == message


async def test_a_bad_checksum_costs_no_query(database: Database, authenticator: Authenticator, key: CreatedKey) -> None:
    wrong = key.text[:10] + ("0" if key.text[10] != "0" else "1") + key.text[11:]
    with counted(database) as statements, pytest.raises(Unauthenticated, match="copied whole"):
        await authenticator.authenticate(f"Bearer {wrong}")
    assert statements == []


async def test_the_query_is_constant_and_the_key_is_not_in_it(
    database: Database, authenticator: Authenticator, key: CreatedKey
) -> None:
    with counted(database) as statements:
        await authenticator.authenticate(f"Bearer {key.text}")
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"Bearer {keys.generate()}")
    assert len(statements) == 2
    assert len(set(statements)) == 1
    assert "$1" in statements[0]


async def test_unknown_revoked_and_expired_keys_get_the_same_words(
    database: Database, authenticator: Authenticator, clock: Clock
) -> None:
    service = KeyService(database)
    revoked = await service.create("acme", "old")
    await service.revoke(revoked.id)
    expired = await service.create("acme", "short", expires_at=clock.now)
    for text in (keys.generate(), revoked.text, expired.text):
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate(f"Bearer {text}")
        assert caught.value.message == "The API key is unknown, revoked or expired."


async def test_a_key_is_looked_up_once_in_five_seconds(
    database: Database, authenticator: Authenticator, clock: Clock, key: CreatedKey
) -> None:
    with counted(database) as statements:
        for _ in range(5):
            await authenticator.authenticate(f"Bearer {key.text}")
            clock.forward(1.2)
    assert len(statements) == 1  # at 0, 1.2, 2.4, 3.6 and 4.8 seconds


async def test_a_revoked_key_is_refused_within_five_seconds(
    database: Database, authenticator: Authenticator, clock: Clock, key: CreatedKey
) -> None:
    await authenticator.authenticate(f"Bearer {key.text}")
    clock.forward(1)
    await KeyService(database).revoke(key.id)
    clock.forward(4)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(f"Bearer {key.text}")


async def test_a_clock_set_back_does_not_prolong_a_revoked_key(
    database: Database, authenticator: Authenticator, clock: Clock, key: CreatedKey
) -> None:
    await authenticator.authenticate(f"Bearer {key.text}")
    await KeyService(database).revoke(key.id)
    clock.forward(-600)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(f"Bearer {key.text}")


async def test_a_key_ends_at_the_second_it_expires_although_it_is_remembered(
    database: Database, authenticator: Authenticator, clock: Clock
) -> None:
    created = await KeyService(database).create("acme", "short", expires_at=clock.now + timedelta(seconds=2))
    await authenticator.authenticate(f"Bearer {created.text}")
    clock.forward(1.9)
    await authenticator.authenticate(f"Bearer {created.text}")
    clock.forward(0.1)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(f"Bearer {created.text}")


async def test_an_unknown_key_is_remembered_too_and_only_a_bounded_number(
    database: Database, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHE_SIZE", 3)
    unknown = [keys.generate() for _ in range(4)]

    async def try_all(texts: list[str]) -> None:
        for text in texts:
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(f"Bearer {text}")

    with counted(database) as statements:
        await try_all(unknown)
        await try_all(unknown[1:])  # the last three are still known
    assert len(statements) == 4
    with counted(database) as statements:
        await try_all(unknown[:1])  # the first had to go
    assert len(statements) == 1


async def test_a_key_in_use_is_not_pushed_out_by_guesses(
    database: Database, authenticator: Authenticator, key: CreatedKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHE_SIZE", 3)
    with counted(database) as statements:
        for _ in range(10):
            await authenticator.authenticate(f"Bearer {key.text}")
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(f"Bearer {keys.generate()}")
    assert len(statements) == 1 + 10


async def test_only_a_key_that_was_valid_a_moment_ago_is_known(authenticator: Authenticator, key: CreatedKey) -> None:
    headers = [f"Bearer {key.text}", f"Bearer {keys.generate()}", "Bearer", "Basic eDp5", ""]
    assert {authenticator.known(header) for header in headers} == {None}
    for header in headers[:2]:
        with suppress(Unauthenticated):
            await authenticator.authenticate(header)
    assert [authenticator.known(header) for header in headers] == [key.account_id, None, None, None, None]


def test_a_caller_can_be_a_key_of_a_dictionary() -> None:
    one = Caller(uuid4(), uuid4(), frozenset({"jobs:read"}))
    assert {one: 1}[Caller(one.account_id, one.key_id, one.scopes)] == 1


async def test_made_up_keys_are_looked_up_together_and_displace_no_real_one(
    database: Database, authenticator: Authenticator, key: CreatedKey
) -> None:
    await authenticator.authenticate(f"Bearer {key.text}")
    made_up = [authenticator.authenticate(f"Bearer {keys.generate()}") for _ in range(auth.CACHE_SIZE + 1)]
    with counted(database) as statements:
        ends = await asyncio.gather(*made_up, return_exceptions=True)
        assert {str(end) for end in ends} == {auth.NOT_LIVE}
        lookups = len(statements)
        await authenticator.authenticate(f"Bearer {key.text}")
    assert lookups == len(statements) < 20
