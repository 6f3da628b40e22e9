"""A running gateway, and the parts of one."""

from tests.support.calling import caller, front, kling, quiet, reachable, signing_sandbox
from tests.support.desk import office
from tests.support.running import gateway, plain_logs, sandbox_url, settings
from tests.support.studio import first, second

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
]
