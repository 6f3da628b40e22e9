"""Adapter for Runway's API: one account and one task format for the models of several vendors.

Text to video, and image to video from the first frame, or the first and the last one.

Sources, read in 2026-11: the Python SDK runwayml 5.24.0, and docs.dev.runwayml.com on errors, task failures, usage
tiers and assets.

* There is no idempotency key, no list of tasks and no callback: a lost reply can never be resolved.
* ``THROTTLED`` means accepted and waiting for the account's concurrency limit; the task starts by itself, so it is
  pending.
* ``estimatedCost`` is the highest cost of a task; ``cost`` of an ended task is the real charge, 0 if refunded. A credit
  is one US cent.
* DELETE cancels an unfinished task, without a guarantee that the render stops, and without a refund once it runs; it
  deletes a finished task. Afterwards the task is ``CANCELLED`` with its cost, or unknown. So a cancel is only
  *requested*: poll for the cost right before and once after it.
* ``promptImage`` is a URL or a data URL, or a list of them with positions. A data URL has at most 5 MB; a URL must
  have a domain name, respond to HEAD with type and size, and not redirect.
* Output URLs are signed and valid for 24–48 hours; reading the task again returns new ones.
"""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
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
    Lookup,
    Missing,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    Traits,
    Unreadable,
)
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.inputs import InputRole, InputWay
from app.providers.reading import number, obj, percent, remote_id, retry_after, text, urls
from app.providers.transport import Call, Reply, json_body

# Status words.
PENDING = {"PENDING", "THROTTLED", "RUNNING"}
FINISHED = {"SUCCEEDED"}
FAILED = {"FAILED"}
CANCELED = {"CANCELLED"}

# By prefix of a task's `failureCode`, first match wins: the fault, whether the same request may succeed, and whether it
# is charged if the task shows no cost. Runway documents further segments as hints only.
FAILURES = (
    ("SAFETY.INPUT", Fault.PROMPT, False, Billed.YES),
    ("SAFETY.OUTPUT", Fault.OUTPUT_MODERATION, False, Billed.UNKNOWN),
    ("ASSET.INVALID", Fault.INPUT, False, Billed.UNKNOWN),
    ("INTERNAL", Fault.PROVIDER, True, Billed.UNKNOWN),
    ("", Fault.PROVIDER, False, Billed.UNKNOWN),
)
NO_CODE = "INTERNAL"

# A refused create, by HTTP status. 429 is the quota of the last 24 hours: excess concurrency is THROTTLED instead.
REFUSALS = {
    401: (Fault.ACCOUNT, False),
    402: (Fault.QUOTA, False),
    403: (Fault.ACCOUNT, False),
    429: (Fault.QUOTA, True),
}
OTHER_REFUSAL = (Fault.INPUT, False)
# Words that classify a refusal; the status for an empty balance is not documented.
WORDS_OF_REFUSAL = (
    ("moderation", Fault.PROMPT),
    ("content policy", Fault.PROMPT),
    ("safety", Fault.PROMPT),
    ("enough credits", Fault.QUOTA),
)

# A refused cancel. A 404 is no confirmation: polling resolves whether the task is gone.
REFUSED_CANCELS = {400: CancelOutcome.NOT_CANCELLABLE}

POSITIONS = {InputRole.FIRST_FRAME: "first", InputRole.LAST_FRAME: "last"}

BASE_URL = "https://api.dev.runwayml.com"
VERSION = "2024-11-06"
USD_PER_CREDIT = Decimal("0.01")
TRAITS = Traits(
    lookup=Lookup.NONE,
    bills_on=BillsOn.ACCEPTANCE,
    poll_interval=timedelta(seconds=6),  # documented: at most every 5 s per task
    result_ttl=timedelta(hours=24),
    cancels=True,
    switches_audio=True,
    reserved_options=frozenset(
        {"model", "promptText", "ratio", "duration", "seed", "audio", "negativePrompt", "promptImage", "resolution"}
    ),
    # A data URL needs no way from Runway to this gateway.
    input_ways=(InputWay.DATA_URL, InputWay.PUBLIC_URL),
    max_inline_bytes=3_700_000,  # 5 MB in base64
)


class Runway(Provider):
    """One Runway project."""

    name: ClassVar[str] = "runway"

    @classmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        access.refuse_dialect_settings("Runway")
        if access.credential is None:
            raise BadAccess("api_key", "is not set")
        headers = {"Authorization": f"Bearer {access.credential}", "X-Runway-Version": VERSION}
        return cls(access.transport(clients, access.base_url or BASE_URL, headers), TRAITS)

    # Create -----------------------------------------------------------------------------------------------------------

    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        del ref, callback_url
        fields: dict[str, Any] = {
            **order.options,
            "model": order.model,
            "promptText": order.prompt,
            "ratio": f"{order.width}:{order.height}",
            "duration": order.seconds,
        }
        # Each model has its own strict schema, so unset fields are not sent.
        optional = {"seed": order.seed, "audio": order.audio, "negativePrompt": order.negative_prompt}
        fields |= {name: value for name, value in optional.items() if value is not None}
        if order.inputs:
            fields["promptImage"] = _prompt_image(order)
        path = "/v1/image_to_video" if order.inputs else "/v1/text_to_video"
        return Call("POST", path, headers={"Content-Type": "application/json"}, body=json_body(fields))

    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        body = reply.json()
        if reply.status < 300:
            named = remote_id(obj(body).get("id"))
            return Accepted(named, _usd(obj(body).get("estimatedCost")), body) if named else None
        message = obj(body).get("error")
        if not isinstance(message, str):
            return None
        fault, retryable = REFUSALS.get(reply.status, OTHER_REFUSAL)
        if fault is not Fault.ACCOUNT:
            lowered = message.lower()
            fault = next((meant for words, meant in WORDS_OF_REFUSAL if words in lowered), fault)
        failure = Failure(fault, retryable, Billed.NO, None, text(message), retry_after(reply), body)
        return Rejected(failure)

    # Status -----------------------------------------------------------------------------------------------------------

    def status_call(self, remote_id: str) -> Call:
        return Call("GET", _path(remote_id))

    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome:
        body = reply.json()
        status = obj(body).get("status")
        if reply.status < 300 and isinstance(status, str) and obj(body).get("id") == remote_id:
            return self._read_task(obj(body), status)
        if reply.status == 404 and isinstance(obj(body).get("error"), str):
            return Missing()
        words = text(obj(body).get("error")) or f"unexpected body of {len(reply.body)} bytes"
        return Unreadable(f"HTTP {reply.status}: {words}", retry_after(reply))

    def _read_task(self, task: Mapping[str, Any], status: str) -> PollOutcome:
        cost = _usd(task.get("cost"))
        if status in FINISHED:
            results = urls(task.get("output"))
            return Finished(results, cost, task) if results else Unreadable(f"{status} without a result")
        if status in FAILED:
            return Failed(_failure(task, cost), cost, task)
        if status in CANCELED:
            return Canceled(cost, task)
        progress = percent(task.get("progress"), whole=1)
        return Pending(progress, oddity=None if status in PENDING else text(status), raw=task)

    # Result and cancel ------------------------------------------------------------------------------------------------

    def result_call(self, result: str) -> Call:
        return Call("GET", result, authorized=False)

    def cancel_call(self, remote_id: str) -> Call | None:
        return Call("DELETE", _path(remote_id))

    def read_canceled(self, remote_id: str, reply: Reply) -> CancelOutcome:
        del remote_id
        if reply.status < 300:
            return CancelOutcome.REQUESTED
        refused = isinstance(obj(reply.json()).get("error"), str)
        return REFUSED_CANCELS.get(reply.status, CancelOutcome.FAILED) if refused else CancelOutcome.FAILED


def _prompt_image(order: ProviderRequest) -> str | list[dict[str, str]]:
    """One picture is the first frame, unless it says otherwise."""
    if [one.role for one in order.inputs] == [InputRole.FIRST_FRAME]:
        return order.inputs[0].reference
    return [{"uri": one.reference, "position": POSITIONS[one.role]} for one in order.inputs]


def _failure(task: Mapping[str, Any], cost: Decimal | None) -> Failure:
    code = text(task.get("failureCode"))[:100]
    _, fault, retryable, billed = next(row for row in FAILURES if (code or NO_CODE).startswith(row[0]))
    if cost is not None:
        billed = Billed.YES if cost else Billed.NO
    return Failure(fault, retryable, billed, code or None, text(task.get("failure")), raw=task)


def _usd(charge: Any) -> Decimal | None:
    credits_ = number(obj(charge).get("credits"))
    return None if credits_ is None else credits_ * USD_PER_CREDIT


def _path(remote_id: str) -> str:
    return f"/v1/tasks/{quote(remote_id, safe='')}"
