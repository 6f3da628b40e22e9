"""What a key may do."""

from enum import StrEnum


class Scope(StrEnum):
    """One permission. A key carries a set of them; there is no order and no wildcard."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    ASSETS_READ = "assets:read"
    WEBHOOKS_READ = "webhooks:read"
    METRICS_READ = "metrics:read"


ALL = frozenset(Scope)
#: What a key may do when nothing is said: everything of its own account. Figures are of the whole gateway.
DEFAULT = ALL - {Scope.METRICS_READ}
