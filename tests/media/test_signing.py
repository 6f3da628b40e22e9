"""Signed URLs across a rotation of the secret key."""

import string
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest

from app.errors import Forbidden
from app.ids import new_id
from app.media.signing import UrlSigner

OLD, NEW = b"o" * 32, b"n" * 32
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def signer(*keys: bytes) -> UrlSigner:
    return UrlSigner(keys, HOUR, lambda: NOW)


def check(verifier: UrlSigner, made_by: UrlSigner) -> None:
    asset_id = new_id()
    query = {name: value for name, [value] in parse_qs(made_by.query(asset_id, NOW + HOUR)).items()}
    verifier.check(asset_id, query["expires"], query["signature"])


def test_url_stays_valid_while_its_key_is_an_old_one() -> None:
    check(signer(OLD, NEW), made_by=signer(OLD))
    check(signer(NEW), made_by=signer(OLD, NEW))


def test_signature_has_one_spelling() -> None:
    """The last character of a signature in Base64 has bits that mean nothing."""
    asset_id = new_id()
    query = {name: value for name, [value] in parse_qs(signer(NEW).query(asset_id, NOW + HOUR)).items()}
    made = query["signature"]
    accepted = []
    for last in string.ascii_letters + string.digits + "-_":
        with suppress(Forbidden):
            signer(NEW).check(asset_id, query["expires"], made[:-1] + last)
            accepted.append(made[:-1] + last)
    assert accepted == [made]


def test_url_is_refused_once_its_key_is_removed() -> None:
    with pytest.raises(Forbidden):
        check(signer(NEW), made_by=signer(OLD))
