"""The ``/videos`` API that OpenAI defined and other servers adopted: what their dialects share."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox import misbehavior
from app.sandbox.dialect import Dialect
from app.sandbox.phases import Phase
from app.sandbox.problem import Problem
from app.sandbox.script import FINAL_WORDS
from app.sandbox.store import RemoteJob
from app.sandbox.wire import is_form, json_reply, read_form, read_json

STATUS = {
    Phase.THROTTLED: "queued",
    Phase.WAITING: "queued",
    Phase.RENDERING: "in_progress",
    Phase.SUCCEEDED: "completed",
    Phase.FAILED: "failed",
    Phase.CANCELED: "failed",
}
_SIZE = re.compile(r"^([1-9]\d{0,4})x([1-9]\d{0,4})$")


class VideosDialect(Dialect):
    """A server with create, status and content routes under ``/videos``."""

    status_words: ClassVar[Mapping[Phase, str]] = STATUS
    no_file: ClassVar[str] = "Video content not found"

    def routes(self) -> list[Route]:
        return [
            self.route("/v1/videos", "POST", self.create),
            self.route("/v1/videos/{remote_id}", "GET", self.retrieve),
            self.route("/v1/videos/{remote_id}/content", "GET", self.content),
        ]

    async def content(self, request: Request) -> Response:
        """The content route; 404 if the script puts the file on another server's disk."""
        job = self.job(request)
        if job.phase is Phase.SUCCEEDED and self.sandbox.counts.downloads_elsewhere(job.id, job.script):
            raise self.missing_file()
        return await self.download(job, request)

    async def download(self, job: RemoteJob, request: Request) -> Response:
        """The finished video.

        Raises:
            Problem: there is no video.
        """
        del request
        if job.video is None or job.phase is not Phase.SUCCEEDED:
            raise self.not_ready(job)
        if job.script.has("expired"):
            raise self.missing_file()
        return await self.deliver(job, job.video)

    @abstractmethod
    def not_ready(self, job: RemoteJob) -> Problem:
        """The error for a job without a video: unfinished or failed."""

    def missing_file(self) -> Problem:
        """The error for a succeeded job whose file is missing."""
        return Problem(404, self.no_file)

    def created(self, job: RemoteJob) -> dict[str, Any]:
        return self.video(job.as_accepted())

    def describe(self, job: RemoteJob, request: Request) -> dict[str, Any]:
        del request
        return self.video(job)

    def video(self, job: RemoteJob) -> dict[str, Any]:
        """The fields of the Video object that all servers share."""
        submission, shot = job.submission, job.shot
        return {
            "id": job.id,
            "object": "video",
            "model": submission.model,
            "status": self.status_word(job),
            "progress": int(job.progress * 100),
            "created_at": int(job.created_at),
            "completed_at": int(job.finished_at) if job.finished_at and job.phase is Phase.SUCCEEDED else None,
            "expires_at": None,
            "size": f"{shot.width}x{shot.height}",
            "seconds": f"{shot.seconds:g}",
            "remixed_from_video_id": None,
            "error": self.job_error(job) if job.phase is Phase.FAILED else None,
        }

    def status_word(self, job: RemoteJob) -> str:
        final = job.script.asked.get("final", "")
        return final if FINAL_WORDS.get(final) is job.phase else self.status_words[job.phase]

    @abstractmethod
    def job_error(self, job: RemoteJob) -> dict[str, Any] | str:
        """The ``error`` of a failed job."""


class ManagedVideosDialect(VideosDialect):
    """A server that also has list and delete routes."""

    default_limit: ClassVar[int | None] = 20
    least_limit: ClassVar[int] = 0

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            self.route("/v1/videos", "GET", self.list_jobs),
            self.route("/v1/videos/{remote_id}", "DELETE", self.delete),
        ]

    @abstractmethod
    async def delete(self, request: Request) -> Response: ...

    async def list_jobs(self, request: Request) -> Response:
        """The jobs in pages, newest first by default."""
        query = request.query_params
        limit, order = self._limit(query.get("limit")), query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise self.bad_query("order", order)
        jobs = self.listed(newest_first=order == "desc")
        if "after" in query:
            jobs = self._after(jobs, query["after"])
        page = jobs if limit is None else jobs[:limit]
        data = [misbehavior.record(self.video(job), job, request) for job in page]
        return json_reply(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(jobs) > len(page),
            }
        )

    def unknown_after(self, after: str) -> Problem | None:
        """The error for a page after an unknown job; None returns an empty page."""
        del after
        return None

    def bad_query(self, field: str, value: str) -> Problem:
        """The error for an invalid query parameter of a list."""
        return Problem(400, f"Invalid '{field}': {value!r}.", code="invalid_value", field=field)

    def _limit(self, text: str | None) -> int | None:
        if text is None:
            return self.default_limit
        if not text.isdecimal() or not self.least_limit <= int(text) <= 100:
            raise self.bad_query("limit", text)
        return int(text)

    def _after(self, jobs: list[RemoteJob], after: str) -> list[RemoteJob]:
        places = [index for index, job in enumerate(jobs) if job.id == after]
        if places:
            return jobs[places[-1] + 1 :]
        problem = self.unknown_after(after)
        if problem is not None:
            raise problem
        return []


async def read_fields(request: Request) -> tuple[dict[str, Any] | None, bool]:
    """The fields of a JSON or form body, and whether it is a form; no fields if it is neither."""
    if is_form(request):
        return await read_form(request), True
    fields = await read_json(request)
    return (fields if isinstance(fields, dict) else None), False


def read_size(text: object) -> tuple[int, int] | None:
    """Width and height of a size such as ``1280x720``."""
    match = _SIZE.match(text) if isinstance(text, str) else None
    return (int(match[1]), int(match[2])) if match else None
