"""Scripted behaviour: what the words in square brackets in a prompt make the sandbox do.

``BRACKETS`` is the whole language. Several may be combined; anything else in brackets is just text. A count ("the
first two creates …") is kept per dialect and prompt for the life of the process, or until the ledger is forgotten.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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
        "`moderation`: the job fails, refused by the input check; `output`: by the check of the film; `internal`: "
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
    "gone": Bracket("[gone:2]", "the first 2 status reads answer 404", default=1),
    "odd-status": Bracket("[odd-status:2]", "the first 2 status reads say a status that nobody knows", default=2),
    "no-cancel": Bracket("[no-cancel]", "a cancel is refused; the render goes on", words=("",)),
    "garbage": Bracket("[garbage]", "the finished film is not a video", words=("",)),
    "truncated": Bracket("[truncated]", "the film breaks off before its content-length", words=("",)),
    "huge": Bracket(
        "[huge]", "the film never ends; `[huge:declared]` says so in its content-length", words=("", "declared")
    ),
    "callback": Bracket(
        "[callback:forged]",
        "`forged`: before each callback comes another one, falsely signed, that says the job failed; `twice`: each "
        "callback comes twice; `early`: the first one comes before the reply to the create",
        words=("forged", "twice", "early"),
    ),
    "expired": Bracket("[expired]", "the result URL answers 403, the content route 404", words=("",)),
}

_BRACKET = re.compile(r"\[([a-z0-9-]+)(?::([a-z]+|\d{1,6}(?:\.\d{1,3})?))?\]")


class Refusal(StrEnum):
    """Why a create is turned down; nothing is accepted."""

    SERVER_ERROR = "server_error"
    RATE_LIMIT = "rate_limit"
    CONTENT_POLICY = "content_policy"
    QUOTA = "quota"


class Verdict(StrEnum):
    """Why an accepted job ends without a film."""

    INPUT_MODERATION = "input_moderation"
    OUTPUT_MODERATION = "output_moderation"
    INTERNAL = "internal"


class Reading(StrEnum):
    """What comes of one status read."""

    STRAIGHT = "straight"
    UNAVAILABLE = "unavailable"
    MISSING = "missing"
    ODD_STATUS = "odd_status"


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
        return _VERDICTS.get(self.asked.get("fail", ""))

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


class Counts:
    """How often each counted bracket has had its way."""

    def __init__(self) -> None:
        self._used: Counter[tuple[str, ...]] = Counter()

    def forget(self) -> None:
        self._used.clear()

    def refusal(self, dialect: str, prompt: str, script: Script) -> Refusal | None:
        """Whether this create is turned down, and why."""
        if self._take(dialect, prompt, script, "500"):
            return Refusal.SERVER_ERROR
        if self._take(dialect, prompt, script, "429"):
            return Refusal.RATE_LIMIT
        return script.refusal

    def loses_reply(self, dialect: str, prompt: str, script: Script, reference: str | None) -> bool:
        """Whether the reply to this accepted create is lost: once per prompt and reference."""
        return script.has("lose-reply") and self._once(dialect, prompt, "lose-reply", reference or "")

    def reading(self, dialect: str, prompt: str, script: Script) -> Reading:
        """What comes of this status read."""
        if not script.asked:
            return Reading.STRAIGHT
        if self._take(dialect, prompt, script, "flaky"):
            return Reading.UNAVAILABLE
        if self._take(dialect, prompt, script, "gone"):
            return Reading.MISSING
        if self._take(dialect, prompt, script, "odd-status"):
            return Reading.ODD_STATUS
        return Reading.STRAIGHT

    def _take(self, dialect: str, prompt: str, script: Script, name: str) -> bool:
        return script.has(name) and self._once(dialect, prompt, name, limit=script.number(name))

    def _once(self, *key: str, limit: float = 1) -> bool:
        if self._used[key] >= limit:
            return False
        self._used[key] += 1
        return True
