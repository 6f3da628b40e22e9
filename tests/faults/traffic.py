"""What customers do meanwhile: order films, lose answers and ask again with the same key, cancel."""

import asyncio
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import aiohttp

from app.checkpoints import Checkpoint
from tests.faults.arena import Arena

FILM: dict[str, Any] = {"model": "sandbox/film"}
RUNWAY: dict[str, Any] = {"model": "runway/gen4.5", "seconds": 2, "size": "1280x720"}
KLING: dict[str, Any] = {"model": "kling/kling-2.6", "seconds": 5, "size": "1280x720"}
EVERY = 7  # of so many orders at least one wants a webhook
TRY_AGAIN_SECONDS = 0.15
ANSWER_SECONDS = 6.0
LONGEST_OUTAGE = 60.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of order: ``script`` is for the sandbox, ``cancel_in`` seconds until the customer thinks again.

    ``under_way``: these seconds begin when the film is being rendered.
    """

    script: str = ""
    body: dict[str, Any] = field(default_factory=lambda: FILM)
    cancel_in: float | None = None
    under_way: bool = False
    webhook: bool = False


PLAIN = (Recipe(), Recipe("[slow:0.3]"), Recipe("[slow:0.6]"), Recipe(body=RUNWAY), Recipe("[slow:0.3]", KLING))
LOST = (Recipe("[lose-reply]"), Recipe("[lose-reply:truncate]"), Recipe("[html]"), Recipe("[lose-reply]", KLING))
CANCELED = (Recipe("[slow:3]", RUNWAY, cancel_in=0.5), Recipe("[slow:3]", RUNWAY, cancel_in=0.1))
STOPPED = (Recipe("[slow:5]", RUNWAY, cancel_in=0.0, under_way=True),)
ABANDONED = (Recipe("[gone:25]"), Recipe("[gone:9]"), Recipe("[gone:9]", RUNWAY), Recipe("[lose-reply]", RUNWAY))
TOLD = (Recipe(webhook=True), Recipe(body=RUNWAY, webhook=True))
#: What else happens, so that no fault meets a quiet house.
SPICE = (
    *(Recipe(f"[{script}]") for script in ("500", "429", "flaky:3", "gone:2", "odd-status:2", "late:0.5", "garbage")),
    *(Recipe(f"[fail:{why}]") for why in ("moderation", "output", "internal", "prompt")),
    *(Recipe(f"[callback:{how}] [slow:0.3]", KLING) for how in ("forged", "twice", "early")),
    *(Recipe(f"[{script}]", RUNWAY) for script in ("lose-reply", "flaky:2", "truncated", "expired", "fail:internal")),
    Recipe("[slow:1] [no-cancel]", RUNWAY, cancel_in=0.4),
    Recipe("[slow:0.5]", cancel_in=0.0),
    *LOST,
    *CANCELED,
    *ABANDONED,
)
#: What makes a process come through a place; PLAIN where nothing is named.
LEADS_TO = {
    Checkpoint.CANCEL_WRITTEN: CANCELED,
    Checkpoint.CANCEL_COMMITTED: CANCELED,
    Checkpoint.UPSTREAM_CANCELED: STOPPED,
    Checkpoint.CONFIRM_CLAIMED: LOST,
    Checkpoint.CONFIRM_ANSWERED: LOST,
    Checkpoint.WATCH_CLAIMED: ABANDONED,
    Checkpoint.WATCH_ANSWERED: ABANDONED,
    Checkpoint.DELIVER_CLAIMED: TOLD,
    Checkpoint.DELIVER_SENT: TOLD,
    Checkpoint.DELIVER_RECORDED: TOLD,
}


@dataclass(slots=True)
class Order:
    """One order, and what its customer knows. ``accepted``: the gateway answered 202, with this job."""

    key: str
    kind: str  # of the fault that it was made for
    recipe: Recipe
    prompt: str
    gives_up: bool  # does not ask again when the answer is lost
    job_id: str | None = None

    @property
    def accepted(self) -> bool:
        return self.job_id is not None


class Customer:
    """Talks to the gateway as one who wants every film, once. Keeps every order, by its key."""

    def __init__(self, arena: Arena, chance: random.Random) -> None:
        self.orders: dict[str, Order] = {}
        self._arena = arena
        self._chance = chance
        self._number = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._arena.key}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(force_close=True),  # a lost answer is this request's own
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._session.close()

    def think_of(self, kind: str, recipes: Sequence[Recipe], count: int) -> list[Order]:
        """So many orders by these recipes, two of them equal, and one of another kind."""
        chance = self._chance
        chosen = [*chance.choices(recipes, k=count), chance.choice(SPICE)]
        orders = [self._order(kind, recipe) for recipe in chosen]
        if count > 1 and chance.random() < 0.5:
            orders[1].recipe, orders[1].prompt = orders[0].recipe, orders[0].prompt
        return orders

    async def place(self, orders: Iterable[Order]) -> None:
        """Place these orders, all at once, and cancel what is to be canceled."""
        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(self._place(order))

    async def get(self, path: str) -> Any:
        """What the gateway says, or None for a 404."""
        async with self._session.get(f"{self._arena.url}{path}") as reply:
            if reply.status == 404:
                return None
            reply.raise_for_status()
            return await reply.json()

    def _order(self, kind: str, recipe: Recipe) -> Order:
        self._number += 1
        if self._number % EVERY == 0:
            recipe = replace(recipe, webhook=True)
        key = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        order = Order(key, kind, recipe, f"film {key[:8]} {recipe.script}".strip(), self._chance.random() < 0.2)
        self.orders[key] = order
        return order

    async def _place(self, order: Order) -> None:
        body = {**order.recipe.body, "prompt": order.prompt, "metadata": {"order": order.key}}
        if order.recipe.webhook:
            body["webhook_url"] = self._arena.receiver.url
            if self._chance.random() < 0.3:
                self._arena.receiver.will_answer(500)
        job = await self._ask("/v1/jobs", 202, body, order.key, once=order.gives_up)
        if job is None:
            return
        order.job_id = job["id"]
        if order.recipe.cancel_in is not None:
            if order.recipe.under_way:
                await self._rendering(order.job_id)
            await asyncio.sleep(order.recipe.cancel_in)
            await self._ask(f"/v1/jobs/{order.job_id}/cancel", 200)

    async def _rendering(self, job_id: str) -> None:
        """Return when the provider is at work on a job, or it seems that it never will be."""
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                job = await self.get(f"/v1/jobs/{job_id}")
                if job["phase"] not in {"waiting", "submitting", "confirming"}:
                    return
            await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def _ask(
        self, path: str, status: int, body: Any = None, key: str | None = None, *, once: bool = False
    ) -> dict[str, Any] | None:
        """POST until there is an answer; None where there is none to have."""
        headers = {"Idempotency-Key": key} if key else {}
        end = time.monotonic() + LONGEST_OUTAGE
        said = "nothing"
        while time.monotonic() < end:
            asked = True
            try:
                async with self._session.post(f"{self._arena.url}{path}", json=body, headers=headers) as reply:
                    if reply.status == status:
                        answer: dict[str, Any] = await reply.json()
                        return answer
                    if reply.status == 409:
                        return None  # it has ended already
                    said = f"HTTP {reply.status} {await reply.text()}"
                    if reply.status < 500:
                        break
            except aiohttp.ClientConnectorError:
                asked = False
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            if once and asked:
                return None
            await asyncio.sleep(TRY_AGAIN_SECONDS)
        self._arena.broken.append(f"POST {path} was not taken: {said}")
        return None
