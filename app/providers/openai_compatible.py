"""Adapter for servers with OpenAI's Videos API. ``openai_profiles.py`` has their differences and the sources.

* ``variant`` is never sent: the default is the video, SGLang returns 404 for ``variant=video``, vLLM-Omni ignores it.
* vLLM-Omni reports a failed job as an HTTP error whose body is the job. So a body with the status ``failed`` is trusted
  with any HTTP status.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar
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
    Likeness,
    Lookup,
    Missing,
    Page,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    RemoteJobSummary,
    Unreadable,
)
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.inputs import ProviderInput
from app.providers.openai_errors import ErrorWords, fault_of_render, read_error, refusal_of, words_of
from app.providers.openai_profiles import ENCODINGS, PROFILES, SECONDS_TYPES, Profile, matches
from app.providers.reading import moment, obj, percent, remote_id, requested_delay, retry_after, text, urls, wait
from app.providers.search import folded, is_another_prompt
from app.providers.transport import Call, FilePart, Reply, Transport, json_body, multipart_body

# Status words, in lower case. In addition to OpenAI's: `deleted` is SGLang's, `expired` OpenAI's batch output; the
# others were observed at look-alikes. An unknown word is recorded as an oddity, and the job stays pending.
PENDING = {"queued", "in_progress", "pending", "processing", "running", "generating", "submitted", "not_start"}
FINISHED = {"completed", "complete", "succeeded", "success", "done", "finished"}
FAILED = {"failed", "failure", "error", "errored", "expired", "rejected"}
CANCELED = {"cancelled", "canceled", "deleted", "aborted"}

# Codes of a failed job that mean a server error, so a retry may succeed. vLLM-Omni's code is the HTTP status.
SERVER_CODES = {"server_error", "internal_error", "internal_server_error", "500", "502", "503", "504"}

LIST_LIMIT = 100

T = TypeVar("T")


class OpenAICompatible(Provider):
    """One server, or one account of a hosted look-alike."""

    name: ClassVar[str] = "openai_compatible"

    def __init__(self, transport: Transport, profile: Profile, *, exclusive: bool = False) -> None:
        super().__init__(transport, profile.traits, exclusive=exclusive)
        self._profile = profile

    @classmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        profile = PROFILES.get(access.profile or "")
        if profile is None:
            raise BadAccess("profile", f"must be one of: {', '.join(PROFILES)}")
        if access.base_url is None:
            raise BadAccess("base_url", "is not set; use the server's address including /v1")
        if access.credential is None and profile.needs_key:
            raise BadAccess("api_key", "is not set")
        profile = replace(
            profile,
            create_encoding=_chosen("create_encoding", access.create_encoding, ENCODINGS, profile.create_encoding),
            seconds_type=_chosen("seconds_type", access.seconds_type, SECONDS_TYPES, profile.seconds_type),
        )
        headers = {"Authorization": f"Bearer {access.credential}"} if access.credential else {}
        transport = access.transport(clients, access.base_url, headers)
        return cls(transport, profile, exclusive=access.exclusive_account)

    # Create -----------------------------------------------------------------------------------------------------------

    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
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
        if self._profile.create_encoding == "json" and not order.inputs:
            body, content_type = json_body(fields), "application/json"
        else:
            # Every profile takes a form, and the official SDKs send files in no other way.
            texts = {name: _form_text(value) for name, value in fields.items()}
            body, content_type = multipart_body(texts, ref, map(self._file_part, order.inputs))
        return Call("POST", "/videos", headers={"Content-Type": content_type}, body=body)

    def _file_part(self, one: ProviderInput) -> FilePart:
        name = self._profile.input_fields[one.role]
        return FilePart(name, one.name, one.file.format.content_type, one.data or b"")

    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        body = reply.json()
        if reply.status < 300:
            named = remote_id(obj(body).get("id"))
            return Accepted(named, raw=body) if named else None
        words = self._error(body)
        if words is None:
            return None
        fault, retryable = refusal_of(reply.status, words, self._profile.account_words)
        detail = f"{words.kind} {words.message}".strip()
        return Rejected(Failure(fault, retryable, Billed.NO, words.code or None, detail, retry_after(reply), body))

    def is_conclusive(self, reply: Reply) -> bool:
        words = self._error(reply.json()) if reply.status >= 400 else None
        exact = words is not None and matches(self._profile.refuses_by, reply.status, str(words))
        return exact or super().is_conclusive(reply)

    def _error(self, body: Any) -> ErrorWords | None:
        return read_error(body, self._profile.error_shapes)

    # Status -----------------------------------------------------------------------------------------------------------

    def status_call(self, remote_id: str) -> Call:
        return Call("GET", _path(remote_id))

    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome:
        body = reply.json()
        status = obj(body).get("status")
        if isinstance(status, str) and obj(body).get("id") in (None, remote_id):
            if status.lower() in FAILED:
                return Failed(self._failure(body), raw=body)
            if reply.status < 300:
                return self._read_job(remote_id, reply, body, status.lower())
        words = self._error(body)
        if words is not None and matches(self._profile.unknown_id, reply.status, str(words)):
            return Missing()
        said = words or f"unexpected body of {len(reply.body)} bytes"
        return Unreadable(f"HTTP {reply.status}: {said}", retry_after(reply))

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
        # TensorRT-LLM's error is text.
        words = words_of(error) if error else ErrorWords("", text(job.get("error")))
        asked = requested_delay({str(name).lower(): value for name, value in obj(error.get("headers")).items()})
        fault = fault_of_render(words)
        return Failure(
            fault,
            # An undocumented code is final, unless the provider says when to retry.
            retryable=asked is not None or (fault is Fault.PROVIDER and words.code in SERVER_CODES),
            billed=Billed.NO if self.traits.bills_on is BillsOn.NEVER else Billed.UNKNOWN,
            upstream_code=words.code or None,
            detail=words.message,
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

    def read_canceled(self, remote_id: str, reply: Reply) -> CancelOutcome:
        # A 404 is no confirmation: another replica may continue the render. Polling resolves it.
        body = obj(reply.json())
        stopped = reply.status < 300 and body.get("deleted") is True and body.get("id") in (None, remote_id)
        return CancelOutcome.CONFIRMED if stopped else CancelOutcome.FAILED

    def list_call(self, after: str | None) -> Call | None:
        if self.traits.lookup is not Lookup.LIST:
            return None
        query = {"limit": str(LIST_LIMIT), "order": "desc"}
        query = query if after is None else {**query, "after": after}
        return Call("GET", "/videos", query=query, headers={"Cache-Control": "no-cache"})

    def read_page(self, reply: Reply) -> Page | None:
        body = obj(reply.json())
        items = body.get("data")
        if reply.status != 200 or not isinstance(items, list) or body.get("error") or _is_cached(reply):
            return None
        records = tuple(
            RemoteJobSummary(named, moment(item.get("created_at")), item, usable=remote_id(named) is not None)
            for item in map(obj, items)
            if (named := text(item.get("id")))
        )
        if len(records) < len(items) or (not items and body.get("has_more") is True):
            return None
        # Some servers omit `has_more`; then only an empty page ends the list.
        more = bool(records) and body.get("has_more") is not False and not self._profile.lists_in_one_page
        return Page(records, after=records[-1].remote_id if more else None)

    def likeness(self, shown: Mapping[str, Any], order: ProviderRequest) -> Likeness:
        profile = self._profile
        if profile.echoes_prompt_exactly and is_another_prompt(shown.get("prompt"), order.prompt):
            return Likeness.EXCLUDED
        ordered: dict[str, str | int] = {
            "model": order.model,
            "prompt": order.prompt,
            "seconds": order.seconds,
            "size": order.size,
        }
        told = {**shown, "seconds": shown.get(profile.length_field)}
        agrees = all(_repeats(told.get(name), ordered[name]) for name in profile.echoes)
        # A field that is not repeated may differ: on a shared account the match is then not exact.
        extras = (order.seed, order.negative_prompt, order.audio)
        plain = not order.options and not order.inputs and all(extra is None for extra in extras)
        repeated = plain and profile.echoes >= ordered.keys()
        return Likeness.EXACT if agrees and (repeated or self.exclusive) else Likeness.DOUBT


def _is_cached(reply: Reply) -> bool:
    """Whether the reply comes from a cache: its list may be older than the submission."""
    return reply.headers.get("age", "0").strip() not in {"", "0"}


def _repeats(shown: Any, ordered: str | int) -> bool:
    if isinstance(ordered, str):
        return isinstance(shown, str) and folded(shown) == folded(ordered)
    try:
        return not isinstance(shown, bool) and float(shown) == ordered
    except (TypeError, ValueError):
        return False


def _chosen(key: str, chosen: str | None, choices: Mapping[str, T], default: T) -> T:
    if chosen is None:
        return default
    if chosen not in choices:
        raise BadAccess(key, f"must be one of: {', '.join(choices)}")
    return choices[chosen]


def _form_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _path(remote_id: str) -> str:
    return f"/videos/{quote(remote_id, safe='')}"
