"""HTTP routes of files."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from app.accounts.auth import Caller, require
from app.accounts.limits import PerAccount
from app.errors import FieldError, InvalidRequest
from app.files.records import StoredFile
from app.files.schemas import File, FileFromUrl
from app.files.service import FileService
from app.ids import Prefix, encode
from app.media.info import FileFormat, FileKind
from app.media.response import Content, documented, respond
from app.web import problems
from app.web.concurrency import release
from app.web.field_errors import in_body
from app.web.pagination import Page, Paging, paging
from app.web.uploads import MULTIPART, media_type, uploaded

router = APIRouter(prefix="/files", tags=["files"])
#: What providers fetch.
inputs_router = APIRouter(prefix="/inputs", tags=["inputs"])

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "The bytes."}},
            }
        },
        "application/json": {
            "schema": FileFromUrl.model_json_schema(),
            "example": {"url": "https://shop.example/photo.jpg", "name": "photo.jpg"},
        },
    },
}
PICTURES = [known.content_type for known in FileFormat if known.kind is FileKind.IMAGE]
OTHER_TYPE = f"must be {MULTIPART} with a part `file`, or application/json with a `url`"


async def _files(request: Request) -> FileService:
    service: FileService = request.app.state.files
    return service


Files = Annotated[FileService, Depends(_files)]
Reader = Annotated[Caller, Depends(require("files:read"))]
Writer = Annotated[Caller, Depends(require("files:write"))]


@router.post(
    "",
    operation_id="create_file",
    status_code=201,
    summary="Give a file",
    description=(
        "Upload it, or name a URL, which is fetched at once. What it is, is determined from its bytes. The same bytes "
        "are one file of your account: given again, it is kept longer, and the response is a 200."
    ),
    responses={
        200: {"model": File, "description": "Your account had this file already."},
        201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "URL path of the file."}}},
        **problems.responses("unauthenticated", "forbidden", "invalid_request", "rate_limited"),
    },
    openapi_extra={"requestBody": BODY},
)
async def create_file(request: Request, response: Response, caller: Writer, files: Files) -> File:
    uploads: PerAccount = request.app.state.uploads
    async with uploads.one(request, caller.account_id):
        release(request)
        kind = media_type(request.headers.get("content-type", ""))
        if kind == MULTIPART:
            upload = await uploaded(request, timeout=request.app.state.settings.files.upload_timeout)
            given = await files.take(caller.account_id, upload.chunks, name=upload.name, field="file")
        elif kind == "application/json":
            wanted = await _from_url(request)
            given = await files.fetch(caller.account_id, wanted.url, name=wanted.name)
        else:
            raise InvalidRequest(
                f"The header Content-Type {OTHER_TYPE}.",
                [FieldError("header.Content-Type", "not_allowed", OTHER_TYPE)],
            )
    response.status_code = 201 if given.created else 200
    response.headers["Location"] = f"{request.scope['root_path']}/v1/files/{encode(Prefix.FILE, given.file.id)}"
    return files.show(given.file)


@router.get(
    "",
    operation_id="list_files",
    summary="List your files, newest first",
    description="Without those that have expired.",
    responses=problems.responses("unauthenticated", "forbidden", "invalid_request"),
)
async def list_files(caller: Reader, files: Files, page: Annotated[Paging, Depends(paging)]) -> Page[File]:
    return await files.page(caller.account_id, page)


@router.get(
    "/{file_id}",
    operation_id="get_file",
    summary="Get a file's properties",
    description="What was determined from its bytes, and when it expires.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found"),
)
async def get_file(file_id: str, caller: Reader, files: Files) -> File:
    return files.show(await files.get(caller.account_id, file_id))


@router.get(
    "/{file_id}/content",
    operation_id="get_file_content",
    summary="The bytes of a file, as they were given",
    description="A request for one `Range` gets that range (206); for several, the whole file.",
    response_class=Response,
    responses={
        **documented(known.content_type for known in FileFormat),
        **problems.responses("unauthenticated", "forbidden", "not_found", "range_not_satisfiable"),
    },
)
async def get_file_content(request: Request, file_id: str, caller: Reader, files: Files) -> Response:
    file = await files.get(caller.account_id, file_id)
    return await respond(files.storage, content_of(file), request, "attachment")


def content_of(file: StoredFile) -> Content:
    return Content(
        object_key=file.object_key,
        name=f"{encode(Prefix.FILE, file.id)}.{file.format}",
        content_type=file.format.content_type,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        created_at=file.created_at,
    )


@router.delete(
    "/{file_id}",
    operation_id="delete_file",
    status_code=204,
    summary="Delete a file",
    description="It is not found any more from now on; its bytes are deleted soon. They may be given again.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "conflict"),
)
async def delete_file(file_id: str, caller: Writer, files: Files) -> None:
    await files.delete(caller.account_id, file_id)


@inputs_router.get(
    "/{token}/{name}",
    operation_id="get_input",
    summary="A provider fetches an input",
    description="For providers only: the token in the URL gives access to one file, until long after its job.",
    response_class=Response,
    responses={**documented(PICTURES), **problems.responses("not_found", "range_not_satisfiable", "unavailable")},
)
async def get_input(request: Request, token: str, name: str, files: Files) -> Response:
    del name  # for the provider: it ends with the format
    return await respond(files.storage, content_of(await files.get_signed(token)), request, "inline")


@inputs_router.head(
    "/{token}/{name}",
    operation_id="head_input",
    summary="A provider asks for the type and the size of an input",
    description="As `get_input`, without the bytes.",
    response_class=Response,
    responses={status: found for status, found in documented(PICTURES).items() if status != 206}
    | problems.responses("not_found", "unavailable"),
)
async def head_input(request: Request, token: str, name: str, files: Files) -> Response:
    del name  # for the provider: it ends with the format
    return await respond(files.storage, content_of(await files.get_signed(token)), request, "inline")


async def _from_url(request: Request) -> FileFromUrl:
    body = await request.body()
    try:
        return FileFromUrl.model_validate_json(body)
    except ValidationError as error:
        raise in_body(error, _json(body)) from None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
