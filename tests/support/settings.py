"""Settings of a whole gateway for one test: everything on loopback, nothing slow."""

from pathlib import Path
from typing import Any

from app.settings import Settings

SECRET = "dev-RdM3pTq9vXz2LbW7yKc5Nf8HjGs4Aa1Ee6Uu0Oo"
MODEL = {
    "provider": "openai_compatible",
    "upstream": "sandbox-video",
    "seconds": list(range(1, 13)),
    "default_seconds": 1,
    "sizes": ["128x96", "96x128", "1280x720"],
    "default_size": "128x96",
    "usd_per_second": "0.01",
    "typical_seconds": 1,
    "inputs": {"first_frame": {"same_size": True}},
}


def gateway_settings(
    *, postgres_url: str, redis_url: str, sandbox_url: str, directory: Path, **groups: dict[str, Any]
) -> Settings:
    """Settings with the sandbox behind every connection; ``groups`` are laid over the sections of that name."""
    upstream = {"api_key": "sandbox-key", "poll_interval": 0.05, "max_concurrent": 20, "visibility_delay": 0.1}
    sections: dict[str, dict[str, Any]] = {
        "database": {"url": postgres_url, "pool_timeout": 60, "command_timeout": 60},
        "redis": {"url": redis_url, "poll_delay": 0.1},
        "api": {"port": 0, "shutdown_grace": 1},
        "worker": {"port": 0, "sweep_interval": 0.2, "lease": 5, "shutdown_grace": 5},
        "jobs": {"submit_timeout": 3},
        "assets": {"store": (directory / "assets").as_uri(), "min_free_bytes": 0},
        "webhooks": {"allow_http": True, "allowed_networks": ["127.0.0.0/8"]},
        "connections": {
            "sandbox": {
                "provider": "openai_compatible",
                "profile": "openai",
                "base_url": f"{sandbox_url}/openai/v1",
                "models": ["sandbox/video", "sandbox/short"],
                "lookup_proves_absence": True,  # the sandbox lists everything, and at once
                **upstream,
            },
            "sandbox-runway": {"provider": "runway", "base_url": f"{sandbox_url}/runway", **upstream},
            "sandbox-kling": {"provider": "kling", "base_url": f"{sandbox_url}/kling", **upstream},
        },
        "models": {"sandbox/video": MODEL, "sandbox/short": {**MODEL, "seconds": [4, 6, 8], "default_seconds": 4}},
        "aliases": {"default": "sandbox/video"},
    }
    for name, values in groups.items():
        sections[name] = {**sections.get(name, {}), **values}
    return Settings.model_validate({"mode": "dev", "secret_key": SECRET, "log_level": "error", **sections})
