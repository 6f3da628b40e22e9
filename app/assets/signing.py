"""URLs that let anybody read one asset for a while, without a key.

``?expires=<Unix time>&signature=<base64url>``: HMAC-SHA256 over the asset's id and the time, so that a URL opens
nothing else and cannot be made to live longer.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from uuid import UUID

from app.clock import Clock
from app.errors import Forbidden

PURPOSE = b"filmgate asset url 1\n"
_UNIX_TIME = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class UrlSigner:
    """``key`` is used for nothing else; ``lifetime`` is how long a URL lives."""

    def __init__(self, key: bytes, lifetime: timedelta, clock: Clock) -> None:
        self._key = key
        self._lifetime = lifetime
        self._clock = clock

    def query(self, asset_id: UUID, not_after: datetime) -> str:
        """The query string of a signed URL, which ends with the asset at the latest."""
        expires = str(int(min(self._clock() + self._lifetime, not_after).timestamp()))
        return f"expires={expires}&signature={self._signature(asset_id, expires)}"

    def check(self, asset_id: UUID, expires: str, signature: str) -> None:
        """Accept a signed URL.

        Raises:
            Forbidden: it was not made by us for this asset, or its time is over.
        """
        expected = self._signature(asset_id, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()) or not _UNIX_TIME.fullmatch(expires):
            raise Forbidden("The signature of this URL is not valid; copy the whole URL, or ask for a new one.")
        if int(expires) <= self._clock().timestamp():
            raise Forbidden("This URL has expired; ask for a new one.")

    def _signature(self, asset_id: UUID, expires: str) -> str:
        message = PURPOSE + asset_id.bytes + expires.encode()
        return urlsafe_b64encode(hmac.digest(self._key, message, hashlib.sha256)).rstrip(b"=").decode()
