"""Management of API keys by the operator: create, list, revoke."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app import ids
from app.accounts import keys, repository
from app.accounts.scopes import ALL, DEFAULT, Scope
from app.errors import FieldError, InvalidRequest
from app.ids import Prefix
from app.infra.db import Database

LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key. ``text`` is not stored: show it once. ``id`` is the public id that ``revoke`` takes."""

    id: str
    account_id: UUID
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its text."""

    id: str
    account: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyService:
    """Creates, lists and revokes API keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, account: str, name: str, scopes: Iterable[str] = DEFAULT, *, expires_at: datetime | None = None
    ) -> CreatedKey:
        """Create a key for the account of that name; creates the account if it does not exist.

        Raises:
            InvalidRequest: an unknown scope, no scope at all, or a name that is empty or too long.
        """
        _check_name("account", account)
        _check_name("name", name)
        granted = _known(scopes)
        text = keys.generate()
        async with self._database.begin() as conn:
            account_id = await repository.account_named(conn, account)
            key_id = await repository.add_key(
                conn,
                account_id=account_id,
                name=name,
                digest=keys.digest(text),
                scopes=granted,
                expires_at=expires_at,
            )
        return CreatedKey(id=ids.encode(Prefix.KEY, key_id), account_id=account_id, text=text)

    async def list(self) -> list[KeyInfo]:
        """Every key, oldest first, including revoked ones."""
        async with self._database.read() as conn:
            rows = await repository.all_keys(conn)
        return [
            KeyInfo(
                id=ids.encode(Prefix.KEY, row.id),
                account=row.account,
                name=row.name,
                scopes=frozenset(row.scopes),
                created_at=row.created_at,
                expires_at=row.expires_at,
                revoked_at=row.revoked_at,
            )
            for row in rows
        ]

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key permanently; every process rejects it within five seconds. False: no active key has this id."""
        value = ids.decode(Prefix.KEY, key_id)
        if value is None:
            return False
        async with self._database.begin() as conn:
            return await repository.revoke_key(conn, value)


def _check_name(field_name: str, value: str) -> None:
    if value and value == value.strip() and len(value) <= LONGEST_NAME and value.isprintable():
        return
    message = f"must have 1 to {LONGEST_NAME} printable characters and no space at either end"
    raise InvalidRequest(f"`{field_name}` {message}.", [FieldError(field_name, "invalid", message)])


def _known(scopes: Iterable[str]) -> frozenset[Scope]:
    granted = set(scopes)
    unknown = sorted(granted - ALL)
    allowed = ", ".join(Scope)
    if unknown:
        message = f"unknown: {', '.join(unknown)}; the scopes are {allowed}"
    elif not granted:
        message = f"at least one is needed; the scopes are {allowed}"
    else:
        return frozenset(Scope(scope) for scope in granted)
    raise InvalidRequest(f"`scopes`: {message}.", [FieldError("scopes", "not_allowed", message)])
