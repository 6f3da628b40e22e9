"""URLs by which providers fetch the files of callers: signed, without a key, valid until a given time."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from itsdangerous import BadSignature

from app.clock import Clock, utc_now
from app.ids import Prefix, decode, encode
from app.infra.encryption import KeySigner

SALT = "filmgate input url"


class FileUrls:
    """Makes and verifies such URLs. Without a ``public_url`` providers cannot reach the gateway: there are none.

    The token in a URL is the file's id and the time, signed; nothing is stored, and the same arguments give the same
    URL. The last of ``keys`` signs, all of them verify.
    """

    def __init__(self, keys: Sequence[bytes], public_url: str | None, clock: Clock = utc_now) -> None:
        self._signer = KeySigner(keys, SALT)
        self._public_url = public_url.rstrip("/") if public_url else None
        self._clock = clock

    @property
    def exist(self) -> bool:
        return self._public_url is not None

    def of(self, file_id: UUID, name: str, until: datetime) -> str | None:
        """The URL of a file; it ends with ``name``, because some providers read the type from it."""
        if self._public_url is None:
            return None
        token = self._signer.sign(f"{encode(Prefix.FILE, file_id)}.{int(until.timestamp())}").decode()
        return f"{self._public_url}/v1/inputs/{token}/{name}"

    def file_of(self, token: str) -> UUID | None:
        """The file that a token names; None if it was not signed here, or has expired."""
        try:
            file_id, _, until = self._signer.unsign(token).decode().partition(".")
        except BadSignature:
            return None
        return decode(Prefix.FILE, file_id) if int(until) > self._clock().timestamp() else None
