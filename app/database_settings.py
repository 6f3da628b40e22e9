"""The settings of the database, and how its URL is read: with the parameters that libpq knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.connection_settings import Group, Seconds

EXAMPLE = "postgresql://user:password@host:5432/database"
ENCODE = (
    "a password or user name in it has a character that must be percent-encoded: "
    "`@` is %40, `/` %2F, `?` %3F, `#` %23, `%` %25, `[` %5B, `]` %5D"
)
#: Parameters that asyncpg reads from a URL itself.
PASSED_ON = {
    *("user", "password", "passfile", "dbname", "database", "service", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
}
#: Parameters that this module gives a meaning.
TRANSLATED = {"host", "port", "application_name", "connect_timeout", "options", "ssl"}
#: Parameters without meaning here. TLS is verified without channel binding; TCP keep-alive is always on; text is UTF-8;
#: hosts are tried in their order; SNI is always sent; the gateway has an application name.
IGNORED = {
    *("channel_binding", "gssencmode", "gssdelegation", "sslcompression", "sslcertmode", "sslsni"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("client_encoding", "fallback_application_name", "load_balance_hosts"),
}
#: Parameters of libpq and of other libraries that the gateway cannot follow, and what to do instead.
INSTEAD = {
    "hostaddr": "put the address in place of the host",
    "pgbouncer": 'remove it and set database.pooler = "transaction"',
    "prepared_statement_cache_size": 'remove it and set database.pooler = "transaction"',
    "statement_cache_size": 'remove it and set database.pooler = "transaction"',
    "connection_limit": "remove it and set database.pool_size",
    "pool_timeout": "remove it and set database.pool_timeout",
    "schema": "use options=-c%20search_path%3D<schema>",
    "sslcrldir": "use sslcrl",
    "requiressl": "use sslmode=require",
    "require_auth": "remove it; only a verified server should be trusted: use sslmode=verify-full",
    "requirepeer": "remove it",
    "replication": "remove it",
}
CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "primary", "read-write"),
    "gssencmode": ("disable", "prefer"),
}
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL as asyncpg needs it. ``hosts`` are tried in their order; without any, asyncpg's defaults apply."""

    dsn: str
    hosts: tuple[tuple[str, int], ...]
    server_settings: Mapping[str, str]
    connect_timeout: float | None

    @classmethod
    def read(cls, url: str) -> "DatabaseUrl":
        """Read a URL.

        Raises:
            ValueError: something in it is invalid; the message has no part of a password.
        """
        if not re.match(r"^postgres(ql)?(\+asyncpg)?://", url):
            raise ValueError("must be a postgresql:// URL")
        rest = url.partition("://")[2]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        user, at, place = authority.rpartition("@")
        invalid = re.search(r"[@\[\]]|%(?![0-9A-Fa-f]{2})", user)
        if invalid or "#" in rest or "@" in rest[len(authority) :]:
            raise ValueError(ENCODE)
        try:
            parts = urlsplit(f"postgresql://{rest}")
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
            parameters = dict(query)
            hosts = _hosts(place or parameters.get("host", ""), parameters.get("port", ""))
        except ValueError:
            raise ValueError(f"must be a URL such as {EXAMPLE}") from None
        if len(parameters) < len(query):
            raise ValueError("a parameter is in it twice; remove one")
        _check(parameters)
        passed = {name: value for name, value in parameters.items() if name in PASSED_ON}
        if "ssl" in parameters:
            passed.setdefault("sslmode", "require" if parameters["ssl"] == "true" else parameters["ssl"])
        if len(hosts) > 1:
            # The gateway writes: among several hosts it needs the primary, whichever that is now.
            passed.setdefault("target_session_attrs", "read-write")
        if not hosts and "port" in parameters:
            passed["port"] = parameters["port"]
        query_string = f"?{urlencode(passed)}" if passed else ""
        return cls(
            dsn=f"postgresql://{user}{at}{parts.path}{query_string}",
            hosts=hosts,
            server_settings={
                name: parameters[name] for name in ("application_name", "options") if parameters.get(name)
            },
            connect_timeout=float(parameters.get("connect_timeout", 0)) or None,
        )


def _hosts(place: str, ports: str) -> tuple[tuple[str, int], ...]:
    """The hosts of ``h1:5432,[::1]:5433``, with the ports of the parameter ``port`` for those without one."""
    names = place.split(",") if place else []
    defaults = (ports or "5432").split(",")
    if names and len(defaults) not in {1, len(names)}:
        raise ValueError("one port, or one for each host")
    found = []
    for number, name in enumerate(names):
        matched = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]+))?", name)
        if not matched:
            raise ValueError("not a host")
        port = int(matched[3] or defaults[number if len(defaults) > 1 else 0])
        if not 0 < port < 65_536:
            raise ValueError("not a port")
        found.append((matched[1] or unquote(matched[2]), port))
    return tuple(found)


def _check(parameters: Mapping[str, str]) -> None:
    known = PASSED_ON | TRANSLATED | IGNORED
    for name, value in parameters.items():
        if name in INSTEAD:
            raise ValueError(f"the parameter {name} is not supported; {INSTEAD[name]}")
        if name not in known:
            raise ValueError(
                f"the parameter {name} is unknown; remove it, or check its spelling. Settings of the server are "
                "given as options=-c%20name%3Dvalue"
            )
        choices = CHOICES.get("sslmode" if name == "ssl" and value != "true" else name)
        if choices and value not in choices:
            raise ValueError(f"the parameter {name} must be one of: {', '.join(choices)}")
    if not re.fullmatch(r"[0-9]{1,9}", parameters.get("connect_timeout", "0")):
        raise ValueError("the parameter connect_timeout must be a number of seconds")
    if parameters.get("sslrootcert") == "system":
        raise ValueError(
            "sslrootcert=system is not supported; name the system's file, such as /etc/ssl/certs/ca-certificates.crt"
        )
    for name in FILES:
        if name in parameters and not Path(parameters[name]).is_file():
            raise ValueError(f"the parameter {name} names a file that does not exist or cannot be read")


class DatabaseSettings(Group):
    url: SecretStr
    pooler: Literal["none", "transaction"] = Field(
        default="none", description="`transaction` behind a pooler that gives out connections for one transaction"
    )
    direct_url: SecretStr | None = Field(
        default=None, description="URL of Postgres itself, for `filmgate migrate` behind a pooler"
    )
    pool_size: int = Field(default=16, ge=2)
    pool_timeout: Seconds = 5
    pool_recycle: Seconds = Field(default=1800, description="seconds after which a connection is replaced by a new one")
    pool_check_idle: Seconds = Field(
        default=30, description="seconds without use after which a connection is checked before its next use"
    )
    connect_timeout: Seconds = Field(default=5, description="seconds to connect to one host")
    command_timeout: Seconds = Field(default=10, description="seconds until a statement is aborted")

    @field_validator("url", "direct_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            DatabaseUrl.read(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _pooler_accepts_the_parameters(self) -> Self:
        if self.pooled and "options" in DatabaseUrl.read(self.url.get_secret_value()).server_settings:
            raise ValueError(
                "a pooler refuses the parameter options of the URL; remove it, and set what it sets for the role: "
                "ALTER ROLE … SET …"
            )
        return self

    @property
    def pooled(self) -> bool:
        """Whether two transactions of one connection may run in different sessions of Postgres."""
        return self.pooler == "transaction"

    @property
    def connect_seconds(self) -> float:
        """The setting, or without one the parameter ``connect_timeout`` of the URL."""
        of_url = DatabaseUrl.read(self.url.get_secret_value()).connect_timeout
        return self.connect_timeout if of_url is None or "connect_timeout" in self.model_fields_set else of_url
