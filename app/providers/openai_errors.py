"""The error formats of servers with OpenAI's video routes, and their classification.

An error in a format that the server does not use may come from a proxy, so each profile names the formats of its
server. ``openai_profiles.py`` has the sources.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.providers.errors import Fault
from app.providers.reading import obj, text

# A refused create, by HTTP status: the fault, and whether the same request may succeed later.
REFUSALS = {
    401: (Fault.ACCOUNT, False),
    402: (Fault.QUOTA, False),
    403: (Fault.ACCOUNT, False),
    429: (Fault.CAPACITY, True),
}
OTHER_REFUSAL = (Fault.INPUT, False)

# Words that classify an error, searched in `code`, `type` and `message`: no server documents all its codes.
POLICY_WORDS = ("content_policy", "content policy", "moderation", "safety", "invalid_prompt")
OUTPUT_WORDS = ("output", "generated")
QUOTA_WORDS = ("quota", "billing")
_CLIENT_CODE = re.compile(r"4\d\d|invalid_request_error|invalid_value")
MAX_ISSUES = 10


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """An error: its ``code`` (or type, if it has no code) and message; ``str()`` joins all parts."""

    code: str
    message: str
    kind: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (self.code, self.kind, self.message) if word)

    def mention(self, parts: Iterable[str]) -> bool:
        lowered = str(self).lower()
        return any(part in lowered for part in parts)


def words_of(error: Mapping[str, Any]) -> ErrorWords:
    """The error in an object with ``code``, ``type`` and ``message``, all optional."""
    code, kind = (text(str(value))[:100] if _is_word(value) else "" for value in (error.get("code"), error.get("type")))
    return ErrorWords(code or kind, text(error.get("message")), kind if code else "")


def refusal_of(status: int, words: ErrorWords, account_words: Iterable[str]) -> tuple[Fault, bool]:
    """The fault of a refused create, and whether the same request may succeed later."""
    fault, retryable = REFUSALS.get(status, OTHER_REFUSAL)
    if status != 401 and words.mention(account_words):
        return Fault.ACCOUNT, False
    if status != 401 and words.mention(POLICY_WORDS):
        return Fault.PROMPT, retryable
    return (Fault.QUOTA if words.mention(QUOTA_WORDS) else fault), retryable


def fault_of_render(words: ErrorWords) -> Fault:
    """The fault of a failed render."""
    if words.mention(POLICY_WORDS):
        return Fault.OUTPUT_MODERATION if words.mention(OUTPUT_WORDS) else Fault.PROMPT
    return Fault.INPUT if _CLIENT_CODE.fullmatch(words.code) else Fault.PROVIDER


# Error formats ----------------------------------------------------------------------------------------------------


def _nested(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"error": {"message", "type", "param", "code"}}``: OpenAI, vLLM, LiteLLM, Bifrost."""
    error = obj(body.get("error"))
    return words_of(error) if isinstance(error.get("message"), str) else None


def _text(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"error": "…"}``: vLLM's key check."""
    return ErrorWords("", text(body["error"])) if isinstance(body.get("error"), str) else None


def _detail(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"detail": "…"}`` or ``{"detail": [{"loc", "msg"}]}``: FastAPI."""
    detail = body.get("detail")
    if isinstance(detail, list) and detail:
        return ErrorWords("", _issues(detail, "loc", "msg"))
    return ErrorWords("", text(detail)) if isinstance(detail, str) else None


def _flat(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"code", "message", "data": null}``: new-api; ``{"object", "message", "type", "code"}``: TensorRT-LLM."""
    named = _is_word(body.get("code")) or _is_word(body.get("type"))
    return words_of(body) if named and isinstance(body.get("message"), str) else None


def _flagged(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"error": true, "message": "…"}``: LLM Gateway."""
    return words_of(body) if body.get("error") is True and isinstance(body.get("message"), str) else None


def _zod(body: Mapping[str, Any]) -> ErrorWords | None:
    """``{"success": false, "error": {"issues": [{"path", "message"}]}}``: LLM Gateway's validation."""
    issues = obj(body.get("error")).get("issues")
    if body.get("success") is not False or not isinstance(issues, list) or not issues:
        return None
    return ErrorWords("", _issues(issues, "path", "message"))


Shape = Callable[[Mapping[str, Any]], ErrorWords | None]
#: The error formats by the names that profiles use.
SHAPES: Mapping[str, Shape] = {
    "nested": _nested,
    "text": _text,
    "detail": _detail,
    "flat": _flat,
    "flagged": _flagged,
    "zod": _zod,
}


def read_error(body: Any, shapes: Iterable[str]) -> ErrorWords | None:
    """The error in a reply in the first matching format; None if none matches."""
    return next((words for name in shapes if (words := SHAPES[name](obj(body))) is not None), None)


def _issues(issues: list[Any], where: str, what: str) -> str:
    """The messages per field, without the values: those may echo the whole request."""
    lines = []
    for issue in map(obj, issues[:MAX_ISSUES]):
        path = issue.get(where)
        name = ".".join(str(part) for part in path) if isinstance(path, list) else ""
        lines.append(f"{name}: {text(issue.get(what))}" if name else text(issue.get(what)))
    return text("; ".join(lines)) or "no reason given"


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""
