"""Encryption at rest and signing keys, all derived from the ``secret_key`` of the settings.

A value is encrypted with Fernet (AES-128-CBC and HMAC-SHA256, from ``cryptography``) under a key that is derived by
HKDF-SHA256 from the secret key, the purpose and the context. So a value that is copied to another row or column does
not decrypt there. ``old_secret_keys`` still decrypt: see docs/operations.md, "Rotate the secret key".
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode, want_bytes

from app.settings import Settings

KEY_BYTES = 32
#: The first byte of a value of version 0.1: ``version (1 byte) · nonce (12) · AES-256-GCM ciphertext and tag``.
VERSION_1 = b"\x01"
NONCE_BYTES = 12


class DecryptionError(Exception):
    """The value was encrypted with another secret key, for another purpose or context, or it is damaged."""

    def __init__(self) -> None:
        super().__init__("a stored secret cannot be decrypted; was it stored with another FILMGATE_SECRET_KEY?")


class Encryptor:
    """Encrypts and decrypts small values, and derives signing keys.

    Values are encrypted with ``secret_key``; those that were encrypted with one of ``old_secret_keys`` still decrypt.
    """

    def __init__(self, secret_key: str, old_secret_keys: Sequence[str] = ()) -> None:
        self._secret_keys = [key.encode() for key in (secret_key, *old_secret_keys)]

    @classmethod
    def of(cls, settings: Settings) -> "Encryptor":
        """With the keys of the settings."""
        old = [key.get_secret_value() for key in settings.old_secret_keys]
        return cls(settings.secret_key.get_secret_value(), old)

    def encrypt(self, purpose: str, plaintext: bytes, context: bytes = b"") -> bytes:
        """``plaintext``, encrypted. ``context`` names the row it belongs to, such as an account id."""
        return self._fernet(purpose, context).encrypt(plaintext)

    def decrypt(self, purpose: str, encrypted: bytes, context: bytes = b"") -> bytes:
        """What :meth:`encrypt` was given.

        Raises:
            DecryptionError: none of the secret keys decrypts it for this purpose and context.
        """
        if encrypted[:1] == VERSION_1:
            return self._decrypt_version_1(purpose, encrypted, context)
        try:
            return self._fernet(purpose, context).decrypt(encrypted)
        except InvalidToken:
            raise DecryptionError from None

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Keys of 32 bytes for signatures, never used to encrypt: oldest first, the last one signs."""
        return [_derive(key, f"filmgate/v1/derive/{purpose}".encode()) for key in reversed(self._secret_keys)]

    def _fernet(self, purpose: str, context: bytes) -> MultiFernet:
        info = b"filmgate/v2/encrypt/" + _bound(purpose, context)
        return MultiFernet([Fernet(urlsafe_b64encode(_derive(key, info))) for key in self._secret_keys])

    def _decrypt_version_1(self, purpose: str, encrypted: bytes, context: bytes) -> bytes:
        nonce, ciphertext = encrypted[1 : 1 + NONCE_BYTES], encrypted[1 + NONCE_BYTES :]
        for key in self._secret_keys:
            cipher = AESGCM(_derive(key, f"filmgate/v1/seal/{purpose}".encode()))
            try:
                return cipher.decrypt(nonce, ciphertext, VERSION_1 + _bound(purpose, context))
            except (InvalidTag, ValueError):  # a nonce that was cut is a ValueError
                continue
        raise DecryptionError


class KeySigner(Signer):
    """HMAC-SHA256 signatures under several keys: the last one signs, all of them verify."""

    def __init__(self, keys: Sequence[bytes], salt: str) -> None:
        super().__init__(list(keys), salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)

    def verify_signature(self, value: str | bytes, sig: str | bytes) -> bool:
        """Whether ``sig`` is the signature of ``value``, spelled as it was made.

        Base64 reads several spellings as the same bytes; itsdangerous accepts all of them.
        """
        return super().verify_signature(value, sig) and base64_encode(base64_decode(sig)) == want_bytes(sig)


def _derive(secret_key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret_key)


def _bound(purpose: str, context: bytes) -> bytes:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    name = purpose.encode()
    return len(name).to_bytes(2, "big") + name + context
