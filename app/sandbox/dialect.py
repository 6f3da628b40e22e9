"""What all dialects share: authentication, scripted creates and reads, and delivery of videos.

A dialect is one provider's wire format: it parses a create, and writes remote jobs and :class:`Problem` errors in the
provider's shapes.
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
from app.sandbox.create_request import CreateRequest
from app.sandbox.fingerprint import burn
from app.sandbox.input_files import InputFiles
from app.sandbox.inputs import InputRules, InputSource, InvalidInput
from app.sandbox.ledger import Bill, Ledger, Submission
from app.sandbox.picture import Shot
from app.sandbox.problem import Problem
from app.sandbox.script import Refusal, Script
from app.sandbox.settings import SandboxSettings
from app.sandbox.store import RemoteJob, Store
from app.sandbox.video_files import Video
from app.sandbox.wire import HTML_PAGE, EndlessVideo, LostReply, TruncatedVideo, file_reply, json_reply

REFERENCE_HEADER = "x-filmgate-submission"
GARBAGE = b"This was going to be a video. " * 4096

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The components that the dialects use."""

    settings: SandboxSettings
    store: Store
    ledger: Ledger
    counts: Counts
    callbacks: Callbacks
    input_files: InputFiles


class Dialect(ABC):
    """One provider's wire format."""

    name: ClassVar[str]
    odd_status: ClassVar[str] = "reticulating"
    created_status: ClassVar[int] = 200
    input_rules: ClassVar[InputRules] = InputRules()
    #: Whether an invalid input fails the job instead of the create.
    accepts_invalid_inputs: ClassVar[bool] = False
    #: Whether URLs can be fetched after the reply to the create.
    fetches_later: ClassVar[bool] = False

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    # What a dialect defines -------------------------------------------------------------------------------------------

    @abstractmethod
    def routes(self) -> list[Route]: ...

    @abstractmethod
    async def read_create(self, request: Request) -> CreateRequest:
        """Parse and validate a create.

        Raises:
            Problem: it is invalid.
            InvalidInput: an input is.
        """

    @abstractmethod
    def bill(self, create: CreateRequest) -> Bill: ...

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

    def concurrency_key(self, create: CreateRequest) -> str | None:
        """The key under which concurrent jobs are limited; None for no limit."""
        del create
        return None

    def check_inputs(self, create: CreateRequest) -> None:
        """Check the inputs that were read against the rest of the create.

        Raises:
            Problem: they do not fit.
        """
        del create

    def refused_input(self, source: InputSource, reason: str) -> Problem:
        """The error of a create whose input is refused."""
        return Problem(400, reason, code="invalid_value", field=source.field)

    def check_caller(self, request: Request) -> None:
        """Check the credential.

        Raises:
            Problem: it is missing or wrong.
        """
        key = self.sandbox.settings.api_key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise Problem(401, "Incorrect API key provided.", code="invalid_api_key")

    # What all dialects share ------------------------------------------------------------------------------------------

    def route(self, path: str, method: str, handler: Handler) -> Route:
        """A route that checks the credential and writes problems in the dialect's shape."""

        async def endpoint(request: Request) -> Response:
            try:
                self.check_caller(request)
                return misbehavior.echoed_reply(await handler(request), request)
            except Problem as problem:
                return misbehavior.echoed_reply(self.error(problem), request)

        return Route(path, endpoint, methods=[method])

    async def create(self, request: Request) -> Response:
        """Handle a create, with the effects that its prompt scripts."""
        try:
            create = await self.read_create(request)
        except InvalidInput as error:
            raise self.refused_input(error.source, error.reason) from None
        script = scripts.read(create.prompt)
        misbehavior.note_echo(request, script)
        refusal = self.sandbox.counts.refusal(self.name, create.prompt, script)
        if refusal is not None:
            raise self.refused(refusal)
        if script.asked.get("echo") == "refuse":
            raise Problem(400, f"Invalid request: Authorization was {request.headers.get('authorization')}")
        shape = script.asked.get("refuse", "timeout")
        if shape != "timeout":
            return json_reply(misbehavior.REFUSALS[shape], 400)
        late = self.fetches_later and script.has("input-slow") and create.is_remote
        usable = True
        if create.sources:
            create, usable = await self._take_inputs(create, script, late=late)
        job = self._accept(create, script, request, usable=usable, late=late)
        if script.asked.get("callback") == "early" and create.callback_url is not None:
            await self.sandbox.callbacks.wait_sent(create.callback_url)
        return self._created_reply(job)

    async def _take_inputs(self, create: CreateRequest, script: Script, *, late: bool) -> tuple[CreateRequest, bool]:
        """The create with its inputs unless they are read ``late``, and whether the job can use them."""
        if script.has("input-refused"):
            raise self.refused_input(create.sources[0], "The asset was refused")
        usable = not script.has("input-lost")
        if late:
            return create, usable
        try:
            create = await self._with_inputs(create)
        except InvalidInput as error:
            if not self.accepts_invalid_inputs:
                raise self.refused_input(error.source, error.reason) from None
            return create, False
        self.check_inputs(create)
        return create, usable

    async def _with_inputs(self, create: CreateRequest) -> CreateRequest:
        """The create with its inputs.

        Raises:
            InvalidInput: one cannot be fetched or used.
        """
        return create.with_inputs(await self.sandbox.input_files.read_all(create.sources, self.input_rules))

    def _accept(
        self, create: CreateRequest, script: Script, request: Request, *, usable: bool, late: bool
    ) -> RemoteJob:
        submission = Submission(
            dialect=self.name,
            reference=request.headers.get(REFERENCE_HEADER),
            prompt=create.prompt,
            model=create.model,
            remote_id=misbehavior.accepted_id(self.new_remote_id(), script),
            bill=self.bill(create),
            inputs=create.inputs,
        )

        async def read_inputs() -> Shot:
            read = await self._with_inputs(create)
            submission.inputs = read.inputs
            return read.shot(script.text)

        return self.sandbox.store.accept(
            submission,
            create.shot(script.text),
            script,
            concurrency_key=self.concurrency_key(create),
            external_id=create.external_id,
            on_change=self._notifier(create, request),
            lost_after_read=self.sandbox.counts.loses_job(self.name, create.prompt, script),
            unusable_input=not usable,
            read_inputs=read_inputs if late else None,
        )

    def _created_reply(self, job: RemoteJob) -> Response:
        script, submission = job.script, job.submission
        reply = json_reply(self.created(job), self.created_status)
        if self.sandbox.counts.loses_reply(self.name, submission.prompt, script, submission.reference):
            return LostReply(reply if script.asked["lose-reply"] == "truncate" else None)
        if script.has("refuse"):
            return json_reply(misbehavior.REFUSALS["timeout"], 400)
        return HTMLResponse(HTML_PAGE) if script.has("html") else reply

    async def retrieve(self, request: Request) -> Response:
        """The state of a job, or what its script replaces it with."""
        job = self.job(request)
        reading = self.sandbox.counts.reading(self.name, job.submission.prompt, job.script)
        if reading is Reading.UNAVAILABLE:
            raise Problem(503, "The server is currently overloaded with other requests.", kind="server_error")
        if reading is Reading.MISSING:
            raise self.unknown_job(job.id)
        body = self.describe(job, request)
        if reading is Reading.ODD_STATUS:
            reply = json_reply(body | {"status": self.odd_status})
        else:
            reply = self.status_reply(job, body)
        if job.lost_after_read:
            self.sandbox.store.lose(job)
        return reply

    def status_reply(self, job: RemoteJob, body: dict[str, Any]) -> Response:
        """The status reply; a dialect may add headers or change the HTTP status."""
        del job
        return json_reply(body)

    def _notifier(self, create: CreateRequest, request: Request) -> Callable[[RemoteJob], None] | None:
        url = create.callback_url
        if url is None:
            return None
        callbacks = self.sandbox.callbacks
        return lambda job: callbacks.send(url, self.describe(job, request), job.script)

    def job(self, request: Request) -> RemoteJob:
        """The job named in the path.

        Raises:
            Problem: there is no such job.
        """
        remote_id = request.path_params["remote_id"]
        job = self.find(remote_id)
        if job is None:
            raise self.unknown_job(remote_id)
        misbehavior.note_echo(request, job.script)
        return job

    def find(self, remote_id: str) -> RemoteJob | None:
        """The job with this id, if the request reaches the replica that has it."""
        job = self.sandbox.store.find(self.name, remote_id)
        if job is None or not self.sandbox.counts.reaches_home(job.id, job.script, "job"):
            return None
        return job

    def listed(self, *, newest_first: bool) -> list[RemoteJob]:
        """The jobs that a list shows, sorted by the server's clock."""
        jobs = sorted(self.sandbox.store.listed(self.name), key=lambda job: job.created_at)
        return misbehavior.listed(reversed(jobs) if newest_first else jobs, self.sandbox.counts)

    async def deliver(self, job: RemoteJob, video: Video) -> Response:
        """The finished video, or what the script replaces it with."""
        script = job.script
        if script.has("garbage"):
            return Response(GARBAGE, media_type="video/mp4")
        if script.has("truncated"):
            return TruncatedVideo(video.path)
        if script.has("huge"):
            return EndlessVideo(video.path, declared=script.asked["huge"] == "declared")
        if self.sandbox.settings.fingerprint:
            return Response(await asyncio.to_thread(burn, job.id), media_type="video/mp4")
        if video.content is not None:
            return Response(video.content, media_type="video/mp4")
        return file_reply(video.path, "video/mp4")

    async def deliver_stored(self, job: RemoteJob | None, *, readable: bool = True) -> Response:
        """The finished video behind a result URL: object storage, with the error format of object storage."""
        if not readable or job is None or job.video is None:
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if self.sandbox.counts.downloads_elsewhere(job.id, job.script):
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        return await self.deliver(job, job.video)

    def unknown_job(self, remote_id: str) -> Problem:
        return Problem(404, f"Video with id '{remote_id}' not found.")

    def refused(self, refusal: Refusal) -> Problem:
        """The error of a refused create."""
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
