"""Secrets at rest: one key for each purpose and row, key rotation, and values of version 0.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.infra.encryption import DecryptionError, Encryptor

KEY = "a secret key of more than thirty-two characters"
OLD_KEY = "the secret key before it, of more than thirty-two characters"
SECRET = b"whsec_canary"
STORED_BY_0_1 = "0192caaf5f4419d7c36fe26dd0015c4f1ecb18e36d066fe452af21e327f689086743750059246915e9"


@given(st.binary(max_size=200), st.text(max_size=20), st.binary(max_size=40))
def test_encrypted_value_decrypts_again(plaintext: bytes, purpose: str, context: bytes) -> None:
    encryptor = Encryptor(KEY)
    assert Encryptor(KEY).decrypt(purpose, encryptor.encrypt(purpose, plaintext, context), context) == plaintext


def test_encrypted_value_shows_nothing_of_the_secret_and_is_new_each_time() -> None:
    encryptor = Encryptor(KEY)
    first, second = encryptor.encrypt("webhook", SECRET), encryptor.encrypt("webhook", SECRET)
    assert first != second
    assert SECRET not in first


@pytest.mark.parametrize(
    ("key", "purpose", "context"),
    [
        (KEY + "!", "webhook", b"account 1"),
        (KEY, "webhooks", b"account 1"),
        (KEY, "webhook", b"account 2"),
        (KEY, "webhook", b""),
        (KEY, "webhooka", b"ccount 1"),
    ],
    ids=["another key", "another purpose", "another context", "no context", "another border"],
)
def test_nothing_decrypts_with_another_key_purpose_or_context(key: str, purpose: str, context: bytes) -> None:
    encrypted = Encryptor(KEY).encrypt("webhook", SECRET, b"account 1")
    with pytest.raises(DecryptionError, match="FILMGATE_SECRET_KEY"):
        Encryptor(key).decrypt(purpose, encrypted, context)


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    encryptor = Encryptor(KEY)
    encrypted = encryptor.encrypt("webhook", SECRET)
    last = len(encrypted.rstrip(b"=")) - 1  # Base64: this character has bits that mean nothing
    changed = [encrypted[:place] + bytes([encrypted[place] ^ 4]) + encrypted[place + 1 :] for place in range(last)]
    cut = [encrypted[:length] for length in range(len(encrypted) - 2)]
    for damaged in [*changed, *cut]:
        with pytest.raises(DecryptionError):
            encryptor.decrypt("webhook", damaged)


def test_old_secret_keys_decrypt_and_the_new_one_encrypts() -> None:
    old, rotating, new = Encryptor(OLD_KEY), Encryptor(KEY, [OLD_KEY]), Encryptor(KEY)
    assert rotating.decrypt("webhook", old.encrypt("webhook", SECRET)) == SECRET
    assert new.decrypt("webhook", rotating.encrypt("webhook", SECRET)) == SECRET
    with pytest.raises(DecryptionError):
        new.decrypt("webhook", old.encrypt("webhook", SECRET))


def test_value_of_version_0_1_decrypts() -> None:
    # Written by 0.1.0: Sealer(OLD_KEY).seal("webhook", SECRET, b"account 1").
    stored = bytes.fromhex(STORED_BY_0_1)
    assert Encryptor(OLD_KEY).decrypt("webhook", stored, b"account 1") == SECRET
    assert Encryptor(KEY, [OLD_KEY]).decrypt("webhook", stored, b"account 1") == SECRET
    for damaged in (stored[:-1], stored[:5], stored[:1], stored[:-1] + bytes([stored[-1] ^ 1])):
        with pytest.raises(DecryptionError):
            Encryptor(OLD_KEY).decrypt("webhook", damaged, b"account 1")
    with pytest.raises(DecryptionError):
        Encryptor(OLD_KEY).decrypt("webhook", stored, b"account 2")


def test_signing_keys_differ_by_purpose_and_by_secret_key_and_the_current_one_is_last() -> None:
    old, current = Encryptor(KEY, [OLD_KEY]).signing_keys("signed url")
    assert [old] == Encryptor(OLD_KEY).signing_keys("signed url")
    assert [current] == Encryptor(KEY).signing_keys("signed url")
    assert len({old, current, *Encryptor(KEY).signing_keys("cursor")}) == 3
    assert len(current) == 32


def test_error_tells_nothing_but_what_to_look_at() -> None:
    with pytest.raises(DecryptionError) as raised:
        Encryptor(KEY).decrypt("webhook", SECRET)
    assert "canary" not in str(raised.value)
    assert KEY not in str(raised.value)
    assert KEY not in repr(Encryptor(KEY))
