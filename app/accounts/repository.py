"""SQL of accounts and API keys."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Row, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts.tables import accounts, api_keys
from app.ids import new_id


async def account_named(conn: AsyncConnection, name: str) -> UUID:
    """The id of the account of that name; creates the account if missing. Safe under concurrent calls."""
    made = await conn.scalar(
        postgresql.insert(accounts)
        .values(id=new_id(), name=name)
        .on_conflict_do_nothing(index_elements=[accounts.c.name])
        .returning(accounts.c.id)
    )
    if made is not None:
        return UUID(str(made))
    found = await conn.execute(select(accounts.c.id).where(accounts.c.name == name))
    return UUID(str(found.scalar_one()))


async def add_key(
    conn: AsyncConnection,
    *,
    account_id: UUID,
    name: str,
    digest: bytes,
    scopes: Iterable[str],
    expires_at: datetime | None,
) -> UUID:
    key_id = new_id()
    await conn.execute(
        insert(api_keys).values(
            id=key_id,
            account_id=account_id,
            name=name,
            digest=digest,
            scopes=sorted(scopes),
            expires_at=expires_at,
        )
    )
    return key_id


_KEYS = select(
    api_keys.c.digest,
    api_keys.c.id,
    api_keys.c.account_id,
    api_keys.c.scopes,
    api_keys.c.expires_at,
    api_keys.c.revoked_at,
).where(api_keys.c.digest == func.any(cast(bindparam("digests"), ARRAY(LargeBinary))))


async def keys_by_digest(conn: AsyncConnection, digests: Collection[bytes]) -> dict[bytes, Row[*tuple[Any, ...]]]:
    """Rows of (digest, id, account_id, scopes, expires_at, revoked_at), by digest; unknown ones are left out."""
    return {row.digest: row for row in await conn.execute(_KEYS, {"digests": list(digests)})}


async def all_keys(conn: AsyncConnection) -> Sequence[Row[*tuple[Any, ...]]]:
    """Every key with its account's name, oldest first."""
    found = await conn.execute(
        select(
            api_keys.c.id,
            accounts.c.name.label("account"),
            api_keys.c.name,
            api_keys.c.scopes,
            api_keys.c.created_at,
            api_keys.c.expires_at,
            api_keys.c.revoked_at,
        )
        .join(accounts, accounts.c.id == api_keys.c.account_id)
        .order_by(api_keys.c.id)
    )
    return found.all()


async def revoke_key(conn: AsyncConnection, key_id: UUID) -> bool:
    """Revoke a key; False if it is unknown or already revoked."""
    result = await conn.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=func.now())
    )
    return result.rowcount == 1
