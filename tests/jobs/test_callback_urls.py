"""Callback tokens: what they name, for whom, and across a rotation of the secret key."""

import string

import pytest

from app.ids import Prefix, encode, new_id
from app.jobs.callback_urls import CallbackUrls

OLD, NEW = b"o" * 32, b"n" * 32
PUBLIC = "https://gateway.example"


def token(urls: CallbackUrls, connection: str = "kling") -> tuple[str, object]:
    submission_id = new_id()
    url = urls.of(connection, submission_id)
    assert url is not None
    assert url.startswith(f"{PUBLIC}/v1/callbacks/{connection}/{encode(Prefix.SUBMISSION, submission_id)}.")
    return url.rpartition("/")[2], submission_id


def test_token_names_its_submission_for_its_connection_only() -> None:
    urls = CallbackUrls([NEW], PUBLIC)
    made, submission_id = token(urls)
    assert urls.submission_of("kling", made) == submission_id
    assert urls.submission_of("another", made) is None


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1], lambda t: t + "A", lambda t: t.split(".")[0], lambda _: "", str.upper]
)
def test_changed_token_names_nothing(spoil: object) -> None:
    urls = CallbackUrls([NEW], PUBLIC)
    made, _ = token(urls)
    assert callable(spoil)
    assert urls.submission_of("kling", spoil(made)) is None


def test_token_has_one_spelling() -> None:
    """The last character of a signature in Base64 has bits that mean nothing."""
    urls = CallbackUrls([NEW], PUBLIC)
    made, _ = token(urls)
    spelled = [made[:-1] + last for last in string.ascii_letters + string.digits + "-_"] + [f"{made}="]
    assert [one for one in spelled if urls.submission_of("kling", one) is not None] == [made]


def test_token_stays_valid_while_its_key_is_an_old_one() -> None:
    made, submission_id = token(CallbackUrls([OLD], PUBLIC))
    assert CallbackUrls([OLD, NEW], PUBLIC).submission_of("kling", made) == submission_id
    assert CallbackUrls([NEW], PUBLIC).submission_of("kling", made) is None


def test_without_a_public_url_there_is_no_callback() -> None:
    assert CallbackUrls([NEW], None).of("kling", new_id()) is None
