"""Signatures of webhooks, by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com)."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """A new signing secret, in the form that receivers configure: ``whsec_`` and base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(signing_secrets: Sequence[str], message_id: str, timestamp: datetime, body: str) -> dict[str, str]:
    """The three headers of the standard. ``timestamp`` is the time of this attempt, aware and in UTC.

    With several secrets there is one signature for each: a receiver accepts the message if one of them matches.
    """
    signatures = [Webhook(secret).sign(message_id, timestamp, body) for secret in signing_secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
