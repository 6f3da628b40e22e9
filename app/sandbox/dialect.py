"""What every dialect shares: who may call, what a scripted create does, how a film is handed out.

A dialect says in its own words what the sandbox means: it reads an order out of a request, and writes a remote job and
a :class:`Problem` in its provider's shapes.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.sandbox import script as scripts
from app.sandbox.callbacks import Callbacks
from app.sandbox.films import Film
from app.sandbox.ledger import Bill, Ledger, Purchase
from app.sandbox.picture import Shot
from app.sandbox.script import Counts, Reading, Refusal
from app.sandbox.settings import SandboxSettings
from app.sandbox.store import RemoteJob, Store
from app.sandbox.wire import HTML_PAGE, EndlessFilm, LostReply, TruncatedFilm, file_reply, json_reply

REFERENCE_HEADER = "x-filmgate-submission"
GARBAGE = b"This was going to be a film. " * 4096
MIN_SIDE, MAX_SIDE = 64, 4096
MAX_SECONDS = 60

Handler = Callable[[Request], Awaitable[Response]]


class Problem(Exception):
    """A request that is answered with an error; each dialect has its own shape for it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.field = field
        self.headers = headers


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
                return await handler(request)
            except Problem as problem:
                return self.error(problem)

        return Route(path, endpoint, methods=[method])

    async def create(self, request: Request) -> Response:
        """A paid create, with whatever its prompt scripts."""
        order = await self.read_order(request)
        script = scripts.read(order.prompt)
        counts = self.sandbox.counts
        refusal = counts.refusal(self.name, order.prompt, script)
        if refusal is not None:
            raise self.refused(refusal)
        purchase = Purchase(
            dialect=self.name,
            reference=request.headers.get(REFERENCE_HEADER),
            prompt=order.prompt,
            model=order.model,
            remote_id=self.new_remote_id(),
            bill=self.bill(order),
        )
        shot = Shot(script.text, order.width, order.height, order.seconds)
        job = self.sandbox.store.accept(
            purchase,
            shot,
            script,
            lane=self.lane(order),
            external_id=order.external_id,
            watch=self._watch(order, request),
        )
        if script.asked.get("callback") == "early" and order.callback_url is not None:
            await self.sandbox.callbacks.told(order.callback_url)
        reply = json_reply(self.created(job))
        if counts.loses_reply(self.name, order.prompt, script, purchase.reference):
            return LostReply(reply if script.asked["lose-reply"] == "truncate" else None)
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
            return json_reply(body | {"status": self.odd_status})
        return self.status_reply(job, body)

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
        job = self.sandbox.store.find(self.name, remote_id)
        if job is None:
            raise self.unknown_job(remote_id)
        return job

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


def deliver(job: RemoteJob, film: Film) -> Response:
    """The finished film, or what the script puts in its place."""
    script = job.script
    if script.has("garbage"):
        return Response(GARBAGE, media_type="video/mp4")
    if script.has("truncated"):
        return TruncatedFilm(film.path)
    if script.has("huge"):
        return EndlessFilm(film.path, declared=script.asked["huge"] == "declared")
    if film.content is not None:
        return Response(film.content, media_type="video/mp4")
    return file_reply(film.path, "video/mp4")


def check_size(width: int, height: int, field: str = "size") -> None:
    """Whether a film of this size can be made.

    Raises:
        Problem: it cannot.
    """
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE) or width % 2 or height % 2:
        message = f"Invalid size: each side must be an even number from {MIN_SIDE} to {MAX_SIDE}."
        raise Problem(400, message, code="invalid_value", field=field)


def check_seconds(seconds: float, field: str = "seconds") -> None:
    """Whether a film of this length can be made.

    Raises:
        Problem: it cannot.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        message = f"Invalid {field}: must be from 1 to {MAX_SECONDS}."
        raise Problem(400, message, code="invalid_value", field=field)
