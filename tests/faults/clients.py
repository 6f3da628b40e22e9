"""What customers do meanwhile: order videos, lose answers and ask again with the same key, cancel.

There are two of them, each with an account of its own.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Self

import aiohttp

from app.providers.inputs import data_url
from tests.faults.environment import Arena
from tests.faults.pictures import picture_of
from tests.faults.recipes import SPICE, Recipe

EVERY = 7  # of so many orders at least one wants a webhook
SECOND_ACCOUNT_SHARE = 0.2
PAIR_SHARE = 0.3
TRY_AGAIN_SECONDS = 0.15
ANSWER_SECONDS = 6.0
LONGEST_OUTAGE = 60.0
SEEDS = 1000


class Likeness(Enum):
    """How the second order of a round's fault resembles the first."""

    UNLIKE = auto()
    EQUAL = auto()
    OTHER_SEED = auto()
    OTHER_ACCOUNT = auto()


@dataclass(slots=True)
class Order:
    """One order, and what its customer knows.

    ``kind`` is of the fault that it was made for. ``gives_up``: the customer does not ask again when the answer is
    lost. ``account``: which of the customers. ``job_id``: the gateway answered 202, with this job.
    """

    key: str
    kind: str
    recipe: Recipe
    prompt: str
    gives_up: bool
    account: int = 0
    seed: int | None = None
    job_id: str | None = None

    @property
    def accepted(self) -> bool:
        return self.job_id is not None

    @property
    def body(self) -> dict[str, Any]:
        """What is sent, but for a webhook."""
        seed = {} if self.seed is None else {"seed": self.seed}
        return {**self.recipe.body, **seed, "prompt": self.prompt, "metadata": {"order": self.key}}


class Customer:
    """Talks to the gateway as one who wants every video, once. Keeps every order, by its key."""

    def __init__(self, arena: Arena, chance: random.Random) -> None:
        self.orders: dict[str, Order] = {}
        self._arena = arena
        self._chance = chance
        self._number = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(force_close=True),  # a lost answer is this request's own
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._session.close()

    def reseed(self, seed: str) -> None:
        """Draw everything from here on by this seed, whatever was drawn before."""
        self._chance.seed(seed)

    def think_of(self, kind: str, recipes: Sequence[Recipe], count: int) -> list[Order]:
        """So many orders by these recipes, and one or two of another kind; pairs of them are often nearly equal."""
        chance = self._chance
        orders = [self._order(kind, recipe) for recipe in chance.choices(recipes, k=count)]
        spice = [chance.choice(chance.choice(SPICE))] * (1 + (chance.random() < PAIR_SHARE))
        others = [self._order(kind, recipe) for recipe in spice]
        for one, other, *_ in (pair for pair in (orders, others) if len(pair) > 1):
            self._liken(one, other)
        return orders + others

    async def place(self, orders: Iterable[Order]) -> None:
        """Place these orders, all at once, and cancel what is to be canceled."""
        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(self._place(order))

    async def get(self, path: str, account: int = 0) -> Any:
        """What the gateway says to a customer, or None for a 404."""
        async with self._session.get(f"{self._arena.url}{path}", headers=self._credential(account)) as reply:
            if reply.status == 404:
                return None
            reply.raise_for_status()
            return await reply.json()

    def _order(self, kind: str, recipe: Recipe) -> Order:
        chance = self._chance
        self._number += 1
        if self._number % EVERY == 0:
            recipe = replace(recipe, webhook=True)
        key = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        prompt = f"video {key[:8]} {recipe.script}".strip() + recipe.tail
        order = Order(key, kind, recipe, prompt, gives_up=chance.random() < 0.2)
        order.account = int(chance.random() < SECOND_ACCOUNT_SHARE)
        self.orders[key] = order
        return order

    def _liken(self, one: Order, other: Order) -> None:
        """Make the second order nearly the first, where chance says so."""
        likeness = self._chance.choice(list(Likeness))
        if likeness is Likeness.UNLIKE:
            return
        other.recipe, other.prompt, other.account = one.recipe, one.prompt, one.account
        if likeness is Likeness.OTHER_ACCOUNT:
            other.account = 1 - one.account
        elif likeness is Likeness.OTHER_SEED and one.recipe.takes_seed:
            one.seed, other.seed = self._chance.sample(range(SEEDS), 2)

    async def _place(self, order: Order) -> None:
        body = order.body
        if order.recipe.picture == "url":
            body |= {
                "mode": "adjust",
                "inputs": [{"role": "first_frame", "url": f"{self._arena.pictures}/{order.key}"}],
            }
        elif order.recipe.picture == "data_url":
            data = data_url("image/png", picture_of(order.key))
            body |= {"mode": "adjust", "inputs": [{"role": "first_frame", "data_url": data}]}
        if order.recipe.webhook:
            body["webhook_url"] = self._arena.receiver.url
            if self._chance.random() < 0.3:
                self._arena.receiver.will_answer(500)
        job = await self._ask("/v1/jobs", 202, order, body, once=order.gives_up)
        if job is None:
            return
        order.job_id = job["id"]
        if order.recipe.cancel_in is not None:
            if order.recipe.under_way:
                await self._rendering(order)
            await asyncio.sleep(order.recipe.cancel_in)
            await self._ask(f"/v1/jobs/{order.job_id}/cancel", 200, order)

    async def _rendering(self, order: Order) -> None:
        """Return when the provider is at work on a job, or it seems that it never will be."""
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                job = await self.get(f"/v1/jobs/{order.job_id}", order.account)
                if job["phase"] not in {"preparing", "waiting", "submitting", "confirming"}:
                    return
            await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def _ask(
        self, path: str, status: int, order: Order, body: Any = None, *, once: bool = False
    ) -> dict[str, Any] | None:
        """POST until there is an answer; None where there is none to have."""
        headers = self._credential(order.account) | ({"Idempotency-Key": order.key} if body else {})
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

    def _credential(self, account: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._arena.keys[account]}"}
