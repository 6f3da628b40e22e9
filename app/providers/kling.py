"""Adapter for Kling's new-generation API: the model in the path, an API key, text and image to video.

Sources, read in 2026-11: Kling's document-api pages on authentication, error codes, concurrency, callbacks, and text to
video with 2.5 Turbo, 2.6, 3.0 and 3.0 Turbo. Pictures are given by URL, in ``contents``.

* A task stores the submission id as its ``external_task_id``, "unique within the account", and can be queried by it. It
  is not documented whether a second create with the same id is refused, so this is a look-up and not a replay.
* Success is the envelope's ``code``, not HTTP 200; 429 means an unpaid bill as well as a rate limit. A failed task has
  a ``message`` and no code.
* There is no cancel, no seed and no negative prompt; negative wording goes into the prompt.
* It is not documented whether a failed task is charged; the task's ``billing`` tells. ``unit`` rows are taken from
  prepaid packs with varying prices per unit, so only ``cash`` rows in USD count as a cost.
* A callback is sent at every status change. It is signed (Standard Webhooks) while a secret exists in Kling's console.
  Retries are not documented.
* Outputs are deleted after 30 days; their URLs need no credential.
"""

import base64
import binascii
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self
from urllib.parse import quote
from uuid import UUID

from standardwebhooks import Webhook

from app import ids
from app.providers.base import (
    Absent,
    Accepted,
    Access,
    BadAccess,
    BillsOn,
    Callback,
    Failed,
    FindOutcome,
    Finished,
    Found,
    Inconclusive,
    Lookup,
    Missing,
    Page,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    RemoteJobSummary,
    Traits,
    Unreadable,
)
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.inputs import InputRole, InputWay
from app.providers.reading import moment, number, obj, remote_id, retry_after, text, urls
from app.providers.transport import Call, Reply, Transport, json_body

# Status words; `succeed` is the older generation's spelling.
PENDING = {"submitted", "processing"}
FINISHED = {"succeeded", "succeed"}
FAILED = {"failed"}

# A refusal, by the envelope's code: the fault, and whether the same request may succeed later. Codes from 5000 on are
# internal errors and inconclusive.
REFUSAL_CODES = range(1000, 2000)
REFUSALS = {
    **dict.fromkeys(range(1000, 1005), (Fault.ACCOUNT, False)),  # the key
    1100: (Fault.ACCOUNT, False),  # 429: the account's state
    1101: (Fault.QUOTA, False),  # 429: in arrears
    1102: (Fault.QUOTA, False),  # 429: the resource pack is used up or expired
    1103: (Fault.ACCOUNT, False),  # no permission for this model
    1300: (Fault.PROMPT, False),
    1301: (Fault.PROMPT, False),
    1302: (Fault.CAPACITY, True),  # 429: too fast
    1303: (Fault.CAPACITY, True),  # 429: too many at once
    1304: (Fault.ACCOUNT, False),  # 429: the IP address is not allowed
}
OTHER_REFUSAL = (Fault.INPUT, False)
NO_SUCH_RESOURCE = 1203

# Words that classify the message of a failed task: there are no codes, and the messages are not documented.
POLICY_WORDS = ("risk control", "content safety", "sensitive", "moderation", "policy")
OUTPUT_WORDS = ("output", "generated")
SERVER_WORDS = ("internal", "timeout", "timed out", "busy", "try again")

# Names of resolutions, by the short side.
RESOLUTIONS = {2160: "4k"}

BASE_URL = "https://api-singapore.klingai.com"  # the international endpoint; keys are regional
LIST_LIMIT = 100
SIGNATURE_TOLERANCE = 300  # seconds that a callback's timestamp may differ from our clock
CONTENT_TYPES = {InputRole.FIRST_FRAME: "first_frame", InputRole.LAST_FRAME: "last_frame"}
TRAITS = Traits(
    lookup=Lookup.REFERENCE,
    bills_on=BillsOn.ACCEPTANCE,  # conservative: no source says that a failure is free
    poll_interval=timedelta(seconds=10),  # queries are free and count towards no limit; renders take minutes
    lookup_proves_absence=True,  # "unique within the account" and queryable; an unknown id returns an empty list
    visibility_delay=timedelta(minutes=1),  # no source; a task with an id should be found at once
    result_ttl=timedelta(days=30),
    callbacks=True,
    switches_audio=True,
    reserved_options=frozenset({"resolution", "aspect_ratio", "duration", "audio"}),
    input_ways=(InputWay.PUBLIC_URL,),
)

_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Signatures:
    """Verification of callback signatures by Standard Webhooks."""

    webhook: Webhook = field(repr=False)
    now: Callable[[], float]

    @classmethod
    def read(cls, secret: str, now: Callable[[], float]) -> Self:
        """Parse a secret as shown in Kling's console.

        Raises:
            BadAccess: it is not a webhook secret.
        """
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key:
            raise BadAccess(
                "callback_secret", "must be the webhook secret from Kling's console: whsec_ followed by base64"
            )
        return cls(Webhook(key), now)

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a signature in ``headers`` is valid for this body and at most five minutes old."""
        name, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not _SECONDS.fullmatch(sent_at) or abs(self.now() - int(sent_at)) > SIGNATURE_TOLERANCE:
            return False
        try:
            ours = self.webhook.sign(name, datetime.fromtimestamp(int(sent_at), UTC), body.decode()).encode()
        except ValueError:  # not UTF-8, or a timestamp out of range
            return False
        # There are several signatures while Kling rotates the secret. The library's `verify` stops at the first
        # malformed one.
        offered = headers.get("webhook-signature", "").encode(errors="replace").split(b" ")
        return any(hmac.compare_digest(ours, one) for one in offered)


class Kling(Provider):
    """One Kling account in one region."""

    name: ClassVar[str] = "kling"
    pages_by_id: ClassVar[bool] = False

    def __init__(
        self, transport: Transport, callback_secret: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(transport, TRAITS)
        self._signatures = None if callback_secret is None else Signatures.read(callback_secret, now)

    @classmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        access.refuse_dialect_settings("Kling")
        if access.credential is None:
            raise BadAccess("api_key", "is not set")
        headers = {"Authorization": f"Bearer {access.credential}"}
        return cls(access.transport(clients, access.base_url or BASE_URL, headers), access.callback_secret)

    # Create -----------------------------------------------------------------------------------------------------------

    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        short, divisor = min(order.width, order.height), math.gcd(order.width, order.height)
        settings: dict[str, Any] = {
            **order.options,
            "resolution": RESOLUTIONS.get(short, f"{short}p"),
            "aspect_ratio": f"{order.width // divisor}:{order.height // divisor}",
            "duration": order.seconds,
        }
        if order.audio is not None:  # not every model has the field
            settings["audio"] = "native" if order.audio else "off"
        options = {"external_task_id": _external_id(ref)}
        if callback_url is not None:
            options["callback_url"] = callback_url
        body = json_body({**_subject(order), "settings": settings, "options": options})
        path = f"/{'image' if order.inputs else 'text'}-to-video/{quote(order.model, safe='')}"
        return Call("POST", path, headers={"Content-Type": "application/json"}, body=body)

    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        body = reply.json()
        code, message = _envelope(body)
        if code == 0 and reply.status < 300:
            named = remote_id(obj(obj(body).get("data")).get("id"))
            return Accepted(named, raw=body) if named else None
        if code is None or code not in REFUSAL_CODES:
            return None
        fault, retryable = REFUSALS.get(code, OTHER_REFUSAL)
        return Rejected(Failure(fault, retryable, Billed.NO, str(code), message, retry_after(reply), body))

    # Status and result ------------------------------------------------------------------------------------------------

    def status_call(self, remote_id: str) -> Call:
        return Call("GET", "/tasks", query={"task_ids": remote_id})

    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome:
        body = reply.json()
        code, message = _envelope(body)
        tasks = _tasks(reply.status, body)
        if tasks == [] or (reply.status == 404 and code == NO_SUCH_RESOURCE):
            return Missing()
        task = next((task for task in tasks or () if task.get("id") == remote_id), None)
        status = obj(task).get("status")
        if task is not None and isinstance(status, str):
            return _read_task(task, status)
        words = f"{code} {message}" if code else f"unexpected body of {len(reply.body)} bytes"
        return Unreadable(f"HTTP {reply.status}: {words}", retry_after(reply))

    def result_call(self, result: str) -> Call:
        return Call("GET", result, authorized=False)

    # Look-up and list -------------------------------------------------------------------------------------------------

    def reference_call(self, ref: UUID) -> Call | None:
        return Call("GET", "/tasks", query={"external_task_ids": _external_id(ref)})

    def read_reference(self, reply: Reply, ref: UUID) -> FindOutcome:
        tasks = _tasks(reply.status, reply.json())
        if tasks is None:
            return Inconclusive(f"HTTP {reply.status}: not a list of tasks")
        if not tasks:
            return Absent()
        named = [remote_id(task.get("id")) for task in tasks if task.get("external_id") == _external_id(ref)]
        if len(named) == len(tasks) == 1 and named[0] is not None:
            return Found(named[0])
        # Two tasks with one reference are a double submission or an error of Kling's: an operator must decide.
        listed = ", ".join(text(task.get("id")) or "?" for task in tasks[:10])
        return Inconclusive(f"{len(named)} of {len(tasks)} tasks carry our reference: {listed}")

    def list_call(self, after: str | None) -> Call | None:
        fields: dict[str, Any] = {"limit": LIST_LIMIT} if after is None else {"limit": LIST_LIMIT, "cursor": after}
        return Call("POST", "/tasks", headers={"Content-Type": "application/json"}, body=json_body(fields))

    def read_page(self, reply: Reply) -> Page | None:
        body = reply.json()
        data = obj(obj(body).get("data"))
        items, more, cursor = data.get("result"), data.get("has_more"), data.get("next_cursor")
        if reply.status >= 300 or _envelope(body)[0] != 0 or not isinstance(items, list):
            return None
        records = tuple(
            RemoteJobSummary(named, _moment(item.get("create_time")), item, text(item.get("external_id")) or None)
            for item in map(obj, items)
            if (named := remote_id(item.get("id")))
        )
        after = cursor if isinstance(cursor, str) and cursor and more is not False else None
        # A list without a cursor despite `has_more` is incomplete and must not count as ended.
        return None if len(records) < len(items) or (more is True and after is None) else Page(records, after)

    # Callback ---------------------------------------------------------------------------------------------------------

    def read_callback(self, headers: Mapping[str, str], body: bytes) -> Callback | None:
        if self._signatures is not None and not self._signatures.verify(headers, body):
            return None
        named = remote_id(obj(Reply(200, headers, body).json()).get("id"))
        return Callback(named) if named else None


def _subject(order: ProviderRequest) -> dict[str, Any]:
    if not order.inputs:
        return {"prompt": order.prompt}
    pictures = [{"type": CONTENT_TYPES[one.role], "url": one.url} for one in order.inputs]
    return {"contents": [{"type": "prompt", "text": order.prompt}, *pictures]}


def _external_id(ref: UUID) -> str:
    return ids.encode(ids.Prefix.SUBMISSION, ref)


def _envelope(body: Any) -> tuple[int | None, str]:
    """The code and message of a reply; no code if it does not have Kling's shape."""
    code = obj(body).get("code")
    return (code if type(code) is int else None), text(obj(body).get("message"))


def _tasks(status: int, body: Any) -> list[Mapping[str, Any]] | None:
    """The tasks in the reply to a query; None if it is not one."""
    data = obj(body).get("data")
    if status >= 300 or _envelope(body)[0] != 0 or not isinstance(data, list):
        return None
    return [obj(item) for item in data]


def _read_task(task: Mapping[str, Any], status: str) -> PollOutcome:
    rows, cost = _billing(task)
    if status in FINISHED:
        outputs = task.get("outputs")
        items = map(obj, outputs if isinstance(outputs, list) else [])
        results = urls([item.get("url") for item in items if item.get("type") == "video"])
        return Finished(results, cost, task) if results else Unreadable(f"{status} without a video")
    if status in FAILED:
        billed = Billed.UNKNOWN if not rows else Billed.YES if sum(rows) else Billed.NO
        return Failed(_failure(task, billed), cost, task)
    return Pending(oddity=None if status in PENDING else text(status), raw=task)


def _failure(task: Mapping[str, Any], billed: Billed) -> Failure:
    message = text(task.get("message"))
    lowered = message.lower()
    if any(word in lowered for word in POLICY_WORDS):
        fault = Fault.OUTPUT_MODERATION if any(word in lowered for word in OUTPUT_WORDS) else Fault.PROMPT
        return Failure(fault, retryable=False, billed=billed, detail=message, raw=task)
    retryable = any(word in lowered for word in SERVER_WORDS)
    return Failure(Fault.PROVIDER, retryable, billed, detail=message, raw=task)


def _billing(task: Mapping[str, Any]) -> tuple[list[Decimal], Decimal | None]:
    """The charged amounts in any unit, and their sum in USD if all of them are cash."""
    billing = task.get("billing")
    rows = [obj(row) for row in billing] if isinstance(billing, list) else []
    amounts = [_amount(row.get("amount")) for row in rows]
    known = [amount for amount in amounts if amount is not None]
    if len(known) < len(rows):
        return [], None
    cash = all((row.get("charge_type"), row.get("currency")) == ("cash", "USD") for row in rows)
    return known, sum(known, Decimal(0)) if cash and rows else None


def _amount(value: Any) -> Decimal | None:
    """A decimal in a string, as Kling sends it, or a number."""
    return Decimal(value) if isinstance(value, str) and _AMOUNT.fullmatch(value) else number(value)


def _moment(value: Any) -> datetime | None:
    """Unix milliseconds as a datetime."""
    return moment(value // 1000) if type(value) is int else None
