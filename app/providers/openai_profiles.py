"""The kinds of servers that speak OpenAI's Videos API, and how each differs.

OpenAI's own endpoint was shut down on 2026-09-24; the wire shape lives on. Sources, read in 2026-11: the OpenAPI
document of 2026-08-21 and the Python SDK 3.54.0 (``openai``: hosted look-alikes), the wheels of SGLang 0.5.23
(``sglang``) and vLLM-Omni 0.30.0 (``vllm_omni``).

* No server takes an idempotency key; all of them list, newest first. SGLang's records do not show the prompt, so there
  a lost reply can be proven absent but not found.
* OpenAI deletes finished videos only, and SGLang's DELETE forgets the record while the render goes on: neither is a
  cancel. vLLM-Omni's DELETE stops the render, and deletes a finished film too.
* Whether a look-alike charges for failures is not known. The self-hosted servers charge nothing; their records live in
  process memory, so they are listed at once and lost in a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from app.providers.base import BillsOn, Lookup, Traits

# Fields that an order fills, that would contradict it, or that reach the server's own files.
RESERVED = frozenset(
    {"model", "prompt", "seconds", "size", "seed", "negative_prompt", "width", "height", "num_frames", "n"}
    | {"num_outputs_per_prompt", "generate_sound", "output_path", "perf_dump_path", "video_path"}
)
# SGLang flattens these into the body, past any list of allowed names.
SGLANG_FLATTENED = frozenset({"extra_params", "extra_body", "extra_json"})


@dataclass(frozen=True, slots=True)
class Profile:
    """How one kind of server differs. ``seconds_type`` counts for JSON: a form has text only."""

    create_encoding: Literal["json", "multipart"]
    seconds_type: type[str] | type[int]
    needs_key: bool
    audio_field: str | None
    result_by_url: bool
    traits: Traits


PROFILES: Mapping[str, Profile] = {
    "openai": Profile(
        create_encoding="json",
        seconds_type=str,
        needs_key=True,
        audio_field=None,
        result_by_url=False,
        traits=Traits(
            lookup=Lookup.LIST,
            bills_on=BillsOn.ACCEPTANCE,  # the cautious reading: no source says that a failure is free
            poll_interval=timedelta(seconds=10),  # the guide: every 10–20 s
            visibility_delay=timedelta(seconds=30),  # no source; lists are rarely further behind
            result_ttl=timedelta(hours=1),
            reserved_options=RESERVED,
        ),
    ),
    "sglang": Profile(
        create_encoding="json",
        seconds_type=int,
        needs_key=False,
        audio_field=None,
        result_by_url=True,  # with an own object store configured, /content answers 400
        traits=Traits(
            lookup=Lookup.LIST,
            bills_on=BillsOn.NEVER,
            poll_interval=timedelta(seconds=3),
            reserved_options=RESERVED | SGLANG_FLATTENED,
        ),
    ),
    "vllm_omni": Profile(
        create_encoding="multipart",
        seconds_type=str,
        needs_key=False,
        audio_field="generate_sound",
        result_by_url=False,
        traits=Traits(
            lookup=Lookup.LIST,
            bills_on=BillsOn.NEVER,
            poll_interval=timedelta(seconds=3),
            cancels=True,
            switches_audio=True,
            reserved_options=RESERVED,
        ),
    ),
}
