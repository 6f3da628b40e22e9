"""Settings of the sandbox upstream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How the sandbox behaves.

    render: render real videos; False finishes every job at once with one small video, for benchmarks.
    data_dir: the cache directory for videos; a temporary directory by default.
    api_key: the Bearer key that every dialect requires; None requires none.
    callback_secret: the secret that signs callbacks (``whsec_…``); None leaves them unsigned.
    render_seconds: the least time from acceptance to the end of a job.
    runway_concurrency: how many Runway tasks of one model run at once; the others are THROTTLED.
    result_url_seconds: how long a signed result URL is valid.
    upload_seconds: how long the URI of a Runway upload is valid.
    clocks: by dialect, how many seconds its clock is fast; the ``Date`` header stays correct, as behind a proxy.
    fingerprint: give every job a distinct small video whose picture encodes the job's id.
    """

    render: bool = True
    data_dir: Path | None = None
    api_key: str | None = "sandbox-key"
    callback_secret: str | None = None
    render_seconds: float = 1.5
    runway_concurrency: int = 3
    result_url_seconds: float = 86_400
    upload_seconds: float = 86_400
    clocks: Mapping[str, float] = field(default_factory=dict)
    fingerprint: bool = False
