"""Scopes: the permissions of an API key."""

from enum import StrEnum


class Scope(StrEnum):
    """One permission. A key carries a set of them; there is no order and no wildcard."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    ASSETS_READ = "assets:read"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    WEBHOOKS_READ = "webhooks:read"
    METRICS_READ = "metrics:read"


ALL = frozenset(Scope)
#: The default scopes: everything within the account. Metrics are excluded, as they cover the whole gateway.
DEFAULT = ALL - {Scope.METRICS_READ}
