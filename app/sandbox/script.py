"""Scripted behaviour: what the words in square brackets in a prompt make the sandbox do.

``BRACKETS`` is the whole language. Several may be combined; anything else in brackets is just text. How often a
bracket has been applied is counted in ``counts.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.sandbox.phases import Phase


@dataclass(frozen=True, slots=True)
class Bracket:
    """One word of the language.

    ``words`` are the only arguments allowed (an empty one: it may go without); None means a number, ``default`` when
    it is left out.
    """

    example: str
    meaning: str
    words: tuple[str, ...] | None = None
    default: float | None = None


BRACKETS: Mapping[str, Bracket] = {
    "fail": Bracket(
        "[fail:moderation]",
        "`moderation`: the job fails, refused by the input check; `output`: by the check of the video; `internal`: "
        "the job fails by the provider's fault; `prompt`: the create is refused (400) under the content policy; "
        "`quota`: the create is refused (429), the account's quota is used up",
        words=("moderation", "output", "internal", "prompt", "quota"),
    ),
    "slow": Bracket("[slow:5]", "the render takes 5 seconds more", default=5),
    "late": Bracket("[late:20]", "stays in progress, all but finished, for 20 seconds more", default=20),
    "never": Bracket("[never]", "never finishes", words=("",)),
    "lose-reply": Bracket(
        "[lose-reply]",
        "the first create with this prompt and submission reference is accepted and charged, then the connection is "
        "dropped without a reply; `[lose-reply:truncate]` cuts the reply in the middle",
        words=("", "truncate"),
    ),
    "html": Bracket("[html]", "the create is accepted and charged, but the reply is an HTML page (200)", words=("",)),
    "500": Bracket("[500:2]", "the first 2 creates answer 500 and accept nothing", default=1),
    "429": Bracket("[429:3]", "the first 3 creates answer 429 with `Retry-After: 1` and accept nothing", default=1),
    "flaky": Bracket("[flaky:2]", "the first 2 status reads answer 503", default=1),
    "gone": Bracket("[gone:2]", "the first 2 status reads answer as for an unknown id", default=1),
    "odd-status": Bracket("[odd-status:2]", "the first 2 status reads say a status that nobody knows", default=2),
    "no-cancel": Bracket("[no-cancel]", "a cancel is refused; the render goes on", words=("",)),
    "garbage": Bracket("[garbage]", "the finished video is not one", words=("",)),
    "truncated": Bracket("[truncated]", "the video breaks off before its content-length", words=("",)),
    "huge": Bracket(
        "[huge]", "the video never ends; `[huge:declared]` says so in its content-length", words=("", "declared")
    ),
    "callback": Bracket(
        "[callback:forged]",
        "`forged`: before each callback comes another one, falsely signed, that says the job failed; `twice`: each "
        "callback comes twice; `early`: the first one comes before the reply to the create",
        words=("forged", "twice", "early"),
    ),
    "expired": Bracket("[expired]", "the result URL answers 403, the content route 404", words=("",)),
    "refuse": Bracket(
        "[refuse:flat]",
        "the create is refused (400) in another server's shape: `flat`: `{code, message, data}`; `object`: `{object: "
        "error, message, type, code}`; `zod`: `{success, error: {issues}}`; `text`: `{error: true, message}`; "
        "`timeout`: it is accepted and charged, and the reply is a flat 400 that says the request timed out",
        words=("flat", "object", "zod", "text", "timeout"),
    ),
    "api-servers": Bracket(
        "[api-servers]", "vLLM-Omni runs several API servers: the create answers 409 and accepts nothing", words=("",)
    ),
    "id": Bracket(
        "[id:long]",
        "the remote id has 242 characters; `odd`: it contains a space. The job is known under that id",
        words=("long", "odd"),
    ),
    "echo": Bracket(
        "[echo]",
        "replies and error bodies about the job, and its record in lists, carry the headers of the request "
        "(`request_headers`), the key among them; `[echo:refuse]` refuses the create (400) with the key in the message",
        words=("", "refuse"),
    ),
    "final": Bracket(
        "[final:succeeded]",
        "a `/videos` server says how the job ended in another word: `succeeded`, `done`: it is completed; `error`: the "
        "job fails by the provider's fault; `aborted`: the provider cancels it, and it costs nothing",
        words=("succeeded", "done", "error", "aborted"),
    ),
    "list": Bracket(
        "[list:rename]",
        "how lists show the record: `rename`: a dated model name; `round`: a second more; `decimal`: seconds as `2.0`; "
        "`trim`: the prompt without outer spaces; `cut`: the first 100 characters of the prompt (half of a shorter "
        "one); `omit`: no prompt; `unsized`: no size; `rotate`: the sides of the size swapped; `double`: twice; "
        "`last`: at the end of the whole list",
        words=("rename", "round", "decimal", "trim", "cut", "omit", "unsized", "rotate", "double", "last"),
    ),
    "unlisted": Bracket(
        "[unlisted:8]", "lists and look-ups by reference do not show the record in its first 8 seconds", default=8
    ),
    "behind": Bracket("[behind:420]", "the server's clock is 420 seconds slow for this record", default=420),
    "ahead": Bracket("[ahead:3600]", "the server's clock is 3600 seconds fast for this record", default=3600),
    "replicas": Bracket(
        "[replicas:2]",
        "one of 2 replicas behind a balancer has the record: every second request about it is answered as for an "
        "unknown id, and every second list lacks it",
        default=2,
    ),
    "elsewhere": Bracket(
        "[elsewhere:2]", "the first 2 downloads of the finished video answer 404, though it is completed", default=1
    ),
    "forget": Bracket(
        "[forget]",
        "the server restarts after the first status read of the first job with this prompt and loses the job, which "
        "costs nothing; the ledger keeps its entry",
        words=("",),
    ),
}

#: How a job ends whose end is told in one of the words of ``[final:…]``.
FINAL_WORDS: Mapping[str, Phase] = {
    "succeeded": Phase.SUCCEEDED,
    "done": Phase.SUCCEEDED,
    "error": Phase.FAILED,
    "aborted": Phase.CANCELED,
}

_BRACKET = re.compile(r"\[([a-z0-9-]+)(?::([a-z]+|\d{1,6}(?:\.\d{1,3})?))?\]")


class Refusal(StrEnum):
    """Why a create is turned down; nothing is accepted."""

    SERVER_ERROR = "server_error"
    RATE_LIMIT = "rate_limit"
    CONTENT_POLICY = "content_policy"
    QUOTA = "quota"


class Verdict(StrEnum):
    """Why an accepted job ends without a video."""

    INPUT_MODERATION = "input_moderation"
    OUTPUT_MODERATION = "output_moderation"
    INTERNAL = "internal"


_VERDICTS = {
    "moderation": Verdict.INPUT_MODERATION,
    "output": Verdict.OUTPUT_MODERATION,
    "internal": Verdict.INTERNAL,
}
_REFUSALS = {"prompt": Refusal.CONTENT_POLICY, "quota": Refusal.QUOTA}


@dataclass(frozen=True, slots=True)
class Script:
    """A prompt, read: ``text`` is what is left for the picture, ``asked`` the words of its brackets."""

    text: str
    asked: Mapping[str, str]

    def has(self, name: str) -> bool:
        return name in self.asked

    def number(self, name: str) -> float:
        """The number asked for, 0 where the bracket is absent."""
        argument = self.asked.get(name)
        if argument is None:
            return 0
        return float(argument or BRACKETS[name].default or 0)

    @property
    def verdict(self) -> Verdict | None:
        if self.end is Phase.FAILED:
            return Verdict.INTERNAL
        return _VERDICTS.get(self.asked.get("fail", ""))

    @property
    def end(self) -> Phase | None:
        """The end that ``[final:…]`` asks for."""
        return FINAL_WORDS.get(self.asked.get("final", ""))

    @property
    def refusal(self) -> Refusal | None:
        return _REFUSALS.get(self.asked.get("fail", ""))


def read(prompt: str) -> Script:
    """The script in a prompt. The last one of a bracket that is written twice counts."""
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
