"""Signed URLs: one asset can be read without an API key until the URL expires.

``?expires=<Unix time>&signature=<base64url>``: HMAC-SHA256 over the asset's id and the time, by itsdangerous, so that
a URL reads no other asset and its lifetime cannot be extended.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from app.clock import Clock
from app.errors import Forbidden
from app.infra.encryption import KeySigner

SALT = "filmgate asset url"
_UNIX_TIME = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class UrlSigner:
    """``keys`` sign nothing else; the last one signs, all verify. ``lifetime`` is how long a URL is valid."""

    def __init__(self, keys: Sequence[bytes], lifetime: timedelta, clock: Clock) -> None:
        self._signer = KeySigner(keys, SALT)
        self._lifetime = lifetime
        self._clock = clock

    def query(self, asset_id: UUID, not_after: datetime) -> str:
        """The query string of a signed URL, which expires no later than the asset."""
        expires = str(int(min(self._clock() + self._lifetime, not_after).timestamp()))
        return f"expires={expires}&signature={self._signer.get_signature(_signed(asset_id, expires)).decode()}"

    def check(self, asset_id: UUID, expires: str, signature: str) -> None:
        """Accept a signed URL.

        Raises:
            Forbidden: the signature is not of this asset and time, or the URL has expired.
        """
        genuine = self._signer.verify_signature(_signed(asset_id, expires), signature.encode())
        if not genuine or not _UNIX_TIME.fullmatch(expires):
            raise Forbidden("The signature of this URL is not valid; copy the whole URL, or ask for a new one.")
        if int(expires) <= self._clock().timestamp():
            raise Forbidden("This URL has expired; ask for a new one.")


def _signed(asset_id: UUID, expires: str) -> bytes:
    return asset_id.bytes + expires.encode()
