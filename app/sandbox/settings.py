"""What the sandbox upstream can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How the sandbox behaves.

    render: make real films; False finishes every job at once with one small film, for benchmarks.
    data_dir: where films are kept and found again; a temporary directory by default.
    api_key: the Bearer key that every dialect asks for; None asks for none.
    callback_secret: what callbacks are signed with (``whsec_…``); None signs none.
    render_seconds: from acceptance to finished, at least.
    runway_concurrency: Runway tasks of one model that run at once; the others are THROTTLED.
    result_url_seconds: how long a signed result URL lives.
    clocks: by dialect, seconds that its clock is ahead of ours; the ``Date`` of its replies is right, as of a proxy.
    fingerprint: hand out a video of its own for every job, small and quickly made, whose picture names the job.
    """

    render: bool = True
    data_dir: Path | None = None
    api_key: str | None = "sandbox-key"
    callback_secret: str | None = None
    render_seconds: float = 1.5
    runway_concurrency: int = 3
    result_url_seconds: float = 86_400
    clocks: Mapping[str, float] = field(default_factory=dict)
    fingerprint: bool = False
