"""A gateway in a hurry: every wait of the product as short as it can be made and still mean something."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from app.embedded.processes import LOCALHOST
from app.settings import Settings
from tests.support.settings import MODEL, gateway_settings

API_KEY = "sandbox-key"
LEASE = 1.0
CALLBACK_SECRET = "whsec_" + "Zm9yIHRoZSBmYXVsdCBzdWl0ZSwgYW5kIG5vYm9keSBlbHNl"
#: Longer than any lease: of a claim, of a paid request, of a webhook.
PAST_EVERY_LEASE = 4.5

GROUPS: dict[str, dict[str, Any]] = {
    "database": {"command_timeout": 3, "connect_timeout": 2, "pool_timeout": 3},
    "redis": {"socket_timeout": 0.3},
    "worker": {"sweep_interval": 0.2, "lease": LEASE, "shutdown_grace": 5}
    | {"submissions": 4, "polls": 8, "stores": 2, "deliveries": 4},
    "jobs": {"submit_timeout": 1, "submit_margin": 1, "lookup_pause": 0.3, "unknown_wait": 6}
    | {"lost_after": 1, "watch_for": 4, "break_after": 10, "break_pause": 0.3, "longest_break": 1},
    "webhooks": {"delays": (0, 0.2, 0.2, 0.3, 0.5, 0.5, 1, 1, 1, 2, 2, 2, 4, 4, 4), "timeout": 1},
}
UPSTREAM = {
    "api_key": API_KEY,
    "poll_interval": 0.1,
    "max_concurrent": 30,
    "visibility_delay": 2,  # a request that arrives late does so before this is over, also on a busy machine
    "timeout": 1,
}
#: Servers with ``/videos``: the end of the connection's name, the sandbox's dialect, the model, what we know of it. The
#: list of the first one proves absence by our word, that of the second, on the same account, proves nothing.
VIDEO_SERVERS: Sequence[tuple[str, str, str, Mapping[str, Any]]] = (
    ("", "openai", "sandbox/video", {"profile": "openai", "lookup_proves_absence": True}),
    ("-plain", "openai", "plain/video", {"profile": "openai"}),
    ("-vllm", "vllm", "vllm/video", {"profile": "vllm_omni"}),
    ("-sglang", "sglang", "sglang/video", {"profile": "sglang", "exclusive_account": True}),
    ("-newapi", "newapi", "newapi/video", {"profile": "newapi"}),
)
#: A server whose clock is 7 minutes slow, behind a proxy whose clock is right: no record's time proves anything there.
CLOCKS = {"sglang": -420.0}
MODELS = {
    "sandbox/video": MODEL,
    "plain/video": {**MODEL, "upstream": "sandbox-plain"},  # the two share an account: a name tells their records apart
    "vllm/video": {**MODEL, "seed": True},
    "sglang/video": {**MODEL, "seed": True},
    "newapi/video": {**MODEL, "seed": True},
}
#: Waits that no setting shortens, because in production nobody needs to.
HASTE: Mapping[str, float | timedelta] = {
    "app.jobs.engine.preparer.FIRST_RETRY_SECONDS": 0.2,
    "app.jobs.engine.preparer.LONGEST_RETRY_SECONDS": 2,
    "app.jobs.engine.requeue.FIRST_RETRY_SECONDS": 0.2,
    "app.jobs.engine.requeue.LONGEST_RETRY_SECONDS": 2,
    "app.jobs.engine.resolver.LONGEST_PAUSE_SECONDS": 1,
    "app.jobs.engine.storer.FIRST_RETRY_SECONDS": 0.2,
    "app.jobs.engine.storer.LONGEST_RETRY_SECONDS": 1,
    "app.jobs.engine.poller.CANCEL_PAUSE_SECONDS": 0.2,
    "app.jobs.engine.poller.LONGEST_PAUSE_SECONDS": 1,
    "app.webhooks.delivery.LEASE_MARGIN_SECONDS": 1,
    # One clock here. A record that nobody may claim leaves look-ups for others in doubt, and for no longer than this.
    "app.providers.search.CLOCK_SLACK": timedelta(seconds=3),
}


def hurry() -> None:
    """Shorten the waits of this process that are no settings."""
    for path, value in HASTE.items():
        module, _, name = path.rpartition(".")
        holder = import_module(module)
        assert hasattr(holder, name), f"{path} is gone: shorten what has taken its place"
        setattr(holder, name, value)


def settings(*, postgres_url: str, redis_url: str, sandbox_url: str, api_port: int, directory: Path) -> Settings:
    """Of API and workers."""
    return gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=directory,
        **GROUPS,
        api={"port": api_port, "shutdown_grace": 2, "public_url": f"http://{LOCALHOST}:{api_port}"},
        assets={"spool": directory / "spool", "fetch_tries": 4},
        connections=_connections(sandbox_url),
        models=MODELS,
    )


def _connections(sandbox_url: str) -> dict[str, dict[str, Any]]:
    """One for each kind of provider."""
    named = {
        f"sandbox{name}": {
            "provider": "openai_compatible",
            "base_url": f"{sandbox_url}/{server}/v1",
            "models": [model],
            **traits,
            **UPSTREAM,
        }
        for name, server, model, traits in VIDEO_SERVERS
    }
    runway = {"provider": "runway", "base_url": f"{sandbox_url}/runway"}
    kling = {"provider": "kling", "base_url": f"{sandbox_url}/kling", "callback_secret": CALLBACK_SECRET}
    return {**named, "sandbox-runway": {**runway, **UPSTREAM}, "sandbox-kling": {**kling, **UPSTREAM}}
