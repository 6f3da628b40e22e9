"""Connection settings: the address, the credential and the dialect of an upstream account."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.providers.http_clients import Clients
from app.providers.transport import Transport


@dataclass(frozen=True, slots=True)
class Access:
    """The address and credentials of a connection, as configured by the operator. ``timeout`` is seconds.

    ``callback_secret`` verifies the provider's callbacks. ``private_results``: videos may come from private addresses
    other than ``base_url``, such as a private object store. ``exclusive_account``: only this gateway submits to the
    account. ``create_encoding`` and ``seconds_type`` override the profile of an OpenAI-compatible server. ``proxy`` is
    the URL of the connection's own, or "direct".
    """

    base_url: str | None = None
    credential: str | None = field(default=None, repr=False)
    profile: str | None = None
    timeout: float = 30
    private_results: bool = False
    callback_secret: str | None = field(default=None, repr=False)
    exclusive_account: bool = False
    create_encoding: str | None = None
    seconds_type: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def transport(self, clients: Clients, base_url: str, headers: Mapping[str, str]) -> Transport:
        """A transport to the connection. ``headers`` are sent with every authorised request."""
        return Transport(
            clients,
            base_url,
            headers,
            timeout=self.timeout,
            private_results=self.private_results,
            secrets=[secret for secret in (self.credential, self.callback_secret) if secret],
            proxy=self.proxy,
        )

    def refuse_dialect_settings(self, provider: str) -> None:
        """Reject dialect settings for a provider with a single dialect.

        Raises:
            BadAccess: a dialect setting is present.
        """
        for key in ("profile", "create_encoding", "seconds_type"):
            if getattr(self, key) is not None:
                raise BadAccess(key, f"{provider} has one dialect only; remove it")


class BadAccess(Exception):
    """A connection setting is missing or invalid. ``key`` names the setting."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message
