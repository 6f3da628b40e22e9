"""A running gateway, and the parts of one."""

from tests.support.callback_fixtures import caller, front, kling, quiet, reachable, signing_sandbox
from tests.support.gateway_fixtures import gateway, plain_logs, sandbox_url, settings, stranger
from tests.support.scripted_runway import first, second
from tests.support.submit_fixtures import office

__all__ = [
    "caller",
    "first",
    "front",
    "gateway",
    "kling",
    "office",
    "plain_logs",
    "quiet",
    "reachable",
    "sandbox_url",
    "second",
    "settings",
    "signing_sandbox",
    "stranger",
]
