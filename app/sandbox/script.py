"""The script: words in square brackets in a prompt that control the sandbox.

``BRACKETS`` lists them all. They can be combined; any other text in brackets is part of the prompt. ``counts.py``
counts how often a bracket has been applied.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.sandbox.phases import Phase


@dataclass(frozen=True, slots=True)
class Bracket:
    """One bracket.

    ``words`` are the allowed arguments (an empty string: the argument is optional). None means the argument is a
    number, which defaults to ``default``.
    """

    example: str
    meaning: str
    words: tuple[str, ...] | None = None
    default: float | None = None


BRACKETS: Mapping[str, Bracket] = {
    "fail": Bracket(
        "[fail:moderation]",
        "the job fails: `moderation`: in the input check; `output`: in the check of the video; `internal`: by an "
        "internal error; or the create is refused: `prompt`: 400, content policy; `quota`: 429, quota used up",
        words=("moderation", "output", "internal", "prompt", "quota"),
    ),
    "slow": Bracket("[slow:5]", "the render takes 5 seconds longer", default=5),
    "input-refused": Bracket(
        "[input-refused]",
        "a create with an input is refused (400) in the provider's words; nothing is fetched",
        words=("",),
    ),
    "input-lost": Bracket(
        "[input-lost]", "a create with an input is accepted; the job fails because the input is invalid", words=("",)
    ),
    "input-slow": Bracket(
        "[input-slow]",
        "Runway and Kling fetch the URLs of inputs only after the reply to the create, just before the render",
        words=("",),
    ),
    "late": Bracket("[late:20]", "stays in progress, almost finished, for 20 more seconds", default=20),
    "never": Bracket("[never]", "never finishes", words=("",)),
    "lose-reply": Bracket(
        "[lose-reply]",
        "the first create with this prompt and submission reference is accepted and charged, then the connection "
        "closes without a reply; `[lose-reply:truncate]` sends half of the reply",
        words=("", "truncate"),
    ),
    "html": Bracket("[html]", "the create is accepted and charged, but the reply is an HTML page (200)", words=("",)),
    "500": Bracket("[500:2]", "the first 2 creates return 500 and accept nothing", default=1),
    "429": Bracket("[429:3]", "the first 3 creates return 429 with `Retry-After: 1` and accept nothing", default=1),
    "flaky": Bracket("[flaky:2]", "the first 2 status reads return 503", default=1),
    "gone": Bracket("[gone:2]", "the first 2 status reads return the error for an unknown id", default=1),
    "odd-status": Bracket("[odd-status:2]", "the first 2 status reads show an undocumented status", default=2),
    "no-cancel": Bracket("[no-cancel]", "a cancel is refused; the render continues", words=("",)),
    "garbage": Bracket("[garbage]", "the finished file is not a video", words=("",)),
    "truncated": Bracket("[truncated]", "the download ends before its content-length", words=("",)),
    "huge": Bracket(
        "[huge]", "the download never ends; `[huge:declared]` declares a huge content-length", words=("", "declared")
    ),
    "callback": Bracket(
        "[callback:forged]",
        "`forged`: each callback is preceded by one with a wrong signature that says the job failed; `twice`: each "
        "callback is sent twice; `early`: the first callback is sent before the reply to the create",
        words=("forged", "twice", "early"),
    ),
    "expired": Bracket("[expired]", "the result URL returns 403, the content route 404", words=("",)),
    "refuse": Bracket(
        "[refuse:flat]",
        "the create is refused (400) in another server's shape: `flat`: `{code, message, data}`; `object`: `{object: "
        "error, message, type, code}`; `zod`: `{success, error: {issues}}`; `text`: `{error: true, message}`; "
        "`timeout`: it is accepted and charged, but the reply is a flat 400 that says the request timed out",
        words=("flat", "object", "zod", "text", "timeout"),
    ),
    "api-servers": Bracket(
        "[api-servers]", "vLLM-Omni runs several API servers: the create returns 409 and accepts nothing", words=("",)
    ),
    "id": Bracket(
        "[id:long]",
        "the remote id has 242 characters; `odd`: it contains a space",
        words=("long", "odd"),
    ),
    "echo": Bracket(
        "[echo]",
        "replies, errors and list entries about the job repeat the headers of the request (`request_headers`), "
        "including the key; `[echo:refuse]` refuses the create (400) with the key in the message",
        words=("", "refuse"),
    ),
    "final": Bracket(
        "[final:succeeded]",
        "a `/videos` server uses another final status: `succeeded`, `done`: the job succeeds; `error`: it fails by an "
        "internal error; `aborted`: the provider cancels it, and it costs nothing",
        words=("succeeded", "done", "error", "aborted"),
    ),
    "list": Bracket(
        "[list:rename]",
        "how lists show the job: `rename`: a dated model name; `round`: one second more; `decimal`: seconds as `2.0`; "
        "`trim`: the prompt without outer spaces; `cut`: the first 100 characters of the prompt (half of a shorter "
        "one); `omit`: no prompt; `unsized`: no size; `rotate`: the sides of the size swapped; `double`: twice; "
        "`last`: at the end of the whole list",
        words=("rename", "round", "decimal", "trim", "cut", "omit", "unsized", "rotate", "double", "last"),
    ),
    "unlisted": Bracket(
        "[unlisted:8]", "lists and look-ups by reference do not show the job in its first 8 seconds", default=8
    ),
    "behind": Bracket("[behind:420]", "the server's clock is 420 seconds slow for this job", default=420),
    "ahead": Bracket("[ahead:3600]", "the server's clock is 3600 seconds fast for this job", default=3600),
    "replicas": Bracket(
        "[replicas:2]",
        "one of 2 replicas behind a load balancer has the job: every second request for it returns the error for an "
        "unknown id, and every second list lacks it",
        default=2,
    ),
    "elsewhere": Bracket("[elsewhere:2]", "the first 2 downloads of the finished video return 404", default=1),
    "forget": Bracket(
        "[forget]",
        "the server loses the first job with this prompt after its first status read, as in a restart; the job costs "
        "nothing, and its ledger entry stays",
        words=("",),
    ),
}

#: The final phase for each argument of ``[final:…]``.
FINAL_WORDS: Mapping[str, Phase] = {
    "succeeded": Phase.SUCCEEDED,
    "done": Phase.SUCCEEDED,
    "error": Phase.FAILED,
    "aborted": Phase.CANCELED,
}

_BRACKET = re.compile(r"\[([a-z0-9-]+)(?::([a-z]+|\d{1,6}(?:\.\d{1,3})?))?\]")


class Refusal(StrEnum):
    """Why a create is refused; nothing is accepted."""

    SERVER_ERROR = "server_error"
    RATE_LIMIT = "rate_limit"
    CONTENT_POLICY = "content_policy"
    QUOTA = "quota"


class JobFailure(StrEnum):
    """Why an accepted job ends without a video."""

    INPUT_MODERATION = "input_moderation"
    OUTPUT_MODERATION = "output_moderation"
    INTERNAL = "internal"
    INVALID_INPUT = "invalid_input"


_FAILURES = {
    "moderation": JobFailure.INPUT_MODERATION,
    "output": JobFailure.OUTPUT_MODERATION,
    "internal": JobFailure.INTERNAL,
}
_REFUSALS = {"prompt": Refusal.CONTENT_POLICY, "quota": Refusal.QUOTA}


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed prompt: ``text`` without the brackets, and ``asked``, the bracket names with their arguments."""

    text: str
    asked: Mapping[str, str]

    def has(self, name: str) -> bool:
        return name in self.asked

    def number(self, name: str) -> float:
        """The argument as a number; 0 if the bracket is absent."""
        argument = self.asked.get(name)
        if argument is None:
            return 0
        return float(argument or BRACKETS[name].default or 0)

    @property
    def failure(self) -> JobFailure | None:
        if self.end is Phase.FAILED:
            return JobFailure.INTERNAL
        return _FAILURES.get(self.asked.get("fail", ""))

    @property
    def end(self) -> Phase | None:
        """The final phase that ``[final:…]`` sets."""
        return FINAL_WORDS.get(self.asked.get("final", ""))

    @property
    def refusal(self) -> Refusal | None:
        return _REFUSALS.get(self.asked.get("fail", ""))


def read(prompt: str) -> Script:
    """Parse the script in a prompt. If a bracket appears twice, the last one counts."""
    if "[" not in prompt:
        return Script(prompt.strip(), {})
    asked: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        name, argument = match[1], match[2] or ""
        if not _is_known(name, argument):
            return match[0]
        asked[name] = argument
        return " "

    text = _BRACKET.sub(take, prompt)
    return Script(" ".join(text.split()) if asked else prompt.strip(), asked)


def _is_known(name: str, argument: str) -> bool:
    bracket = BRACKETS.get(name)
    if bracket is None:
        return False
    if bracket.words is not None:
        return argument in bracket.words
    return not argument or argument[0].isdigit()
