"""Servers that speak OpenAI's Videos API. What differs between them is in ``openai_profiles.py``, with the sources.

* ``variant`` is never sent: the film is the default, SGLang answers ``variant=video`` with 404, vLLM-Omni ignores it.
* vLLM-Omni reports a failed job as an HTTP error whose body is the job. A body that says ``failed`` is believed,
  whatever the status.
"""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Self
from urllib.parse import quote
from uuid import UUID

from app.providers.base import (
    Accepted,
    Access,
    BadAccess,
    BillsOn,
    Canceled,
    CancelOutcome,
    Failed,
    Finished,
    Listed,
    Missing,
    Order,
    Page,
    Pending,
    PollOutcome,
    Provider,
    Rejected,
    Unreadable,
)
from app.providers.errors import Billed, Failure, Fault
from app.providers.openai_profiles import PROFILES, Profile
from app.providers.reading import asked_to_wait, moment, obj, percent, remote_id, retry_after, text, urls, wait
from app.providers.transport import Call, Clients, Reply, Transport, json_body, multipart_body

# Status words. `deleted` is SGLang's, `expired` OpenAI's batch output, `cancelled` seen at look-alikes.
PENDING = {"queued", "in_progress"}
FINISHED = {"completed"}
FAILED = {"failed", "expired"}
CANCELED = {"cancelled", "canceled", "deleted"}

# A refused create, by HTTP status: whose fault, and whether the same request may succeed later.
REFUSALS = {
    401: (Fault.ACCOUNT, False),
    402: (Fault.QUOTA, False),
    403: (Fault.ACCOUNT, False),
    429: (Fault.CAPACITY, True),
}
OTHER_REFUSAL = (Fault.INPUT, False)

# What the words of an error mean. No server enumerates its codes, so these are parts of `code`, `type` and `message`.
POLICY_WORDS = ("content_policy", "content policy", "moderation", "safety", "invalid_prompt")
OUTPUT_WORDS = ("output", "generated")
QUOTA_WORDS = ("quota", "billing")
# Codes of a failed job that blame the server, so that another try may succeed. vLLM-Omni's code is the HTTP status.
SERVER_CODES = {"server_error", "internal_error", "internal_server_error", "500", "502", "503", "504"}
_CLIENT_CODE = re.compile(r"4\d\d|invalid_request_error|invalid_value")

LIST_LIMIT = 100


class OpenAICompatible(Provider):
    """One server, or one account at a look-alike."""

    name: ClassVar[str] = "openai_compatible"

    def __init__(self, transport: Transport, profile: Profile) -> None:
        super().__init__(transport, profile.traits)
        self._profile = profile

    @classmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        profile = PROFILES.get(access.profile or "")
        if profile is None:
            raise BadAccess("profile", f"must be one of: {', '.join(PROFILES)}")
        if access.base_url is None:
            raise BadAccess("base_url", "is not set; it is the server's address with its /v1")
        if access.credential is None and profile.needs_key:
            raise BadAccess("api_key", "is not set")
        headers = {"Authorization": f"Bearer {access.credential}"} if access.credential else {}
        return cls(access.transport(clients, access.base_url, headers), profile)

    # Create -----------------------------------------------------------------------------------------------------------

    def order_call(self, order: Order, ref: UUID, callback_url: str | None = None) -> Call:
        del callback_url
        fields: dict[str, Any] = {
            **order.options,
            "model": order.model,
            "prompt": order.prompt,
            "seconds": self._profile.seconds_type(order.seconds),
            "size": order.size,
        }
        if order.seed is not None:
            fields["seed"] = order.seed
        if order.negative_prompt is not None:
            fields["negative_prompt"] = order.negative_prompt
        if order.audio is not None and self._profile.audio_field is not None:
            fields[self._profile.audio_field] = order.audio
        if self._profile.create_encoding == "json":
            body, content_type = json_body(fields), "application/json"
        else:
            body, content_type = multipart_body({name: _form_text(value) for name, value in fields.items()}, ref)
        return Call("POST", "/videos", headers={"Content-Type": content_type}, body=body)

    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        body = reply.json()
        if reply.status < 300:
            named = remote_id(obj(body).get("id"))
            return Accepted(named, raw=body) if named else None
        words = _error_words(body)
        if words is None:
            return None
        code, message = words
        fault, retryable = REFUSALS.get(reply.status, OTHER_REFUSAL)
        if reply.status != 401 and _mentions(code + message, POLICY_WORDS):
            fault = Fault.PROMPT
        elif _mentions(code + message, QUOTA_WORDS):
            fault = Fault.QUOTA
        return Rejected(Failure(fault, retryable, Billed.NO, code or None, message, retry_after(reply), body))

    # Status -----------------------------------------------------------------------------------------------------------

    def status_call(self, remote_id: str) -> Call:
        return Call("GET", _path(remote_id))

    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome:
        body = reply.json()
        status = obj(body).get("status")
        if isinstance(status, str) and obj(body).get("id") in (None, remote_id):
            if status in FAILED:
                return Failed(self._failure(body), raw=body)
            if reply.status < 300:
                return self._read_job(remote_id, reply, body, status)
        elif reply.status == 404 and _error_words(body) is not None:
            return Missing()
        return Unreadable(_described(reply, body), retry_after(reply))

    def _read_job(self, remote_id: str, reply: Reply, job: Mapping[str, Any], status: str) -> PollOutcome:
        if status in FINISHED:
            return Finished(self._results(remote_id, job), raw=job)
        if status in CANCELED:
            return Canceled(raw=job)
        return Pending(
            progress=percent(job.get("progress")),
            poll_after=wait(reply.headers.get("openai-poll-after-ms"), timedelta(milliseconds=1)),
            oddity=None if status in PENDING else text(status),
            raw=job,
        )

    def _failure(self, job: Mapping[str, Any]) -> Failure:
        error = obj(job.get("error"))
        code, message = _words_of(error)
        asked = asked_to_wait({str(name).lower(): value for name, value in obj(error.get("headers")).items()})
        fault = _fault_of_render(code, message)
        return Failure(
            fault,
            # A code that nobody documents is final, unless the provider says when to come back.
            retryable=asked is not None or (fault is Fault.PROVIDER and code in SERVER_CODES),
            billed=Billed.NO if self.traits.bills_on is BillsOn.NEVER else Billed.UNKNOWN,
            upstream_code=code or None,
            detail=message,
            retry_after=asked,
            raw=job.get("error"),
        )

    def _results(self, remote_id: str, job: Mapping[str, Any]) -> tuple[str, ...]:
        stored = urls(job.get("url")) or urls(job.get("urls")) if self._profile.result_by_url else ()
        return stored or (f"{_path(remote_id)}/content",)

    # Result, cancel, list ---------------------------------------------------------------------------------------------

    def result_call(self, result: str) -> Call:
        return Call("GET", result, authorized=result.startswith("/"))

    def cancel_call(self, remote_id: str) -> Call | None:
        return Call("DELETE", _path(remote_id)) if self.traits.cancels else None

    def read_canceled(self, reply: Reply) -> CancelOutcome:
        body = reply.json()
        if reply.status < 300:
            return CancelOutcome.CONFIRMED if obj(body).get("deleted") is True else CancelOutcome.FAILED
        # An earlier cancel whose reply was lost, or another process behind the same address: polling will tell.
        gone = reply.status == 404 and _error_words(body) is not None
        return CancelOutcome.REQUESTED if gone else CancelOutcome.FAILED

    def list_call(self, after: str | None) -> Call | None:
        query = {"limit": str(LIST_LIMIT), "order": "desc"}
        return Call("GET", "/videos", query=query if after is None else {**query, "after": after})

    def read_page(self, reply: Reply, order: Order | None) -> Page | None:
        body = obj(reply.json())
        items = body.get("data")
        if reply.status >= 300 or not isinstance(items, list):
            return None
        records = tuple(
            Listed(named, moment(item.get("created_at")), _is_order(item, order) if order else None)
            for item in map(obj, items)
            if (named := remote_id(item.get("id")))
        )
        if len(records) < len(items):
            return None
        # Not every server says whether there is more; then only an empty page ends the list.
        more = bool(records) and body.get("has_more") is not False
        return Page(records, after=records[-1].remote_id if more else None)


def _is_order(item: Mapping[str, Any], order: Order) -> bool | None:
    """Whether a listed record is what was ordered; None where it cannot be told."""
    wanted = {"model": order.model, "seconds": str(order.seconds), "size": order.size}
    stated = {name: str(item[name]).removesuffix(".0") for name in wanted if item.get(name) not in (None, "")}
    differs = any(stated[name] != wanted[name] for name in stated)
    prompt = item.get("prompt")
    if prompt == order.prompt:
        return None if differs else True  # the same words with other figures: the server may have changed them
    return False if differs or isinstance(prompt, str) else None


def _error_words(body: Any) -> tuple[str, str] | None:
    """(code, message) of an error reply in one of the documented shapes, else None.

    OpenAI and vLLM: ``{"error": {…}}`` or ``{"error": "…"}``; FastAPI: ``{"detail": "…"}`` or ``{"detail": […]}``.
    """
    error, detail = obj(body).get("error"), obj(body).get("detail")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return _words_of(error)
    if isinstance(error, str):
        return "", text(error)
    if isinstance(detail, str):
        return "", text(detail)
    if isinstance(detail, list) and detail:
        return "", text(json.dumps(detail))
    return None


def _words_of(error: Mapping[str, Any]) -> tuple[str, str]:
    codes = (error.get("code"), error.get("type"))
    code = next((str(value) for value in codes if isinstance(value, str | int) and value != ""), "")
    return text(code)[:100], text(error.get("message"))


def _fault_of_render(code: str, message: str) -> Fault:
    if _mentions(code + message, POLICY_WORDS):
        return Fault.OUTPUT_MODERATION if _mentions(code + message, OUTPUT_WORDS) else Fault.PROMPT
    return Fault.INPUT if _CLIENT_CODE.fullmatch(code) else Fault.PROVIDER


def _mentions(words: str, parts: tuple[str, ...]) -> bool:
    lowered = words.lower()
    return any(part in lowered for part in parts)


def _described(reply: Reply, body: Any) -> str:
    words = _error_words(body) or ("", f"{len(reply.body)} bytes that are not this video object")
    return f"HTTP {reply.status}: {' '.join(words).strip()}"


def _form_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _path(remote_id: str) -> str:
    return f"/videos/{quote(remote_id, safe='')}"
