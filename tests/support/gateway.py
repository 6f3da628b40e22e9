"""The whole product in one event loop: API over real HTTP, workers, sandbox, real Postgres and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from app.accounts.scopes import Scope
from app.accounts.service import KeyService
from app.api.main import Server, configuration, create_app
from app.resources import Resources
from app.settings import Settings
from app.worker.main import LocalBell, Worker

PROMPT = "a purple elephant dancing on a blue beach ball"
FINAL = {"succeeded", "failed", "canceled"}


class QuietServer(Server):
    """The API's own server, but for the signals, which are pytest's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Gateway:
    """A running gateway, and a client with its own key."""

    url: str
    settings: Settings
    client: httpx2.AsyncClient
    sandbox: httpx2.AsyncClient
    resources: Resources
    workers: list[tuple[Worker, "asyncio.Task[None]"]] = field(default_factory=list)

    async def create(self, prompt: str = PROMPT, *, key: str | None = None, **fields: Any) -> dict[str, Any]:
        """Order a video; the job as it was answered."""
        headers = {"Idempotency-Key": key} if key else {}
        reply = await self.client.post(
            "/v1/jobs", json={"prompt": prompt, "model": "sandbox/video", **fields}, headers=headers
        )
        assert reply.status_code == 202, reply.text
        job: dict[str, Any] = reply.json()
        return job

    async def get(self, job_id: str, wait: int = 0) -> dict[str, Any]:
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        reply = await self.client.get(f"/v1/jobs/{job_id}", headers=headers)
        assert reply.status_code == 200, reply.text
        job: dict[str, Any] = reply.json()
        return job

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        while True:
            job = await self.get(job_id, wait=30)
            if job["status"] in FINAL:
                return job

    async def reached(self, job_id: str, event_type: str, saying: str = "") -> None:
        """Return once the job's log holds an event of that type with those words in it."""
        async with self.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            kind = ""
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind == event_type and saying in line:
                    return
        raise AssertionError(f"{job_id} ended without {event_type} {saying}")

    async def submissions(self, job_id: str) -> list[dict[str, Any]]:
        reply = await self.client.get(f"/v1/jobs/{job_id}/submissions")
        rows: list[dict[str, Any]] = reply.json()
        return rows

    async def purchases(self) -> dict[str, Any]:
        """What the sandbox accepted and charged: the auditor's side."""
        summary: dict[str, Any] = (await self.sandbox.get("/ledger/summary")).json()
        return summary

    async def start_worker(self) -> Worker:
        bell = LocalBell()
        opened: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            async with Resources.open(self.settings, bell, process="worker") as resources:
                await asyncio.to_thread(resources.assets.prepare)
                worker = Worker(resources, bell, self.settings)
                opened.set_result(worker)
                await worker.run()

        task = asyncio.create_task(work())
        worker = await opened
        self.workers.append((worker, task))
        return worker

    async def stop_workers(self) -> None:
        """SIGTERM, as it were."""
        for worker, _ in self.workers:
            worker.stop()
        await asyncio.gather(*(task for _, task in self.workers))
        self.workers.clear()


@asynccontextmanager
async def running_gateway(settings: Settings, sandbox_url: str, *, workers: int = 1) -> AsyncIterator[Gateway]:
    """An API and ``workers`` workers."""
    app = create_app(settings)
    server = QuietServer(app, configuration(app, settings))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    resources: Resources = app.state.resources
    key = await KeyService(resources.database).create("tests", "tests", set(Scope))
    headers = {"Authorization": f"Bearer {key.text}"}
    url = f"http://127.0.0.1:{port}"
    try:
        # verify=False: to load the certificates costs more CPU than most tests, and nothing here speaks TLS.
        async with (
            httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False) as client,
            httpx2.AsyncClient(base_url=sandbox_url, timeout=60, verify=False) as sandbox,
        ):
            gateway = Gateway(url, settings, client, sandbox, resources)
            for _ in range(workers):
                await gateway.start_worker()
            try:
                yield gateway
            finally:
                await gateway.stop_workers()
    finally:
        server.should_exit = True
        await serving
