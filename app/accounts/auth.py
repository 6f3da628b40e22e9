"""Authentication by an API key in the Authorization header."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from sqlalchemy import Row

from app import ids
from app.accounts import keys, repository
from app.accounts.scopes import Scope
from app.batching import Batcher
from app.clock import Clock, utc_now
from app.errors import Forbidden, Unauthenticated
from app.ids import Prefix
from app.infra.db import Database

# Every process rejects a revoked key within this time.
CACHE_AGE = timedelta(seconds=5)
# Of valid keys, and as many others: made-up keys must not displace real ones.
CACHE_SIZE = 4096
#: Digests in one query. One query runs at a time, so made-up keys cannot occupy the connections of the database.
LARGEST_BATCH = 500

#: A lookup that waits longer for its query gets a 503.
PATIENCE_SECONDS = 5.0

HOW = "send it as `Authorization: Bearer fgk_…`"
MISSING = f"The request carries no API key; {HOW}."
NOT_BEARER = f"The Authorization header is not of the form that carries an API key; {HOW}."
REPEATED = f"The request carries more than one Authorization header; {HOW}, once."
MALFORMED = "The text after `Bearer` is not an API key of this gateway; check that it was copied whole (`fgk_…`)."
NOT_LIVE = "The API key is unknown, revoked or expired."


@dataclass(frozen=True, slots=True)
class Caller:
    """The account and the API key of a request, and the scopes of the key."""

    account_id: UUID
    key_id: UUID
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cached lookup of one key. ``caller`` is None if the key is unknown or revoked."""

    read_at: datetime
    caller: Caller | None
    expires_at: datetime | None


class Authenticator:
    """Authenticates API keys. Caches lookups for five seconds; concurrent ones share a query."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._valid: OrderedDict[bytes, _Entry] = OrderedDict()
        self._invalid: OrderedDict[bytes, _Entry] = OrderedDict()
        self._reading = Batcher(self._read, largest=LARGEST_BATCH, at_once=1, patience=PATIENCE_SECONDS)

    async def authenticate(self, authorization_header: str | None) -> Caller:
        """The caller named by the value of an Authorization header.

        Raises:
            Unauthenticated: no header, another scheme, or a malformed, unknown, revoked or expired key.
        """
        text = _text_in(authorization_header)
        digest = keys.digest(text)
        now = self._clock()
        entry = self._valid.get(digest) or self._invalid.get(digest)
        # A negative age means that the clock was set back: read again rather than extend the entry.
        if entry is None or not timedelta() <= now - entry.read_at < CACHE_AGE:
            if not keys.is_well_formed(text):
                raise Unauthenticated(MALFORMED)
            # ``now`` precedes the query, so that a key revoked while it runs is not cached for longer than CACHE_AGE.
            entry = await self._reading((digest, now))
            self._remember(digest, entry)
        elif entry.caller is not None:
            self._valid.move_to_end(digest)
        if entry.caller is None or (entry.expires_at is not None and entry.expires_at <= now):
            raise Unauthenticated(NOT_LIVE)
        return entry.caller

    def known(self, authorization_header: str | None) -> UUID | None:
        """The account of a key that was valid a moment ago. Not an authentication: the key may be revoked by now."""
        try:
            entry = self._valid.get(keys.digest(_text_in(authorization_header)))
        except Unauthenticated:
            return None
        return entry.caller.account_id if entry and entry.caller else None

    async def _read(self, asked: Sequence[tuple[bytes, datetime]]) -> Sequence[_Entry]:
        """The entries of concurrent lookups, each of a digest at a time."""
        async with self._database.read() as conn:
            rows = await repository.keys_by_digest(conn, {digest for digest, _ in asked})
        return [_entry(rows.get(digest), read_at) for digest, read_at in asked]

    def _remember(self, digest: bytes, entry: _Entry) -> None:
        mine, other = (self._invalid, self._valid) if entry.caller is None else (self._valid, self._invalid)
        other.pop(digest, None)
        mine[digest] = entry
        mine.move_to_end(digest)
        while len(mine) > CACHE_SIZE:
            mine.popitem(last=False)


def _entry(row: Row[*tuple[Any, ...]] | None, read_at: datetime) -> _Entry:
    if row is None or row.revoked_at is not None:
        return _Entry(read_at, caller=None, expires_at=None)
    caller = Caller(account_id=row.account_id, key_id=row.id, scopes=frozenset(row.scopes))
    return _Entry(read_at, caller, row.expires_at)


def _text_in(header: str | None) -> str:
    if header is None:
        raise Unauthenticated(MISSING)
    scheme, _, text = header.strip().partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise Unauthenticated(NOT_BEARER)
    return text


class _Bearer(SecurityBase):
    """A FastAPI dependency that is also the OpenAPI security scheme ``ApiKey``."""

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearerModel(bearerFormat="fgk_…", description="An API key, made with `filmgate keys create`.")
        self.scheme_name = "ApiKey"
        self._scope = scope

    async def _caller(self, request: Request, headers: list[str]) -> Caller:
        if len(headers) > 1:
            raise Unauthenticated(REPEATED)
        authenticator: Authenticator = request.app.state.auth
        caller = await authenticator.authenticate(headers[0] if headers else None)
        structlog.contextvars.bind_contextvars(
            account_id=ids.encode(Prefix.ACCOUNT, caller.account_id), key_id=ids.encode(Prefix.KEY, caller.key_id)
        )
        if self._scope not in caller.scopes:
            raise Forbidden(f"The API key lacks the scope `{self._scope}`.")
        return caller


class _Required(_Bearer):
    async def __call__(self, request: Request) -> Caller:
        return await self._caller(request, request.headers.getlist("authorization"))


class _Optional(_Bearer):
    def __init__(self, scope: Scope, other: str) -> None:
        super().__init__(scope)
        self._other = other

    async def __call__(self, request: Request) -> Caller | None:
        headers = request.headers.getlist("authorization")
        try:
            return await self._caller(request, headers) if headers else None
        except (Unauthenticated, Forbidden):
            # Players and proxies add headers of their own to a URL that needs none.
            if self._other in request.query_params:
                return None
            raise


@cache
def require(scope: str) -> _Required:
    """The dependency of a route that requires ``scope``: ``Annotated[Caller, Depends(require("jobs:read"))]``.

    Raises:
        ValueError: at import, when there is no such scope. In a request: Unauthenticated, Forbidden.
    """
    return _Required(Scope(scope))


@cache
def optional(scope: str, *, other: str) -> _Optional:
    """The same for a route that accepts another credential too, the query parameter ``other``.

    None without an Authorization header, or beside that parameter with a header that is not valid. OpenAPI shows the
    key as required; a route adds ``openapi_extra={"security": [{}]}`` to mark it as optional.
    """
    return _Optional(Scope(scope), other)
