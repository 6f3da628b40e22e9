"""The settings: every key with its type, default and validation. ``settings_loader.py`` loads them.

A nested key such as ``[database] url`` is ``FILMGATE_DATABASE_URL`` in the environment. A connection's secrets come
from ``FILMGATE_CONNECTION_<NAME>_API_KEY`` and ``…_CALLBACK_SECRET`` (name in capitals, ``-`` as ``_``), never from the
file.
"""

import re
from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.connection_settings import (
    ConnectionSettings,
    Group,
    ModelSettings,
    Name,
    ProxyUrl,
    Seconds,
    credential_variable,
)
from app.database_settings import DatabaseSettings

MINIMUM_SECRET_LENGTH = 32
MINIMUM_DISTINCT = 10
#: Names that resolve inside a network only.
PRIVATE_NAMES = re.compile(
    r"localhost|[^.]+|.+\.(localhost|local|internal|lan|home\.arpa|svc|cluster\.local)", re.IGNORECASE
)
#: What a path of the API begins with. A path prefix that begins so could not be told from it.
API_PATH = re.compile(r"/(?:v1|docs|healthz|readyz|metrics|openapi\.json)(?:/|$)")
STOP_MARGIN = 2
DEV_SECRET_PREFIX = "dev-"
GENERATE_SECRET = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"


class RedisSettings(Group):
    url: SecretStr
    socket_timeout: Seconds = Field(default=2, description="seconds until a frozen server counts as unavailable")
    poll_delay: Seconds = Field(default=0.05, description="seconds between two polls of the arq queue by a worker")

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr) -> SecretStr:
        if not re.match(r"^(rediss?|unix)://", url.get_secret_value()):
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        try:
            _ = urlsplit(url.get_secret_value()).port
        except ValueError:
            raise ValueError("must be a URL such as redis://host:6379/0") from None
        return url


class ApiSettings(Group):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: AnyHttpUrl | None = Field(
        default=None, description="URL of the API for clients, with its path prefix and without /v1; used in every URL"
    )
    docs: bool = Field(default=True, description="serve /docs and /openapi.json")
    max_body_bytes: int = Field(default=262_144, ge=1024)
    body_timeout: Seconds = Field(default=10, description="seconds within which a request body must arrive")
    max_wait: Seconds = Field(default=50, description="the longest `Prefer: wait`; proxies often end a wait at 60")
    max_concurrent: int = Field(default=64, ge=1, description="requests worked on at once; the others wait in line")
    max_waiting: int = Field(default=1000, ge=0, description="requests in line; one more gets a 503")
    streams_per_account: int = Field(default=200, ge=1, description="open event streams; one more gets a 429")
    waits_per_account: int = Field(default=200, ge=1, description="requests with `Prefer: wait`; one more gets a 429")
    keep_alive: Seconds = Field(default=75, description="seconds an idle connection is kept; more than a proxy's")
    cors_origins: tuple[str, ...] = Field(default=(), description="origins whose pages may call the API; `*` for any")
    trusted_proxies: tuple[str, ...] = Field(
        default=("127.0.0.1", "::1"), description="addresses or networks whose X-Forwarded-* headers are believed"
    )
    shutdown_grace: Seconds = 10

    @field_validator("public_url")
    @classmethod
    def _leads_to_the_api(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        path = (url.path or "").rstrip("/") if url else ""
        if url and (url.query is not None or url.fragment is not None or url.username or url.password):
            raise ValueError("must be a scheme, a host and perhaps a path: paths of the API are put behind it")
        if path.endswith("/v1"):
            raise ValueError("leave out the /v1 at its end: the gateway adds it")
        if "//" in path or API_PATH.match(path):
            raise ValueError("its path cannot be told from a path of the API, or is none; choose another one")
        return url

    @property
    def path_prefix(self) -> str:
        """The path under which clients find the API, without a slash at its end."""
        return ((self.public_url and self.public_url.path) or "").rstrip("/")


class WorkerSettings(Group):
    name: str | None = Field(default=None, description="name in logs and metrics; host and pid by default")
    host: str = "127.0.0.1"
    port: int = Field(default=9090, ge=0, le=65535, description="port of the worker's health checks and metrics")
    submissions: int = Field(default=32, ge=1, description="concurrent paid requests")
    preparations: int = Field(default=8, ge=1, description="jobs whose inputs are prepared concurrently")
    polls: int = Field(default=100, ge=1, description="concurrent status requests")
    stores: int = Field(default=4, ge=1, description="videos copied concurrently")
    deliveries: int = Field(default=256, ge=1, description="concurrent webhook attempts")
    sweep_interval: Seconds = Field(default=1, description="seconds between sweeps of Postgres for due work")
    lease: Seconds = Field(default=30, description="seconds until a step without heartbeat is taken over")
    shutdown_grace: Seconds = Field(default=40, description="seconds that running steps may take to finish on shutdown")


class JobSettings(Group):
    submit_timeout: Seconds = Field(default=30, description="total timeout of one paid request in seconds")
    submit_margin: Seconds = Field(default=15, description="seconds left to record its result before the lease expires")
    lookup_pause: Seconds = Field(default=5, description="seconds between two look-ups of a lost submission")
    default_deadline: Seconds = Field(default=3600, description="deadline in seconds if the request sets none")
    max_deadline: Seconds = 86_400
    unknown_wait: Seconds = Field(default=900, description="seconds to resolve a submission whose reply was lost")
    lost_after: Seconds = Field(default=600, description="seconds a remote job may be unknown to the provider")
    watch_for: Seconds = Field(default=86_400, description="seconds a submission is reconciled after its job has ended")
    break_after: int = Field(default=5, ge=1, description="consecutive failures that open a circuit breaker")
    break_pause: Seconds = Field(default=30, description="seconds until an open breaker is tried again; doubles")
    longest_break: Seconds = Field(default=300, description="maximum of break_pause after doubling")
    idempotency_days: int = Field(default=30, ge=1)
    max_live_per_account: int | None = Field(
        default=None, ge=1, description="jobs of one account that have not ended; one more gets a 429"
    )


class AssetSettings(Group):
    store: str = Field(default="file:///var/lib/filmgate/assets", description="file://, s3://, gs:// or az:// URL")
    store_options: dict[str, str] = Field(default_factory=dict, description="options of the store: endpoint, region …")
    spool: Path | None = Field(default=None, description="directory for videos being received; system default")
    max_bytes: int = Field(default=2_147_483_648, ge=1, description="maximum size of a video")
    min_free_bytes: int = Field(
        default=1_073_741_824, ge=0, description="free disk space below which no video is stored"
    )
    retention_days: int = Field(default=30, ge=1)
    url_ttl: Seconds = Field(default=3600, description="seconds a signed URL is valid")
    fetch_timeout: Seconds = Field(default=1800, description="seconds within which one video must be received")
    fetch_tries: int = Field(default=8, ge=1)
    probe_cpu_seconds: Seconds = Field(default=10, description="CPU seconds that one probe of a video may take")


class FileSettings(Group):
    """Files that callers give. They are kept in ``assets.store``."""

    max_bytes: int = Field(default=536_870_912, ge=1, description="maximum size of a file")
    quota_bytes: int = Field(default=10_737_418_240, ge=1, description="maximum size of all files of one account")
    retention_days: int = Field(default=30, ge=1)
    upload_timeout: Seconds = Field(default=900, description="seconds within which an upload must arrive")
    uploads_per_account: int = Field(default=8, ge=1, description="uploads at once, per process; one more gets a 429")
    fetch_timeout: Seconds = Field(default=30, description="seconds within which a URL must deliver its file")


class WebhookSettings(Group):
    delays: tuple[float, ...] = Field(
        default=(0, 5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="seconds before each attempt",
    )
    timeout: Seconds = Field(default=15, description="seconds one attempt may take")
    max_reply_bytes: int = Field(default=65_536, ge=1)
    allow_http: bool = Field(default=False, description="allow plain http:// receivers; dev mode only")
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="private networks in which receivers are allowed; dev mode only"
    )


class EgressSettings(Group):
    """The way out, to providers and webhook receivers. ``HTTPS_PROXY`` and the like are not read."""

    proxy: ProxyUrl | None = Field(default=None, description="URL of the HTTP proxy that leads out")


class RetentionSettings(Group):
    """Retention periods. See also ``assets.retention_days`` and ``jobs.idempotency_days``."""

    events_days: int = Field(default=30, ge=1, description="events of jobs that have ended")
    deliveries_days: int = Field(default=30, ge=1, description="webhooks delivered or given up, with their attempts")
    jobs_days: int | None = Field(
        default=None, ge=30, description="ended jobs with all their data; kept indefinitely by default"
    )


def _check_key(name: str, key: str) -> None:
    if len(key.strip()) < MINIMUM_SECRET_LENGTH:
        raise ValueError(f"{name}: needs at least {MINIMUM_SECRET_LENGTH} characters; {GENERATE_SECRET}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: is not valid UTF-8; {GENERATE_SECRET}") from None


def _check_variety(name: str, key: str) -> None:
    """Refuse what a person types until it is long enough."""
    most_common = max(Counter(key).values())
    if len(set(key)) < MINIMUM_DISTINCT or most_common > len(key) / 2 or key in (key + key)[1:-1]:
        raise ValueError(f"{name}: repeats itself and can be guessed; {GENERATE_SECRET}")


def _is_public_http(url: AnyHttpUrl | None) -> bool:
    """Whether a URL leads over plain HTTP to an address that is not known to be private."""
    if url is None or url.scheme != "http":
        return False
    host = (url.host or "").strip("[]")
    try:
        return not ip_address(host).is_private
    except ValueError:
        return PRIVATE_NAMES.fullmatch(host.removesuffix(".")) is None


class Settings(BaseSettings):
    """All settings of a process, validated at start-up."""

    model_config = SettingsConfigDict(
        env_prefix="FILMGATE_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,  # Compose and the like pass on what is not set as ""
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    mode: Literal["production", "dev"] = "production"
    secret_key: SecretStr
    old_secret_keys: tuple[SecretStr, ...] = Field(
        default=(), description="earlier secret keys, newest first, while `filmgate rotate` has not run"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    database: DatabaseSettings
    redis: RedisSettings
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    jobs: JobSettings = JobSettings()
    assets: AssetSettings = AssetSettings()
    files: FileSettings = FileSettings()
    webhooks: WebhookSettings = WebhookSettings()
    egress: EgressSettings = EgressSettings()
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
        _check_key("secret_key", secret)
        # An old key verifies URLs and callback tokens: a weak one opens them as the current one would.
        for place, key in enumerate(self.old_secret_keys):
            _check_key(f"old_secret_keys.{place}", key.get_secret_value())
            if key in (self.secret_key, *self.old_secret_keys[:place]):
                raise ValueError(f"old_secret_keys.{place}: is configured twice; remove it")
        if self.mode == "dev":
            return self
        if secret.startswith(DEV_SECRET_PREFIX):
            raise ValueError(f"secret_key: a development secret in production mode; {GENERATE_SECRET}")
        _check_variety("secret_key", secret)
        for place, key in enumerate(self.old_secret_keys):
            _check_variety(f"old_secret_keys.{place}", key.get_secret_value())
        if self.webhooks.allow_http or self.webhooks.allowed_networks:
            raise ValueError("webhooks: allow_http and allowed_networks are for mode = 'dev' only; remove them")
        for name, connection in self.connections.items():
            if connection.api_key is not None and _is_public_http(connection.base_url):
                raise ValueError(f"connections.{name}.base_url: would send the credential in clear; use https")
        return self

    @model_validator(mode="after")
    def _shutdown_outlasts_paid_requests(self) -> Self:
        needed = self.jobs.submit_timeout + STOP_MARGIN
        if self.worker.shutdown_grace < needed:
            raise ValueError(
                f"worker.shutdown_grace: must be at least {needed:g}, which is jobs.submit_timeout and {STOP_MARGIN} "
                "seconds: interrupting a paid request leaves its result unknown"
            )
        return self

    @model_validator(mode="after")
    def _jobs_outlive_their_data(self) -> Self:
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
    def _aliases_name_models(self) -> Self:
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
    """The settings are invalid; the message names each key and how to correct it."""
