"""Encryption at rest: every purpose has its own key, all derived from the one ``secret_key`` of the settings.

A sealed value is ``version (1 byte) · nonce (12) · AES-256-GCM ciphertext and tag``. It opens only with the same secret
key, the same purpose and the same context, so a value copied into another row or another column opens nowhere.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12


class SealingError(Exception):
    """The value does not open: sealed with another secret key, for another purpose or context, or damaged."""

    def __init__(self) -> None:
        super().__init__("a stored secret does not open; is FILMGATE_SECRET_KEY the one it was stored with?")


class Sealer:
    """Seals and opens small values, and derives keys. ``secret_key`` is ``settings.secret_key``."""

    def __init__(self, secret_key: str) -> None:
        self._secret_key = secret_key.encode()

    def seal(self, purpose: str, plaintext: bytes, context: bytes = b"") -> bytes:
        """``plaintext``, encrypted. ``context`` names the row it belongs to, such as an account id."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return VERSION + nonce + self._cipher(purpose).encrypt(nonce, plaintext, _bound_to(purpose, context))

    def open(self, purpose: str, sealed: bytes, context: bytes = b"") -> bytes:
        """What :meth:`seal` was given.

        Raises:
            SealingError: it does not open.
        """
        version, nonce, ciphertext = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        if version != VERSION or len(nonce) != NONCE_BYTES:
            raise SealingError
        try:
            return self._cipher(purpose).decrypt(nonce, ciphertext, _bound_to(purpose, context))
        except InvalidTag:
            raise SealingError from None

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for signing, such as for URLs: never one that encrypts."""
        return self._key("derive", purpose)

    def _cipher(self, purpose: str) -> AESGCM:
        return AESGCM(self._key("seal", purpose))

    def _key(self, use: str, purpose: str) -> bytes:
        info = f"filmgate/v1/{use}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._secret_key)


def _bound_to(purpose: str, context: bytes) -> bytes:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    name = purpose.encode()
    return VERSION + len(name).to_bytes(2, "big") + name + context
