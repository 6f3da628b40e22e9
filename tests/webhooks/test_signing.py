"""Any Standard Webhooks library verifies what we sign."""

import base64
from datetime import timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.clock import utc_now
from app.webhooks.signing import new_secret, signed_headers

BODY = '{"type":"job.succeeded","data":{"title":"video"}}'


def test_signature_verifies_with_the_reference_library() -> None:
    secret = new_secret()
    headers = signed_headers([secret], "evt_1", utc_now(), BODY)
    assert Webhook(secret).verify(BODY, headers) == {"type": "job.succeeded", "data": {"title": "video"}}
    assert headers["webhook-id"] == "evt_1"


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_nothing_signed_can_be_changed(changed: str) -> None:
    secret, now = new_secret(), utc_now()
    headers = signed_headers([secret], "evt_1", now, BODY)
    other = signed_headers([new_secret()], "evt_2", now + timedelta(seconds=1), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, {**headers, changed: other[changed]})
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + " ", headers)


def test_with_two_secrets_either_one_verifies() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers([new, old], "evt_1", utc_now(), BODY)
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers)


def test_secret_has_the_length_and_form_of_the_standard() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        prefix, _, encoded = secret.partition("_")
        assert prefix == "whsec"
        assert 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
