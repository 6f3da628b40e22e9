"""A running gateway, and the files that callers give."""

from tests.support.gateway_fixtures import gateway, plain_logs, sandbox_url, settings, stranger

__all__ = ["gateway", "plain_logs", "sandbox_url", "settings", "stranger"]
