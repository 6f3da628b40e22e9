"""Secrets at rest: one key for each purpose, and nothing opens where it does not belong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.infra.encryption import Sealer, SealingError

KEY = "a secret key of more than thirty-two characters"
SECRET = b"whsec_canary"


@given(st.binary(max_size=200), st.text(max_size=20), st.binary(max_size=40))
def test_what_was_sealed_opens_again(plaintext: bytes, purpose: str, context: bytes) -> None:
    sealer = Sealer(KEY)
    assert Sealer(KEY).open(purpose, sealer.seal(purpose, plaintext, context), context) == plaintext


def test_sealed_value_shows_nothing_of_the_secret_and_is_new_each_time() -> None:
    sealer = Sealer(KEY)
    first, second = sealer.seal("webhook", SECRET), sealer.seal("webhook", SECRET)
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
def test_nothing_opens_with_another_key_purpose_or_context(key: str, purpose: str, context: bytes) -> None:
    sealed = Sealer(KEY).seal("webhook", SECRET, b"account 1")
    with pytest.raises(SealingError, match="FILMGATE_SECRET_KEY"):
        Sealer(key).open(purpose, sealed, context)


def test_every_changed_bit_and_every_cut_is_noticed() -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal("webhook", SECRET)
    flipped = [
        sealed[:place] + bytes([sealed[place] ^ 1 << bit]) + sealed[place + 1 :]
        for place in range(len(sealed))
        for bit in range(8)
    ]
    cut = [sealed[:length] for length in range(len(sealed))]
    for damaged in [*flipped, *cut, sealed + b"\0"]:
        with pytest.raises(SealingError):
            sealer.open("webhook", damaged)


def test_derived_keys_differ_by_purpose_and_by_secret_key() -> None:
    derived = Sealer(KEY).derive("signed url")
    assert derived == Sealer(KEY).derive("signed url")
    assert len({derived, Sealer(KEY).derive("cursor"), Sealer(KEY + "!").derive("signed url")}) == 3
    assert len(derived) == 32


def test_error_tells_nothing_but_what_to_look_at() -> None:
    with pytest.raises(SealingError) as raised:
        Sealer(KEY).open("webhook", SECRET)
    assert "canary" not in str(raised.value)
    assert KEY not in str(raised.value)
    assert KEY not in repr(Sealer(KEY))
