"""A small client of the Filmgate API, for the command line and the demo.

Every request is idempotent (a create carries an Idempotency-Key) and is retried, so a gateway that restarts while a
command waits for a video causes no error.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from app import backoff
from app.terminal import CommandError

POLL_INTERVAL = 0.3
TRIES = 5  # within three seconds: a wrong URL should fail fast
FOLLOWING_TRIES = 12  # within half a minute: long enough for a restart of the gateway
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 3
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
CHUNK_BYTES = 1024 * 1024
FINAL = frozenset({"succeeded", "failed", "canceled"})
TRY_AGAIN = frozenset({429, 502, 503, 504})


class ApiError(CommandError):
    """The gateway rejected the request or did not respond. ``status`` is that of the response, if there was one.

    ``uncertain``: the request may have been processed nevertheless.
    """

    def __init__(self, *lines: str, status: int | None = None, uncertain: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.status = status
        self.uncertain = uncertain


class NotAUrl(ApiError):
    """The URL of the gateway is invalid: nothing was sent."""

    code = 2


@dataclass(frozen=True, slots=True)
class Job:
    """The fields of a job that the command line shows."""

    id: str
    status: str
    phase: str
    progress: int
    notice: str | None
    error: str | None
    video_id: str | None
    adjustments: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status in FINAL

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        error, assets = data.get("error"), data.get("assets")
        return cls(
            id=data["id"],
            status=data["status"],
            phase=data.get("phase") or data["status"],
            progress=data.get("progress") or 0,
            notice=data.get("notice"),
            error=f"{error['message']} ({error['code']})" if error else None,
            video_id=assets["video"]["id"] if assets else None,
            adjustments=tuple(
                f"{one['field']}: {one['used']} instead of {one['requested']}" for one in data.get("adjustments", ())
            ),
        )


@dataclass(frozen=True, slots=True)
class File:
    """The fields of a file that the command line shows. ``size`` is bytes."""

    id: str
    kind: str
    name: str | None
    size: int
    width: int | None
    height: int | None
    expires_at: str

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            id=data["id"],
            kind=data["kind"],
            name=data["name"],
            size=data["size_bytes"],
            width=data["width"],
            height=data["height"],
            expires_at=data["expires_at"],
        )


class Client:
    """A client of one gateway with one API key. Use as ``async with``."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._session.close()

    async def create_job(self, request: Mapping[str, Any], idempotency_key: str) -> Job:
        """Create a job; retries create it only once.

        Raises:
            ApiError: the request was rejected, or the gateway cannot be reached. So do the other methods.
        """
        return await self._job("POST", "/v1/jobs", json=dict(request), headers={"Idempotency-Key": idempotency_key})

    async def job(self, job_id: str) -> Job:
        return await self._job("GET", f"/v1/jobs/{job_id}")

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """Poll the job until it has ended; yields its state each time, starting with ``job``."""
        yield job
        while not job.ended:
            await asyncio.sleep(POLL_INTERVAL)
            job = await self._job("GET", f"/v1/jobs/{job.id}", tries=FOLLOWING_TRIES)
            yield job

    async def upload(self, path: Path) -> File:
        """Give a file; the same bytes again are the same file.

        Raises:
            CommandError: it cannot be read.
        """
        return File.read(await self._json("POST", "/v1/files", file=path))

    async def files(self) -> AsyncIterator[File]:
        """All files of the account, newest first."""
        query: dict[str, str] = {"limit": "100"}
        while True:
            page = await self._json("GET", "/v1/files", params=query)
            for data in page["data"]:
                yield File.read(data)
            if not page["has_more"]:
                return
            query["cursor"] = page["next_cursor"]

    async def delete_file(self, file_id: str) -> None:
        async with self._send("DELETE", f"/v1/files/{file_id}"):
            pass

    async def webhook_secret(self) -> str:
        """The signing secret of the account's webhooks."""
        secret: str = (await self._json("GET", "/v1/webhook-secret"))["secret"]
        return secret

    async def accepts_key(self) -> bool:
        """Whether the gateway accepts the API key."""
        try:
            await self._json("GET", "/v1/jobs", params={"limit": "1"})
        except ApiError as error:
            if error.status == 401:
                return False
            raise
        return True

    async def download(self, asset_id: str, file: Path) -> None:
        """Stream an asset into ``file``, which appears only when complete."""
        part = part_of(file)
        try:
            async with self._send("GET", f"/v1/assets/{asset_id}/content") as response:
                output = await asyncio.to_thread(part.open, "wb")
                with output:
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        await asyncio.to_thread(output.write, chunk)
            part.replace(file)
        except aiohttp.ClientError as error:
            raise ApiError(f"the video did not arrive whole: {_reason(error)}") from error
        except OSError as error:
            raise ApiError(f"{file} cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    async def _job(self, method: str, path: str, **options: Any) -> Job:
        data = await self._json(method, path, **options)
        try:
            return Job.read(data)
        except (LookupError, TypeError, AttributeError) as error:
            raise self._not_filmgate("something that is not a job") from error

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        async with self._send(method, path, **options) as response:
            try:
                return await response.json()
            except (aiohttp.ContentTypeError, ValueError) as error:
                raise self._not_filmgate(response.content_type) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ApiError(f"{self.url} broke off its response: {_reason(error)}", uncertain=True) from error

    def _not_filmgate(self, received: str) -> ApiError:
        return ApiError(f"{self.url} returned {received}: it is not Filmgate; check the URL", uncertain=True)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, *, tries: int = TRIES, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._request(method, path, tries, options)
        async with response:
            if not response.ok:
                raise await _rejection(response)
            yield response

    async def _request(self, method: str, path: str, tries: int, options: Mapping[str, Any]) -> aiohttp.ClientResponse:
        """Send a request, and retry it while the gateway is unavailable. The body of the response is not read yet.

        The option ``file`` is the path of a file to upload.
        """
        sent = False
        for attempt in range(1, tries + 1):
            last = attempt == tries
            try:
                response = await self._session.request(method, self.url + path, **_opened(options))
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                raise NotAUrl(f"{self.url} is not a URL; a URL begins with http:// or https://") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                sent = sent or not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
                if last:
                    raise ApiError(f"{self.url} cannot be reached: {_reason(error)}", uncertain=sent) from error
            else:
                sent = True
                if last or response.status not in TRY_AGAIN:
                    return response
                response.release()
            await asyncio.sleep(backoff.exponential(attempt, first=FIRST_PAUSE, longest=LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")


def _opened(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one attempt: a form can be sent only once."""
    path: Path | None = options.get("file")
    if path is None:
        return dict(options)
    form = aiohttp.FormData()
    try:
        form.add_field("file", path.open("rb"), filename=path.name)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    return {"data": form}


def part_of(file: Path) -> Path:
    """Where a download is written until it is complete."""
    return file.with_name(f".{file.name}.part")


async def _rejection(response: aiohttp.ClientResponse) -> ApiError:
    """The problem's detail, then one line for each field whose message the detail does not contain."""
    uncertain = response.status >= 500
    try:
        problem = await response.json(content_type=None)
        detail: str = problem["detail"]
        errors = problem.get("errors", [])
        fields = [f"  {item['field']}: {item['message']}" for item in errors if item["message"] not in detail]
        return ApiError(detail, *fields, status=response.status, uncertain=uncertain)
    except (aiohttp.ClientError, ValueError, LookupError, TypeError, AttributeError):
        message = f"{response.url.origin()} returned {response.status} {response.reason}"
        return ApiError(message, status=response.status, uncertain=uncertain)


def _reason(error: Exception) -> str:
    """Why there was no response, in plain words."""
    if isinstance(error, aiohttp.ClientSSLError):
        return "no secure connection; check its certificate, and that it serves https"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "there is no host of that name"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "no connection"
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return str(error) or type(error).__name__
