"""What a plan must not do, where a table keeps growing: read all of it, or much more than it is asked for."""

from collections.abc import Iterator

from tests.plans.auto_explain import Explained, Node

#: Grow with every job.
GROWING = frozenset(
    {"jobs", "submissions", "events", "webhook_deliveries", "webhook_attempts", "assets", "idempotency_keys"}
    | {"files", "file_uses"}
)
#: Grow with every customer.
GROWING_SLOWLY = frozenset({"accounts", "api_keys"})
#: More rows than are live in these tests, and than any batch has.
MANY = 2500


def faults_of(explained: Explained) -> Iterator[str]:
    """What is wrong with how a statement was answered, in words."""
    for node in explained.nodes:
        fault = _fault(node)
        if fault:
            yield f"{fault}: {explained.statement}"


def indexes_of(explained: Explained) -> set[str]:
    """Those that were used."""
    return {node["Index Name"] for node in explained.nodes if "Index Name" in node}


def _fault(node: Node) -> str | None:
    relation, index = node.get("Relation Name"), node.get("Index Name")
    kind = node["Node Type"]
    read = node.get("Actual Loops", 1) * (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0))
    if kind == "Seq Scan" and relation in GROWING | GROWING_SLOWLY:
        return f"reads all of {relation}"
    if relation in GROWING and read > MANY:
        return f"reads {read:.0f} rows of {relation} by {index}"
    return None
