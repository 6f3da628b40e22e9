"""One round: some faults with their orders, side by side; then all faults off until everything has ended."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import asyncpg
from redis.asyncio import Redis

from tests.faults.child import Trap
from tests.faults.clients import Customer
from tests.faults.environment import WORKERS, Arena
from tests.faults.fast_settings import PAST_EVERY_LEASE
from tests.faults.findings import FaultCounts
from tests.faults.plan import Attack, Fault, Lane
from tests.faults.processes import Child
from tests.faults.recipes import LEADS_TO, ORDINARY, Recipe
from tests.support.fault_proxy import Mode, Side

#: How long a trap waits for its victim, and after how long more orders are placed to lead one there.
TRAP_SECONDS = 12.0
MORE_ORDERS_SECONDS = 3.0
TRIES_IN_PEACE = 5
FREEZE_SECONDS = 1.5
CALM_SECONDS = 0.3
OUR_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'filmgate %'
"""


class Round:
    """Plays faults in an arena."""

    def __init__(self, arena: Arena, customer: Customer, tally: FaultCounts, say: Callable[[str], None]) -> None:
        self._arena = arena
        self._customer = customer
        self._tally = tally
        self._say = say
        self._missed: list[Fault] = []

    async def play(self, faults: Sequence[Fault]) -> None:
        """Do all of these faults; returns when they are over and calm has come."""
        of_worker = [fault for fault in faults if fault.lane is Lane.WORKER]
        async with asyncio.TaskGroup() as lanes:
            for slot in range(WORKERS):
                lanes.create_task(self._lane(of_worker[slot::WORKERS], slot))
            for lane in (Lane.API, Lane.AROUND):
                lanes.create_task(self._lane([fault for fault in faults if fault.lane is lane]))
        await self._arena.calm()
        for _ in range(TRIES_IN_PEACE):  # nothing else keeps the victim from the trap
            again, self._missed = self._missed, []
            for fault in again:
                await self._do(replace(fault, passing=1), 0)
        for fault in self._missed:
            self._say(f"nobody came by: {fault}")
        await self._arena.calm()

    async def _lane(self, faults: Sequence[Fault], slot: int = 0) -> None:
        for fault in faults:
            await self._do(fault, slot)
        if faults and faults[0].lane is Lane.WORKER:
            self._arena.new_worker(slot)  # the other lanes go on, and somebody has to do the work

    async def _do(self, fault: Fault, slot: int) -> None:
        began = time.monotonic()
        if fault.place is not None:
            done = await self._trap(fault, slot)
        elif fault.lane is Lane.AROUND:
            done = await self._around(fault)
        else:
            done = await self._signal(fault, slot)
        if done:
            self._tally.faults[fault.kind] += 1
        else:
            self._missed.append(fault)
        self._say(f"{time.monotonic() - began:5.1f} s  {fault}{'' if done else ': not yet'}")

    async def _order(self, fault: Fault, recipes: Sequence[Recipe] = ORDINARY, count: int | None = None) -> None:
        await self._customer.place(self._customer.think_of(fault.kind, recipes, count or fault.orders))

    # Processes --------------------------------------------------------------------------------------------------------

    async def _trap(self, fault: Fault, slot: int) -> bool:
        """Lay a trap, and lead a process there."""
        assert fault.place is not None
        number = signal.SIGKILL if fault.attack is Attack.KILL_AT else signal.SIGSTOP
        victim = await self._start(fault, slot, Trap(fault.place, fault.passing, number))
        recipes = LEADS_TO.get(fault.place, ORDINARY)
        async with asyncio.TaskGroup() as orders:
            end = time.monotonic() + TRAP_SECONDS
            count = fault.passing + fault.orders
            while not (snapped := victim.snapped.is_set()) and not victim.over.is_set() and time.monotonic() < end:
                orders.create_task(self._order(fault, recipes, count))
                await _within(MORE_ORDERS_SECONDS, victim.snapped.wait())
                count = fault.passing
            if snapped and number is signal.SIGKILL:
                await victim.over.wait()
            elif snapped:
                await asyncio.sleep(PAST_EVERY_LEASE)
                victim.send(signal.SIGCONT)
            if fault.lane is Lane.API:
                await self._arena.new_api()
        if snapped:
            self._tally.places[fault.place] += 1
        return snapped

    async def _signal(self, fault: Fault, slot: int) -> bool:
        """A signal from outside, at a moment that chance has chosen."""
        victim = await self._start(fault, slot)
        async with asyncio.TaskGroup() as orders:
            orders.create_task(self._order(fault))
            await asyncio.sleep(fault.seconds)
            if fault.attack in {Attack.KILL_WORKER, Attack.KILL_API}:
                await victim.kill()
            if fault.lane is Lane.API:
                await self._arena.new_api()
            else:
                self._arena.new_worker(slot)
        return True

    async def _start(self, fault: Fault, slot: int, trap: Trap | None = None) -> Child:
        return await self._arena.new_api(trap) if fault.lane is Lane.API else self._arena.new_worker(slot, trap)

    # What they stand on -----------------------------------------------------------------------------------------------

    async def _around(self, fault: Fault) -> bool:
        async with asyncio.TaskGroup() as orders:
            orders.create_task(self._order(fault))
            done = await self._hurt(fault)
        await asyncio.sleep(CALM_SECONDS)
        return done

    async def _hurt(self, fault: Fault) -> bool:
        match fault.attack:
            case Attack.CUT_BEFORE_COMMIT:
                return await self._cut(Side.BEFORE, fault)
            case Attack.CUT_AFTER_COMMIT:
                return await self._cut(Side.AFTER, fault)
            case Attack.UPSTREAM:
                return await self._spoil(fault)
        hurts: dict[Attack, Callable[[float], Awaitable[None]]] = {
            Attack.REDIS_FLUSH: self._flush_redis,
            Attack.REDIS_KILL: self._kill_redis,
            Attack.REDIS_FREEZE: self._freeze_redis,
            Attack.POSTGRES_KILL: self._kill_postgres,
            Attack.POSTGRES_TERMINATE: self._terminate,
            Attack.POSTGRES_SILENT: self._silence_postgres,
        }
        await hurts[fault.attack](fault.seconds)
        return True

    async def _flush_redis(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with Redis.from_url(self._arena.valkey.url) as redis:
            await redis.flushall()

    async def _kill_redis(self, seconds: float) -> None:
        await self._arena.valkey.kill()
        await asyncio.sleep(seconds)
        await self._arena.valkey.start()

    async def _freeze_redis(self, seconds: float) -> None:
        self._arena.valkey.process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(FREEZE_SECONDS + seconds)
        finally:
            self._arena.valkey.process.send(signal.SIGCONT)

    async def _kill_postgres(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._arena.postgres.kill()
        await self._arena.postgres.start()

    async def _terminate(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        connection = await asyncpg.connect(self._arena.postgres.url)
        try:
            await connection.execute(OUR_SESSIONS)
        finally:
            await connection.close()

    async def _silence_postgres(self, seconds: float) -> None:
        await self._arena.database.switch(Mode.BLACK_HOLE)
        await asyncio.sleep(FREEZE_SECONDS + seconds)
        await self._arena.database.switch(Mode.PASS)

    async def _cut(self, side: Side, fault: Fault) -> bool:
        cut = self._arena.database.cut(side, fault.passing)
        done = await _within(TRAP_SECONDS, cut.wait())
        self._arena.database.spare()
        return done

    async def _spoil(self, fault: Fault) -> bool:
        upstream = self._arena.upstream
        await upstream.switch(fault.mode)
        await asyncio.sleep(fault.seconds)
        done = fault.mode is Mode.REFUSE or upstream.struck.is_set()
        await upstream.switch(Mode.PASS)
        return done


async def _within(seconds: float, happening: Awaitable[object]) -> bool:
    """Whether it happened in time."""
    try:
        async with asyncio.timeout(seconds):
            await happening
    except TimeoutError:
        return False
    return True
