"""The kinds of servers that speak OpenAI's Videos API, and how each differs.

OpenAI's own endpoint was shut down on 2026-09-24; the wire shape lives on. Sources, read in 2026-11: the OpenAPI
document of 2026-08-21 and the Python SDK 3.54.0 (``openai``: hosted look-alikes); the route code of SGLang 0.5.23 and
vLLM-Omni 0.30.0, run with the engine stubbed; LiteLLM 1.108.7, run unmodified; the sources of new-api and TensorRT-LLM.
``generic`` is for every other server: it takes all shapes of a refusal that name a code or a type.

* No server takes an idempotency key. Most list, and no list of a hosted one is known to show everything at once, so
  there a lost reply can be found and never proven absent. SGLang and vLLM-Omni list out of the memory of the process
  that accepts: what it does not list it does not have. Several of them behind one address must be declared with
  ``lookup_proves_absence = false``.
* SGLang's records show no prompt, and their seconds come out of the frames after alignment: 2 may become 3.
* OpenAI deletes finished videos only, SGLang's DELETE forgets the record while the render goes on, and TensorRT-LLM's
  is not known to stop it: none of these is a cancel. vLLM-Omni's DELETE stops the render, and deletes a finished video.
* Whether a look-alike charges for failures is not known. The self-hosted servers charge nothing; their records live in
  process memory, so they are listed at once and lost in a restart.
* LiteLLM reads whatever its upstream answers as a video, so an unknown id becomes a 500 about ``VideoObject``; a
  refused upstream key does too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from app.providers.openai_errors import SHAPES
from app.providers.traits import BillsOn, Lookup, Traits

# Fields that an order fills, that would contradict it, or that reach the server's own files or network.
RESERVED = frozenset(
    {"model", "prompt", "seconds", "size", "seed", "negative_prompt", "width", "height", "num_frames", "n"}
    | {"num_outputs_per_prompt", "generate_sound", "output_path", "perf_dump_path", "video_path", "file_path"}
    | {"video_url", "reference_url", "input_reference", "input_references", "video_reference", "image_reference"}
    | {"audio_reference", "upscaling_model_path", "frame_interpolation_model_path", "extra_args", "lora"}
    # SGLang flattens these into the body, past any list of allowed names; vLLM-Omni gives the first to the pipeline.
    | {"extra_params", "extra_body", "extra_json", "diffusers_kwargs"}
)
#: A status, and words that a reply of it must hold.
Saying = tuple[int, re.Pattern[str]]
ANYTHING = re.compile("")
ENCODINGS: Mapping[str, Literal["json", "multipart"]] = {"json": "json", "multipart": "multipart"}
SECONDS_TYPES: Mapping[str, type[str] | type[int]] = {"string": str, "integer": int}


@dataclass(frozen=True, slots=True)
class Profile:
    """How one kind of server differs.

    ``seconds_type`` counts for JSON: a form has text only. ``echoes`` are the fields of an order that a record repeats
    as they were sent, ``echoes_prompt_exactly`` whether another prompt is another order, ``length_field`` where a
    record has its seconds, ``lists_in_one_page`` whether its list is always whole. ``error_shapes`` are the names of
    its own ways to say no, ``unknown_id`` how it says that it does not know a record, ``refuses_by`` words that make
    a refusal out of a status that otherwise proves nothing, ``account_words`` those of a refused key.
    """

    traits: Traits
    create_encoding: Literal["json", "multipart"] = "json"
    seconds_type: type[str] | type[int] = str
    needs_key: bool = True
    audio_field: str | None = None
    result_by_url: bool = False
    echoes: frozenset[str] = frozenset({"model", "prompt", "seconds", "size"})
    echoes_prompt_exactly: bool = False
    length_field: str = "seconds"
    lists_in_one_page: bool = False
    error_shapes: tuple[str, ...] = ("nested", "text", "detail")
    unknown_id: tuple[Saying, ...] = ((404, ANYTHING),)
    refuses_by: tuple[Saying, ...] = ()
    account_words: tuple[str, ...] = ()


HOSTED = Traits(
    lookup=Lookup.LIST,
    bills_on=BillsOn.ACCEPTANCE,  # the cautious reading: no source says that a failure is free
    poll_interval=timedelta(seconds=10),  # the guide: every 10–20 s
    visibility_delay=timedelta(seconds=30),  # no source; lists are rarely further behind
    result_ttl=timedelta(hours=1),
    reserved_options=RESERVED,
)
SELF_HOSTED = Traits(
    lookup=Lookup.LIST,
    bills_on=BillsOn.NEVER,
    poll_interval=timedelta(seconds=3),
    lookup_proves_absence=True,
    reserved_options=RESERVED,
)

PROFILES: Mapping[str, Profile] = {
    "openai": Profile(HOSTED),
    "generic": Profile(HOSTED, error_shapes=tuple(SHAPES)),
    "sglang": Profile(
        SELF_HOSTED,
        seconds_type=int,
        needs_key=False,
        result_by_url=True,  # with an own object store configured, /content answers 400
        echoes=frozenset({"model", "size"}),
    ),
    "vllm_omni": Profile(
        replace(SELF_HOSTED, cancels=True, switches_audio=True),
        create_encoding="multipart",
        needs_key=False,
        audio_field="generate_sound",
        echoes_prompt_exactly=True,
        refuses_by=((409, re.compile(r"not supported with --api-server-count")),),
    ),
    "litellm": Profile(
        replace(HOSTED, lookup=Lookup.NONE),  # its list is 400 without a provider's name, and another server's with it
        unknown_id=((404, ANYTHING), (500, re.compile(r"validation errors? for VideoObject|not found", re.IGNORECASE))),
        account_words=("no connected db",),  # a wrong key, where it has no database
    ),
    "newapi": Profile(
        replace(HOSTED, lookup=Lookup.NONE),
        error_shapes=("nested", "flat"),
        unknown_id=((404, ANYTHING), (400, re.compile("task_not_exist"))),
    ),
    "tensorrt_llm": Profile(
        # Its list shows everything, oldest first and in one page; how long it keeps a record is not known.
        replace(SELF_HOSTED, lookup_proves_absence=False),
        seconds_type=int,
        needs_key=False,
        length_field="duration",
        lists_in_one_page=True,
        error_shapes=("flat", "detail"),
    ),
}


def says(sayings: tuple[Saying, ...], status: int, words: str) -> bool:
    """Whether a reply is one of these sayings."""
    return any(status == expected and pattern.search(words) for expected, pattern in sayings)
