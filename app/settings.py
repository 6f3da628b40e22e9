"""Settings: every key there is, with its type, its default and its checks. ``configuration.py`` reads them.

A nested key such as ``[database] url`` is ``FILMGATE_DATABASE_URL`` in the environment. A connection's secrets come
from ``FILMGATE_CONNECTION_<NAME>_API_KEY`` and ``…_CALLBACK_SECRET`` (name in capitals, ``-`` as ``_``), never from the
file.
"""

import re
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

MINIMUM_SECRET_LENGTH = 32
STOP_MARGIN = 2
DEV_SECRET_PREFIX = "dev-"
GENERATE_SECRET = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"

Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]


class Group(BaseModel):
    """A section of ``filmgate.toml``: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(Group):
    url: SecretStr
    pool_size: int = Field(default=16, ge=2)
    pool_timeout: Seconds = 5
    connect_timeout: Seconds = 5
    command_timeout: Seconds = Field(default=10, description="seconds before a statement is given up")

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        if not re.match(r"^postgres(ql)?(\+asyncpg)?://", url.get_secret_value()):
            raise ValueError("must be a postgresql:// URL")
        return url

    @property
    def sqlalchemy_url(self) -> str:
        return re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql+asyncpg://", self.url.get_secret_value())


class RedisSettings(Group):
    url: SecretStr
    socket_timeout: Seconds = Field(default=2, description="a frozen server must not hang us")
    poll_delay: Seconds = Field(default=0.05, description="seconds between two looks of the worker at the queue")

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr) -> SecretStr:
        if not re.match(r"^(rediss?|unix)://", url.get_secret_value()):
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return url


class ApiSettings(Group):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: AnyHttpUrl | None = Field(default=None, description="how clients reach us; used in signed URLs")
    max_body_bytes: int = Field(default=262_144, ge=1024)
    body_timeout: Seconds = Field(default=10, description="seconds a request body may take to arrive")
    max_wait: Seconds = Field(default=60, description="the longest `Prefer: wait`")
    shutdown_grace: Seconds = 10


class WorkerSettings(Group):
    name: str | None = Field(default=None, description="shown in logs and metrics; host and pid by default")
    host: str = "127.0.0.1"
    port: int = Field(default=9090, ge=0, le=65535, description="health and metrics of the worker")
    submissions: int = Field(default=32, ge=1, description="paid requests under way at once")
    polls: int = Field(default=100, ge=1, description="status requests under way at once")
    stores: int = Field(default=4, ge=1, description="films copied at once")
    deliveries: int = Field(default=256, ge=1, description="webhooks sent at once")
    sweep_interval: Seconds = Field(default=1, description="seconds between two looks at Postgres with no ring")
    lease: Seconds = Field(default=30, description="seconds a step may go without a sign of life")
    shutdown_grace: Seconds = Field(default=40, description="seconds that steps under way get when told to stop")


class JobSettings(Group):
    submit_timeout: Seconds = Field(default=30, description="absolute time-out of one paid request")
    submit_margin: Seconds = Field(default=15, description="seconds to write its outcome down before the lease ends")
    lookup_pause: Seconds = Field(default=5, description="seconds between two looks for a lost request")
    default_deadline: Seconds = Field(default=3600, description="seconds, when the request names none")
    max_deadline: Seconds = 86_400
    unknown_wait: Seconds = Field(default=900, description="seconds to look for the outcome of a lost reply")
    lost_after: Seconds = Field(default=600, description="seconds a remote job may be unknown upstream")
    watch_for: Seconds = Field(default=86_400, description="seconds a purchase is watched after its job has ended")
    break_after: int = Field(default=5, ge=1, description="failures in a row that close a connection to new jobs")
    break_pause: Seconds = Field(default=30, description="seconds until a closed connection is tried again; doubles")
    longest_break: Seconds = Field(default=300, description="seconds it is closed at most")
    idempotency_days: int = Field(default=30, ge=1)


class AssetSettings(Group):
    store: str = Field(default="file:///var/lib/filmgate/assets", description="file://, s3://, gs:// or az:// URL")
    store_options: dict[str, str] = Field(default_factory=dict, description="endpoint, region … of the store")
    spool: Path | None = Field(default=None, description="directory for films on their way in; system default")
    max_bytes: int = Field(default=2_147_483_648, ge=1, description="the largest film taken in")
    min_free_bytes: int = Field(
        default=1_073_741_824, ge=0, description="below this much free disk nothing is taken in"
    )
    retention_days: int = Field(default=30, ge=1)
    url_ttl: Seconds = Field(default=3600, description="seconds a signed URL lives")
    fetch_timeout: Seconds = Field(default=1800, description="seconds one copy may take")
    fetch_tries: int = Field(default=8, ge=1)


class WebhookSettings(Group):
    delays: tuple[float, ...] = Field(
        default=(0, 5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="seconds before each attempt",
    )
    timeout: Seconds = Field(default=15, description="seconds one attempt may take")
    max_reply_bytes: int = Field(default=65_536, ge=1)
    allow_http: bool = Field(default=False, description="plain http:// receivers; dev only")
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="otherwise private networks that receivers may live in"
    )


class RetentionSettings(Group):
    """How long what is over is kept. Films have ``assets.retention_days``, keys ``jobs.idempotency_days``."""

    events_days: int = Field(default=30, ge=1, description="events of jobs that have ended")
    deliveries_days: int = Field(default=30, ge=1, description="webhooks that arrived or were given up, with attempts")
    jobs_days: int | None = Field(
        default=None, ge=30, description="ended jobs with their ledger and all else; for ever by default"
    )


class ConnectionSettings(Group):
    """One upstream account: which adapter, where, with which credential and limits."""

    provider: Name
    base_url: AnyHttpUrl | None = None
    api_key: SecretStr | None = None
    profile: Name | None = Field(default=None, description="dialect of an openai_compatible server")
    models: tuple[str, ...] | None = Field(default=None, description="models served here; all of the provider's")
    callback_secret: SecretStr | None = Field(default=None, description="what the provider signs its callbacks with")
    max_concurrent: int = Field(default=5, ge=1, description="live submissions at once")
    requests_per_minute: int | None = Field(default=None, ge=1, description="paid requests within any 60 seconds")
    poll_interval: Seconds | None = Field(default=None, description="seconds; the provider's own by default")
    timeout: Seconds = Field(default=30, description="seconds a status request may take")
    visibility_delay: Seconds | None = Field(
        default=None,
        description="seconds until a new job must be in the provider's list; the provider's own by default",
    )
    lookup_proves_absence: bool | None = Field(
        default=None,
        description="whether a lost order that the provider does not list was never accepted, and may be sent again; "
        "false for several servers behind one address; the provider's own by default",
    )
    exclusive_account: bool = Field(
        default=False, description="whether only this gateway orders on the upstream account"
    )
    create_encoding: Literal["json", "multipart"] | None = Field(
        default=None, description="how an openai_compatible server takes orders; the profile's by default"
    )
    seconds_type: Literal["string", "integer"] | None = Field(
        default=None, description="what an openai_compatible server takes as seconds in JSON; the profile's by default"
    )
    private_results: bool = Field(
        default=False, description="films may come from private addresses, such as an own object store"
    )


class ModelSettings(Group):
    """One model of the catalogue: what may be asked of it, and what it costs.

    ``name`` in the file's table key is what callers send; ``upstream`` is what the provider is told.
    """

    provider: Name
    upstream: str
    description: str = ""
    seconds: tuple[int, ...] = Field(min_length=1)
    default_seconds: int
    sizes: tuple[str, ...] = Field(min_length=1)
    default_size: str
    prompt_chars: int = Field(default=4000, ge=1)
    seed: bool = False
    negative_prompt: bool = False
    audio: Literal["none", "optional", "always"] = "none"
    options: tuple[str, ...] = Field(default=(), description="provider_options that may be passed through")
    usd_per_second: Decimal | dict[str, Decimal] | None = Field(
        default=None, description="one price, or one by size; none means the price is not known"
    )
    typical_seconds: Seconds = Field(default=120, description="how long a render usually takes")
    sunset: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\d$")

    @field_validator("sizes")
    @classmethod
    def _are_sizes(cls, sizes: tuple[str, ...]) -> tuple[str, ...]:
        for size in sizes:
            if not re.match(r"^[1-9]\d{1,4}x[1-9]\d{1,4}$", size):
                raise ValueError(f"{size!r} is not WIDTHxHEIGHT")
        return sizes

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> Self:
        if self.default_seconds not in self.seconds:
            raise ValueError("default_seconds must be one of seconds")
        if self.default_size not in self.sizes:
            raise ValueError("default_size must be one of sizes")
        return self


class Settings(BaseSettings):
    """Everything a process needs to know; invalid settings never get past the door."""

    model_config = SettingsConfigDict(
        env_prefix="FILMGATE_", env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    mode: Literal["production", "dev"] = "production"
    secret_key: SecretStr
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    database: DatabaseSettings
    redis: RedisSettings
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    jobs: JobSettings = JobSettings()
    assets: AssetSettings = AssetSettings()
    webhooks: WebhookSettings = WebhookSettings()
    retention: RetentionSettings = RetentionSettings()
    connections: dict[Name, ConnectionSettings] = Field(default_factory=dict)
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="after")
    def _production_is_safe(self) -> Self:
        secret = self.secret_key.get_secret_value()
        if len(secret) < MINIMUM_SECRET_LENGTH:
            raise ValueError(f"secret_key: needs at least {MINIMUM_SECRET_LENGTH} characters; {GENERATE_SECRET}")
        if self.mode == "dev":
            return self
        if secret.startswith(DEV_SECRET_PREFIX):
            raise ValueError(f"secret_key: a development secret in production mode; {GENERATE_SECRET}")
        if self.webhooks.allow_http or self.webhooks.allowed_networks:
            raise ValueError("webhooks: allow_http and allowed_networks are for mode = 'dev' only; remove them")
        return self

    @model_validator(mode="after")
    def _paid_requests_may_end(self) -> Self:
        needed = self.jobs.submit_timeout + STOP_MARGIN
        if self.worker.shutdown_grace < needed:
            raise ValueError(
                f"worker.shutdown_grace: must be at least {needed:g}, which is jobs.submit_timeout and {STOP_MARGIN} "
                "seconds: a paid request that is cut off leaves a purchase in doubt"
            )
        return self

    @model_validator(mode="after")
    def _jobs_outlive_what_is_theirs(self) -> Self:
        parts = {
            "retention.events_days": self.retention.events_days,
            "retention.deliveries_days": self.retention.deliveries_days,
            "jobs.idempotency_days": self.jobs.idempotency_days,
            "assets.retention_days": self.assets.retention_days,
        }
        longest = max(parts, key=lambda name: parts[name])
        if self.retention.jobs_days is not None and self.retention.jobs_days < parts[longest]:
            raise ValueError(f"retention.jobs_days: must be at least {parts[longest]}, which is {longest}")
        return self

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        for alias, model in self.aliases.items():
            if alias in self.models:
                raise ValueError(f"aliases.{alias}: is the name of a model too; rename the alias")
            if model in self.aliases:
                raise ValueError(f"aliases.{alias}: points at another alias; name a model")
        return self

    @model_validator(mode="after")
    def _credentials_have_one_owner(self) -> Self:
        owners: dict[str, str] = {}
        for name in self.connections:
            other = owners.setdefault(credential_variable(name), name)
            if other != name:
                raise ValueError(
                    f"connections.{name}: would share {credential_variable(name)} with {other}; rename one of them"
                )
        return self


class SettingsError(Exception):
    """The settings are not usable; the message names each key and what to do."""


def credential_variable(connection: str) -> str:
    """The environment variable that holds a connection's credential."""
    return f"FILMGATE_CONNECTION_{connection.upper().replace('-', '_')}_API_KEY"


def callback_variable(connection: str) -> str:
    """The environment variable that holds what a provider signs its callbacks with."""
    return f"FILMGATE_CONNECTION_{connection.upper().replace('-', '_')}_CALLBACK_SECRET"
