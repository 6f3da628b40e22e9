"""Profiles: how servers with OpenAI's Videos API differ from each other.

OpenAI's own endpoint was shut down on 2026-09-24; other servers still use its wire format. Sources, read in 2026-11:
the OpenAPI document of 2026-08-21 and the Python SDK 3.54.0 (``openai``: hosted look-alikes); the route code of SGLang
0.5.23 and vLLM-Omni 0.30.0, run with the engine stubbed; LiteLLM 1.108.7, run unmodified; the sources of new-api and
TensorRT-LLM. ``generic`` is for all other servers: it accepts every error shape that names a code or a type.

* No server supports an idempotency key. Most have a list, but no hosted list is known to be complete at once: there a
  lost reply can be found, but absence cannot be proven. SGLang and vLLM-Omni list from the memory of the process that
  accepts, so what is not listed does not exist. For several replicas behind one address, the operator must set
  ``lookup_proves_absence = false``.
* SGLang's video objects have no prompt, and their seconds are computed from the aligned frames: 2 may become 3.
* OpenAI deletes finished videos only, SGLang's DELETE removes the job while the render continues, and TensorRT-LLM's
  is not known to stop the render: none of these is a cancel. vLLM-Omni's DELETE stops the render, and deletes a
  finished video.
* It is not known whether a hosted look-alike charges for failures. The self-hosted servers charge nothing; they keep
  jobs in process memory, so jobs are listed at once and lost in a restart.
* LiteLLM parses any upstream reply as a video, so an unknown id becomes a 500 about ``VideoObject``, and so does a
  refused upstream key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from app.providers.inputs import InputRole, InputWay
from app.providers.openai_errors import SHAPES
from app.providers.traits import BillsOn, Lookup, Traits

# Fields that the gateway sets, that would contradict the request, or that access the server's files or network.
RESERVED = frozenset(
    {"model", "prompt", "seconds", "size", "seed", "negative_prompt", "width", "height", "num_frames", "n"}
    | {"num_outputs_per_prompt", "generate_sound", "output_path", "perf_dump_path", "video_path", "file_path"}
    | {"video_url", "reference_url", "input_reference", "input_references", "video_reference", "image_reference"}
    | {"audio_reference", "upscaling_model_path", "frame_interpolation_model_path", "extra_args", "lora"}
    # SGLang merges these into the body, bypassing the allowed names; vLLM-Omni passes the first to the pipeline.
    | {"extra_params", "extra_body", "extra_json", "diffusers_kwargs"}
)
#: An HTTP status, and a pattern that the error text must contain.
ErrorPattern = tuple[int, re.Pattern[str]]
ANY_TEXT = re.compile("")
#: No server documents a limit; a create must arrive within its time-out.
MAX_FILE_BYTES = 16 * 1024 * 1024
ENCODINGS: Mapping[str, Literal["json", "multipart"]] = {"json": "json", "multipart": "multipart"}
SECONDS_TYPES: Mapping[str, type[str] | type[int]] = {"string": str, "integer": int}


@dataclass(frozen=True, slots=True)
class Profile:
    """The properties of one kind of server.

    ``seconds_type`` applies to JSON only: a form has text. ``echoes`` are the request fields that the video object
    repeats unchanged; ``echoes_prompt_exactly``: a different prompt means a different request; ``length_field`` holds
    the seconds; ``lists_in_one_page``: the list has no pages. ``error_shapes`` names the server's error formats;
    ``unknown_id`` matches its errors for an unknown id; ``refuses_by`` matches refusals whose status alone is
    inconclusive; ``account_words`` appear in the error for a refused key; ``input_fields`` are the fields of the form
    that take files, by role.
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
    unknown_id: tuple[ErrorPattern, ...] = ((404, ANY_TEXT),)
    refuses_by: tuple[ErrorPattern, ...] = ()
    account_words: tuple[str, ...] = ()
    input_fields: Mapping[InputRole, str] = field(default_factory=lambda: {InputRole.FIRST_FRAME: "input_reference"})


HOSTED = Traits(
    lookup=Lookup.LIST,
    bills_on=BillsOn.ACCEPTANCE,  # conservative: no source says that a failure is free
    poll_interval=timedelta(seconds=10),  # the guide: every 10–20 s
    visibility_delay=timedelta(seconds=30),  # no source; lists rarely lag more
    result_ttl=timedelta(hours=1),
    reserved_options=RESERVED,
    input_ways=(InputWay.BYTES,),
    max_inline_bytes=MAX_FILE_BYTES,
)
SELF_HOSTED = Traits(
    lookup=Lookup.LIST,
    bills_on=BillsOn.NEVER,
    poll_interval=timedelta(seconds=3),
    lookup_proves_absence=True,
    reserved_options=RESERVED,
    input_ways=(InputWay.BYTES,),
    max_inline_bytes=MAX_FILE_BYTES,
)

PROFILES: Mapping[str, Profile] = {
    "openai": Profile(HOSTED),
    "generic": Profile(HOSTED, error_shapes=tuple(SHAPES)),
    "sglang": Profile(
        SELF_HOSTED,
        seconds_type=int,
        needs_key=False,
        result_by_url=True,  # with an object store configured, /content returns 400
        echoes=frozenset({"model", "size"}),
    ),
    "vllm_omni": Profile(
        replace(SELF_HOSTED, cancels=True, switches_audio=True),
        create_encoding="multipart",
        needs_key=False,
        audio_field="generate_sound",
        input_fields={InputRole.FIRST_FRAME: "input_reference", InputRole.REFERENCE_IMAGE: "input_references"},
        echoes_prompt_exactly=True,
        refuses_by=((409, re.compile(r"not supported with --api-server-count")),),
    ),
    "litellm": Profile(
        replace(
            HOSTED, lookup=Lookup.NONE
        ),  # without a provider's name its list is a 400; with one it is another server's list
        unknown_id=((404, ANY_TEXT), (500, re.compile(r"validation errors? for VideoObject|not found", re.IGNORECASE))),
        account_words=("no connected db",),  # a wrong key, if LiteLLM has no database
    ),
    "newapi": Profile(
        replace(HOSTED, lookup=Lookup.NONE),
        error_shapes=("nested", "flat"),
        unknown_id=((404, ANY_TEXT), (400, re.compile("task_not_exist"))),
    ),
    "tensorrt_llm": Profile(
        # Its list shows everything in one page, oldest first; how long it keeps a job is not known.
        # No source says how it takes files.
        replace(SELF_HOSTED, lookup_proves_absence=False, input_ways=(), max_inline_bytes=0),
        seconds_type=int,
        needs_key=False,
        length_field="duration",
        lists_in_one_page=True,
        error_shapes=("flat", "detail"),
    ),
}


def matches(patterns: tuple[ErrorPattern, ...], status: int, words: str) -> bool:
    """Whether an error matches one of the patterns."""
    return any(status == expected and pattern.search(words) for expected, pattern in patterns)
