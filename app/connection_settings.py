"""The settings of connections and models, and what every section of the settings has in common."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]


#: In place of the URL of a proxy: none, also where all other connections have one.
DIRECT = "direct"


def _check_proxy(url: SecretStr) -> SecretStr:
    """The value may hold a password: the message does not repeat it."""
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        known = parts.scheme == "http" and parts.hostname and parts.port is not None and parts.path in {"", "/"}
    except ValueError:
        known = False
    if text != DIRECT and not known:
        raise ValueError("must be the http:// URL of a proxy with its port, such as http://proxy.internal:3128")
    return url


#: The URL of an HTTP proxy, perhaps with a user and a password, or ``direct``.
ProxyUrl = Annotated[SecretStr, AfterValidator(_check_proxy)]


class Group(BaseModel):
    """A section of ``filmgate.toml``. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConnectionSettings(Group):
    """One account at a provider: its adapter, URL, credential and limits."""

    provider: Name
    base_url: AnyHttpUrl | None = None
    api_key: SecretStr | None = None
    profile: Name | None = Field(default=None, description="the API dialect of an openai_compatible server")
    models: tuple[str, ...] | None = Field(default=None, description="models served; all of the provider's by default")
    callback_secret: SecretStr | None = Field(
        default=None, description="secret with which the provider signs callbacks"
    )
    max_concurrent: int = Field(default=5, ge=1, description="concurrent submissions")
    requests_per_minute: int | None = Field(default=None, ge=1, description="paid requests in any 60 seconds")
    poll_interval: Seconds | None = Field(
        default=None, description="seconds between two polls of a job; the adapter's own by default"
    )
    timeout: Seconds = Field(default=30, description="timeout of a status request in seconds")
    visibility_delay: Seconds | None = Field(
        default=None,
        description="seconds until a new job must appear in the provider's list; the adapter's own by default",
    )
    lookup_proves_absence: bool | None = Field(
        default=None,
        description="whether a submission whose reply was lost and that the provider does not list was never accepted, "
        "and may be retried; false for several servers behind one address; the adapter's own by default",
    )
    exclusive_account: bool = Field(default=False, description="whether this gateway alone uses the account")
    create_encoding: Literal["json", "multipart"] | None = Field(
        default=None, description="encoding of create requests to an openai_compatible server; the profile's by default"
    )
    seconds_type: Literal["string", "integer"] | None = Field(
        default=None, description="JSON type of `seconds` for an openai_compatible server; the profile's by default"
    )
    private_results: bool = Field(
        default=False, description="allow video URLs at private addresses, such as a private object store"
    )
    proxy: ProxyUrl | None = Field(
        default=None, description="URL of another proxy, or `direct`; `egress.proxy` by default"
    )


class InputRole(StrEnum):
    """What an input is for."""

    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"
    REFERENCE_IMAGE = "reference_image"


class InputSettings(Group):
    """What a model takes in one role: how many files, and which."""

    most: int = Field(default=1, ge=1, le=16)
    formats: tuple[Literal["jpg", "png", "webp"], ...] = Field(default=("jpg", "png", "webp"), min_length=1)
    max_bytes: int = Field(default=16_777_216, ge=1)
    min_side: int = Field(default=1, ge=1, description="pixels of the shorter side")
    narrowest: float | None = Field(default=None, gt=0, description="the least width in heights")
    widest: float | None = Field(default=None, gt=0, description="the largest width in heights")
    same_size: bool = Field(default=False, description="whether it must have the size of the video")
    needs: tuple[InputRole, ...] = Field(default=(), description="roles that must be there, too")
    excludes: tuple[InputRole, ...] = Field(default=(), description="roles that must not be there")


class ModelSettings(Group):
    """One model of the catalogue: its parameters and prices.

    The key of its table is the name that callers send; ``upstream`` is the provider's name.
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
    options: tuple[str, ...] = Field(default=(), description="provider_options that are passed through")
    inputs: dict[InputRole, InputSettings] = Field(
        default_factory=dict, description="the inputs that it takes, by role"
    )
    needs_input: bool = Field(default=False, description="whether it makes no video from a prompt alone")
    usd_per_second: Decimal | dict[str, Decimal] | None = Field(
        default=None, description="one price, or one by size; unset means unknown"
    )
    typical_seconds: Seconds = Field(default=120, description="typical render time in seconds")
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


#: The variables of credentials.
CREDENTIAL = re.compile(r"FILMGATE_CONNECTION_\w+_(API_KEY|CALLBACK_SECRET)")


def credential_variable(connection: str) -> str:
    """The environment variable of a connection's API key."""
    return f"FILMGATE_CONNECTION_{connection.upper().replace('-', '_')}_API_KEY"


def callback_variable(connection: str) -> str:
    """The environment variable of a connection's callback secret."""
    return f"FILMGATE_CONNECTION_{connection.upper().replace('-', '_')}_CALLBACK_SECRET"
