"""A running gateway."""

from tests.support.gateway_fixtures import gateway, plain_logs, sandbox_url, settings

__all__ = ["gateway", "plain_logs", "sandbox_url", "settings"]
