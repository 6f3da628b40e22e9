"""What every dialect shares: who may call, what a scripted create does, how a video is handed out.

A dialect says in its own words what the sandbox means: it reads an order out of a request, and writes a remote job and
a :class:`Problem` in its provider's shapes.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.sandbox import misbehavior
from app.sandbox import script as scripts
from app.sandbox.callbacks import Callbacks
from app.sandbox.counts import Counts, Reading
from app.sandbox.fingerprint import burn
from app.sandbox.ledger import Bill, Ledger, Purchase
from app.sandbox.picture import Shot
from app.sandbox.problem import Problem
from app.sandbox.script import Refusal, Script
from app.sandbox.settings import SandboxSettings
from app.sandbox.store import RemoteJob, Store
from app.sandbox.video_files import Film
from app.sandbox.wire import HTML_PAGE, EndlessFilm, LostReply, TruncatedFilm, file_reply, json_reply

REFERENCE_HEADER = "x-filmgate-submission"
GARBAGE = b"This was going to be a film. " * 4096

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The parts that the dialects work with."""

    settings: SandboxSettings
    store: Store
    ledger: Ledger
    counts: Counts
    callbacks: Callbacks


@dataclass(frozen=True, slots=True)
class Order:
    """What a create asks for, once it is known to be valid.

    ``external_id`` is the caller's own name for the job, ``callback_url`` where its changes are told.
    """

    prompt: str
    model: str
    width: int
    height: int
    seconds: float
    external_id: str | None = None
    callback_url: str | None = None


class Dialect(ABC):
    """One provider's wire format."""

    name: ClassVar[str]
    odd_status: ClassVar[str] = "reticulating"
    created_status: ClassVar[int] = 200

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    # What a dialect says --------------------------------------------------------------------------------------------

    @abstractmethod
    def routes(self) -> list[Route]: ...

    @abstractmethod
    async def read_order(self, request: Request) -> Order:
        """The order in a create.

        Raises:
            Problem: it is not valid.
        """

    @abstractmethod
    def bill(self, order: Order) -> Bill: ...

    @abstractmethod
    def new_remote_id(self) -> str: ...

    @abstractmethod
    def created(self, job: RemoteJob) -> dict[str, Any]:
        """The body of a create's reply."""

    @abstractmethod
    def describe(self, job: RemoteJob, request: Request) -> dict[str, Any]:
        """The body of a status reply."""

    @abstractmethod
    def error(self, problem: Problem) -> Response: ...

    def no_route(self, request: Request, error: HTTPException) -> Response:
        """The reply to an unknown path or method."""
        del request
        return self.error(Problem(error.status_code, error.detail))

    def lane(self, order: Order) -> str | None:
        """What limits how many jobs run at once, if anything does."""
        del order
        return None

    def check_caller(self, request: Request) -> None:
        """Look at the credential.

        Raises:
            Problem: it is missing or wrong.
        """
        key = self.sandbox.settings.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise Problem(401, "Incorrect API key provided.", code="invalid_api_key")

    # What all of them do --------------------------------------------------------------------------------------------

    def route(self, path: str, method: str, handler: Handler) -> Route:
        """A route that only known callers pass, and whose problems are told in the dialect's shape."""

        async def endpoint(request: Request) -> Response:
            try:
                self.check_caller(request)
                return misbehavior.echoed_reply(await handler(request), request)
            except Problem as problem:
                return misbehavior.echoed_reply(self.error(problem), request)

        return Route(path, endpoint, methods=[method])

    async def create(self, request: Request) -> Response:
        """A create, with whatever its prompt scripts."""
        order = await self.read_order(request)
        script = scripts.read(order.prompt)
        misbehavior.note_echo(request, script)
        refusal = self.sandbox.counts.refusal(self.name, order.prompt, script)
        if refusal is not None:
            raise self.refused(refusal)
        if script.asked.get("echo") == "refuse":
            raise Problem(400, f"Invalid request: Authorization was {request.headers.get('authorization')}")
        shape = script.asked.get("refuse", "timeout")
        if shape != "timeout":
            return json_reply(misbehavior.REFUSALS[shape], 400)
        job = self._accept(order, script, request)
        if script.asked.get("callback") == "early" and order.callback_url is not None:
            await self.sandbox.callbacks.told(order.callback_url)
        return self._created_reply(job)

    def _accept(self, order: Order, script: Script, request: Request) -> RemoteJob:
        purchase = Purchase(
            dialect=self.name,
            reference=request.headers.get(REFERENCE_HEADER),
            prompt=order.prompt,
            model=order.model,
            remote_id=misbehavior.accepted_id(self.new_remote_id(), script),
            bill=self.bill(order),
        )
        return self.sandbox.store.accept(
            purchase,
            Shot(script.text, order.width, order.height, order.seconds),
            script,
            lane=self.lane(order),
            external_id=order.external_id,
            watch=self._watch(order, request),
            doomed=self.sandbox.counts.dooms(self.name, order.prompt, script),
        )

    def _created_reply(self, job: RemoteJob) -> Response:
        script, purchase = job.script, job.purchase
        reply = json_reply(self.created(job), self.created_status)
        if self.sandbox.counts.loses_reply(self.name, purchase.prompt, script, purchase.reference):
            return LostReply(reply if script.asked["lose-reply"] == "truncate" else None)
        if script.has("refuse"):
            return json_reply(misbehavior.REFUSALS["timeout"], 400)
        return HTMLResponse(HTML_PAGE) if script.has("html") else reply

    async def retrieve(self, request: Request) -> Response:
        """The state of a job, unless its script says otherwise."""
        job = self.job(request)
        reading = self.sandbox.counts.reading(self.name, job.purchase.prompt, job.script)
        if reading is Reading.UNAVAILABLE:
            raise Problem(503, "The server is currently overloaded with other requests.", kind="server_error")
        if reading is Reading.MISSING:
            raise self.unknown_job(job.id)
        body = self.describe(job, request)
        if reading is Reading.ODD_STATUS:
            reply = json_reply(body | {"status": self.odd_status})
        else:
            reply = self.status_reply(job, body)
        if job.doomed:
            self.sandbox.store.lose(job)
        return reply

    def status_reply(self, job: RemoteJob, body: dict[str, Any]) -> Response:
        """A status reply; dialects add headers or a status of their own."""
        del job
        return json_reply(body)

    def _watch(self, order: Order, request: Request) -> Callable[[RemoteJob], None] | None:
        url = order.callback_url
        if url is None:
            return None
        callbacks = self.sandbox.callbacks
        return lambda job: callbacks.tell(url, self.describe(job, request), job.script)

    def job(self, request: Request) -> RemoteJob:
        """The job that the path names.

        Raises:
            Problem: there is none.
        """
        remote_id = request.path_params["remote_id"]
        job = self.find(remote_id)
        if job is None:
            raise self.unknown_job(remote_id)
        misbehavior.note_echo(request, job.script)
        return job

    def find(self, remote_id: str) -> RemoteJob | None:
        """The job of this id, if the request reaches it."""
        job = self.sandbox.store.find(self.name, remote_id)
        if job is None or not self.sandbox.counts.reaches_home(job.id, job.script, "job"):
            return None
        return job

    def listed(self, *, newest_first: bool) -> list[RemoteJob]:
        """The jobs that a list shows, by the server's own times."""
        jobs = sorted(self.sandbox.store.listed(self.name), key=lambda job: job.created_at)
        return misbehavior.listed(reversed(jobs) if newest_first else jobs, self.sandbox.counts)

    async def deliver(self, job: RemoteJob, film: Film) -> Response:
        """The finished video, or what the script puts in its place."""
        script = job.script
        if script.has("garbage"):
            return Response(GARBAGE, media_type="video/mp4")
        if script.has("truncated"):
            return TruncatedFilm(film.path)
        if script.has("huge"):
            return EndlessFilm(film.path, declared=script.asked["huge"] == "declared")
        if self.sandbox.settings.fingerprint:
            return Response(await asyncio.to_thread(burn, job.id), media_type="video/mp4")
        if film.content is not None:
            return Response(film.content, media_type="video/mp4")
        return file_reply(film.path, "video/mp4")

    async def deliver_stored(self, job: RemoteJob | None, *, readable: bool = True) -> Response:
        """A finished video from where result URLs point to: object storage, with words of its own."""
        if not readable or job is None or job.film is None:
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if self.sandbox.counts.downloads_elsewhere(job.id, job.script):
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        return await self.deliver(job, job.film)

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"Video with id '{remote_id}' not found.")

    def refused(self, refusal: Refusal) -> Problem:
        """Why nothing was accepted."""
        if refusal is Refusal.SERVER_ERROR:
            return Problem(500, "The server had an error while processing your request.", kind="server_error")
        if refusal is Refusal.RATE_LIMIT:
            return Problem(
                429,
                "Rate limit reached for requests.",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        if refusal is Refusal.QUOTA:
            message = "You exceeded your current quota, please check your plan and billing details."
            return Problem(429, message, kind="insufficient_quota", code="insufficient_quota")
        message = "Your request was rejected as a result of our content policy."
        return Problem(400, message, code="content_policy_violation", field="prompt")
