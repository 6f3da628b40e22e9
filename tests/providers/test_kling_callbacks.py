"""Kling's callbacks: what makes one believable, down to the bytes that are signed."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.providers.base import Access, Callback
from app.providers.http_clients import Clients
from app.providers.kling import Kling

# The test vector that Kling publishes.
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
SENT_AT = 1781080794
BODY = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'
SIGNED = {
    "webhook-id": "9876543210",
    "webhook-timestamp": str(SENT_AT),
    "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
}


def listening(clients: Clients, secret: str | None = SECRET, now: float = SENT_AT) -> Kling:
    """An adapter at some moment."""
    transport = Kling.open(Access(credential="k"), clients).transport
    return Kling(transport, secret, now=lambda: now)


def test_published_test_vector_is_accepted(clients: Clients) -> None:
    assert listening(clients).read_callback(SIGNED, BODY) == Callback("1234567890")


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(-301, False), (-300, True), (299.9, True), (300, True), (300.5, False), (10**6, False)]
)
def test_callback_is_only_good_for_five_minutes(seconds: float, accepted: bool, clients: Clients) -> None:
    read = listening(clients, now=SENT_AT + seconds).read_callback(SIGNED, BODY)
    assert (read is not None) is accepted


@pytest.mark.parametrize(
    ("signatures", "accepted"),
    [
        ("v1,AAAA {}", True),
        ("{} v1,AAAA", True),
        ("v1a,AAAA {}", True),
        ("  {}", True),
        ("", False),
        (" ", False),
        ("v1,", False),
        ("v1,AAAA v1,BBBB", False),
        ("v2,{}", False),
        ("{}x", False),
        ("é\udc80 v1,ÿ", False),
    ],
)
def test_one_good_signature_of_several_will_do(signatures: str, accepted: bool, clients: Clients) -> None:
    headers = {**SIGNED, "webhook-signature": signatures.format(SIGNED["webhook-signature"])}
    assert (listening(clients).read_callback(headers, BODY) is not None) is accepted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"webhook-id": "9876543211"},
        {"webhook-id": "é\udc80"},
        {"webhook-timestamp": str(SENT_AT + 1)},
        {"webhook-timestamp": f"{SENT_AT}.0"},
        {"webhook-timestamp": f" {SENT_AT}"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "١٧٨١٠٨٠٧٩٤"},
    ],
)
def test_callback_with_other_headers_says_nothing(headers: dict[str, str], clients: Clients) -> None:
    changed = {**SIGNED, **headers} if headers else {}
    assert listening(clients).read_callback(changed, BODY) is None


def test_secret_without_its_prefix_is_the_same(clients: Clients) -> None:
    bare = SECRET.removeprefix("whsec_")
    assert listening(clients, bare).read_callback(SIGNED, BODY) == Callback("1234567890")


@given(body=st.binary(max_size=200), headers=st.dictionaries(st.sampled_from(sorted(SIGNED)), st.text(max_size=50)))
def test_no_callback_makes_it_raise(body: bytes, headers: Mapping[str, str], clients: Clients) -> None:
    assert listening(clients).read_callback(headers, body) is None


@given(body=st.binary(max_size=200).map(lambda noise: b'{"id":"1","x":"' + noise.hex().encode() + b'"}'))
def test_signatures_are_those_of_the_reference_library(body: bytes, clients: Clients) -> None:
    at = datetime.fromtimestamp(SENT_AT, UTC)
    signed = {**SIGNED, "webhook-signature": Webhook(SECRET).sign(SIGNED["webhook-id"], at, body.decode())}
    assert listening(clients).read_callback(signed, body) == Callback("1")
