"""Callback URLs: where providers report on submissions."""

from collections.abc import Sequence
from uuid import UUID

from itsdangerous import BadSignature

from app.ids import Prefix, decode, encode
from app.infra.encryption import KeySigner

SALT = "filmgate callback "


class CallbackUrls:
    """Makes and verifies callback URLs. Without a ``public_url`` providers cannot reach the gateway: there are none.

    The token in a URL is the submission's id, signed for the connection; nothing is stored. The last of ``keys``
    signs, all of them verify.
    """

    def __init__(self, keys: Sequence[bytes], public_url: str | None) -> None:
        self._keys = list(keys)
        self._public_url = public_url.rstrip("/") if public_url else None

    def of(self, connection: str, submission_id: UUID) -> str | None:
        """The URL at which a connection's provider reports on a submission."""
        if self._public_url is None:
            return None
        token = self._signer(connection).sign(encode(Prefix.SUBMISSION, submission_id)).decode()
        return f"{self._public_url}/v1/callbacks/{connection}/{token}"

    def submission_of(self, connection: str, token: str) -> UUID | None:
        """The submission that a token names; None for a token that was not signed for this connection."""
        try:
            return decode(Prefix.SUBMISSION, self._signer(connection).unsign(token).decode())
        except BadSignature:
            return None

    def _signer(self, connection: str) -> KeySigner:
        return KeySigner(self._keys, SALT + connection)
