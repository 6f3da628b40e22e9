"""The URLs that providers call back."""

import hashlib
import hmac
from base64 import b32encode
from uuid import UUID

from app.ids import Prefix, decode, encode

PROOF_CHARACTERS = 32  # of base32: 160 bits


class CallbackUrls:
    """Makes the URLs and knows them again. ``public_url`` None: nobody can reach us, so there are none."""

    def __init__(self, key: bytes, public_url: str | None) -> None:
        self._key = key
        self._public_url = public_url.rstrip("/") if public_url else None

    def of(self, upstream: str, submission_id: UUID) -> str | None:
        """Where a connection's provider reports on a submission."""
        if self._public_url is None:
            return None
        return f"{self._public_url}/v1/callbacks/{upstream}/{self._token(upstream, submission_id)}"

    def submission_of(self, upstream: str, token: str) -> UUID | None:
        """The submission that a token names; None when we did not make it for this connection."""
        submission_id = decode(Prefix.SUBMISSION, token.partition(".")[0])
        if submission_id is None:
            return None
        ours = self._token(upstream, submission_id)
        return submission_id if hmac.compare_digest(ours.encode(), token.encode()) else None

    def _token(self, upstream: str, submission_id: UUID) -> str:
        proof = hmac.digest(self._key, upstream.encode() + b"\0" + submission_id.bytes, hashlib.sha256)
        return f"{encode(Prefix.SUBMISSION, submission_id)}.{b32encode(proof).decode().lower()[:PROOF_CHARACTERS]}"
