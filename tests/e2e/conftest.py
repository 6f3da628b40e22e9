"""A running gateway."""

from tests.support.running import gateway, plain_logs, sandbox_url, settings

__all__ = ["gateway", "plain_logs", "sandbox_url", "settings"]
