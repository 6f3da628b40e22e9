"""The load of the soak: all kinds of client requests at a modest fixed rate, with counts of their results."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

PROMPTS = (
    ("a calm lake at dusk", 60),
    ("a calm lake at dusk [slow:{slow}]", 25),
    ("a stormy lake [fail:moderation]", 5),
    ("a stormy lake [fail:internal]", 5),
    ("a distant lake [flaky:1]", 5),
)
FAILS = "[fail:"
#: Number of each action per create; events are followed until the job ends.
SHARES = {"read": 2.0, "list": 0.2, "follow": 0.1, "cancel": 0.05, "download": 0.2, "deliveries": 0.1}
CANCELED = frozenset({200, 202, 409})


@dataclass(slots=True)
class LoadStats:
    """Counts of requests and of failures."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    created: dict[str, bool] = field(default_factory=dict)  # by job id: whether a video is expected


class MixedLoad:
    """Generates the load against one API."""

    def __init__(self, session: aiohttp.ClientSession, webhook_url: str, rate: float) -> None:
        self.stats = LoadStats()
        self._session = session
        self._webhook_url = webhook_url
        self._rate = rate
        self._recent: deque[str] = deque(maxlen=500)
        self._videos: deque[str] = deque(maxlen=200)
        self._in_progress: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Generate load for ``seconds``, then wait for requests in progress."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await asyncio.gather(
            self._repeat("create", self._create, self._rate, until),
            *(
                self._repeat(name, getattr(self, f"_{name}"), self._rate * share, until)
                for name, share in SHARES.items()
            ),
        )
        if self._in_progress:
            await asyncio.wait(self._in_progress, timeout=60)

    async def _repeat(self, name: str, act: Callable[[], Awaitable[None]], rate: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(random.expovariate(rate))
            task = asyncio.create_task(self._guarded(name, act))
            self._in_progress.add(task)
            task.add_done_callback(self._in_progress.discard)

    async def _guarded(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.stats.failed[f"{name}: {type(error).__name__}"] += 1

    def _check(self, name: str, status: int, expected: frozenset[int] = frozenset({200})) -> bool:
        self.stats.done[name] += 1
        if status not in expected:
            self.stats.failed[f"{name}: HTTP {status}"] += 1
        return status in expected

    async def _create(self) -> None:
        (template, _) = random.choices(PROMPTS, [weight for _, weight in PROMPTS])[0]
        prompt = template.format(slow=f"{random.uniform(0.5, 9):.1f}")
        body = {"model": "bench/video", "prompt": prompt, "webhook_url": self._webhook_url, "metadata": {"soak": "1"}}
        headers = {"Idempotency-Key": random.randbytes(12).hex()}
        async with self._session.post("/v1/jobs", json=body, headers=headers) as reply:
            job = await reply.json()
            if self._check("create", reply.status, frozenset({202})):
                self._recent.append(job["id"])
                self.stats.created[job["id"]] = FAILS not in prompt

    async def _read(self) -> None:
        if self._recent:
            async with self._session.get(f"/v1/jobs/{random.choice(self._recent)}") as reply:
                job = await reply.json()
                if self._check("read", reply.status) and job["assets"]:
                    self._videos.append(job["assets"]["video"]["id"])

    async def _list(self) -> None:
        status = random.choice(["queued", "running", "succeeded", "failed"])
        async with self._session.get("/v1/jobs", params={"status": status, "limit": 20}) as reply:
            await reply.read()
            self._check("list", reply.status)

    async def _deliveries(self) -> None:
        if self._recent:
            async with self._session.get(f"/v1/jobs/{random.choice(self._recent)}/deliveries") as reply:
                await reply.read()
                self._check("deliveries", reply.status)

    async def _follow(self) -> None:
        if self._recent:
            async with self._session.get(f"/v1/jobs/{self._recent[-1]}/events") as reply:
                async for _ in reply.content:
                    pass
                self._check("follow", reply.status)

    async def _cancel(self) -> None:
        if self._recent:
            job_id = self._recent[-1]
            async with self._session.post(f"/v1/jobs/{job_id}/cancel") as reply:
                await reply.read()
                if self._check("cancel", reply.status, CANCELED):
                    self.stats.created[job_id] = False

    async def _download(self) -> None:
        if self._videos:
            async with self._session.get(f"/v1/assets/{random.choice(self._videos)}/content") as reply:
                await reply.read()
                self._check("download", reply.status)
