"""What an operator says of a connection: where it leads, what opens it, which dialect is spoken there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.providers.transport import Clients, Transport


@dataclass(frozen=True, slots=True)
class Access:
    """Where a connection leads and what opens it, as the operator set it. ``timeout`` is seconds.

    ``callback_secret`` is what the provider signs its callbacks with. ``private_results``: films may come from private
    addresses other than ``base_url``, such as an own object store. ``exclusive_account``: only this gateway
    orders on the account. ``create_encoding`` and ``seconds_type`` overrule the profile of an OpenAI-compatible server.
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

    def transport(self, clients: Clients, base_url: str, headers: Mapping[str, str]) -> Transport:
        """The way there. ``headers`` go along with every authorised request."""
        return Transport(
            clients,
            base_url,
            headers,
            timeout=self.timeout,
            private_results=self.private_results,
            secrets=[secret for secret in (self.credential, self.callback_secret) if secret],
        )

    def refuse_dialect(self, provider: str) -> None:
        """For providers that speak one dialect only.

        Raises:
            BadAccess: a setting of the dialect is given.
        """
        for key in ("profile", "create_encoding", "seconds_type"):
            if getattr(self, key) is not None:
                raise BadAccess(key, f"{provider} has one dialect only; remove it")


class BadAccess(Exception):
    """A connection cannot be opened like this. ``key`` is the setting at fault."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message
