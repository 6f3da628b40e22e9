"""Runway's inputs: ``promptImage``, ``videoUri`` and ``references``, and ephemeral uploads.

A URI is an https URL (in the sandbox also plain http to this machine), a data URI, or the ``runway://`` URI of an
upload. What can be seen without reading the asset is validated with the body; the rest fails the task.
"""

import hmac
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.input_files import InputFiles
from app.sandbox.inputs import (
    MEBIBYTE,
    InputRules,
    InputSource,
    Operation,
    Role,
    decode_data_uri,
    is_fetchable,
)
from app.sandbox.problem import Problem
from app.sandbox.runway_models import Model, invalid
from app.sandbox.wire import FormFile, read_form

RULES = InputRules(head_first=True, length_required=True)
MAX_URL = 2048
#: The whole data URI, not the asset in it.
MAX_IMAGE_DATA_URI, MAX_VIDEO_DATA_URI = 5 * MEBIBYTE, 16 * MEBIBYTE
MAX_UPLOAD = 200 * MEBIBYTE
SCHEME = "runway://"


@dataclass(slots=True)
class Upload:
    """One ephemeral upload; ``fields`` must come back with the file."""

    expires_at: float
    fields: Mapping[str, str]
    path: Path | None = field(default=None)


class Uploads:
    """The ephemeral uploads: created by the API, filled by a form as object storage takes it."""

    def __init__(self, files: InputFiles, lifetime: float) -> None:
        self._files = files
        self._lifetime = lifetime
        self._uploads: dict[str, Upload] = {}

    def create(self, body: Any, base_url: str) -> dict[str, Any]:
        """The reply to ``POST /v1/uploads``."""
        if not isinstance(body, dict):
            raise Problem(400, "The body must be a JSON object.")
        for name in sorted(body.keys() - {"filename", "type"}):
            raise invalid(name, "is not a field of uploads")
        if not isinstance(body.get("filename"), str) or not body["filename"]:
            raise invalid("filename", "must be a string")
        if body.get("type") != "ephemeral":
            raise invalid("type", "must be ephemeral")
        now = time.time()
        self._uploads = {name: upload for name, upload in self._uploads.items() if upload.expires_at > now}
        name = str(uuid.uuid4())
        fields = {"key": f"ephemeral/{name}", "policy": secrets.token_hex(16), "x-amz-signature": secrets.token_hex(32)}
        self._uploads[name] = Upload(now + self._lifetime, fields)
        return {"uploadUrl": f"{base_url}/uploads/{name}", "fields": fields, "runwayUri": f"{SCHEME}{name}"}

    async def receive(self, request: Request) -> Response:
        """The form with ``fields`` and ``file``: 204, or object storage's error."""
        upload = self._uploads.get(request.path_params["upload_id"])
        if int(request.headers.get("content-length", 0)) > MAX_UPLOAD:
            return _storage_error(400, "EntityTooLarge")
        form = await read_form(request)
        file = form.get("file")
        if upload is None or upload.expires_at <= time.time() or not _signed(form, upload):
            return _storage_error(403, "AccessDenied")
        if not isinstance(file, FormFile):
            return _storage_error(400, "InvalidArgument")
        upload.path = await self._files.keep(file.content)
        return Response(status_code=204)

    def content(self, uri: str) -> bytes | None:
        """What was uploaded; None if there is nothing, or no more."""
        upload = self._uploads.get(uri.removeprefix(SCHEME))
        if upload is None or upload.path is None or upload.expires_at <= time.time():
            return None
        return upload.path.read_bytes()


def read_sources(fields: Mapping[str, Any], endpoint: str, model: Model, uploads: Uploads) -> tuple[InputSource, ...]:
    """The inputs that the fields name.

    Raises:
        Problem: they are invalid.
    """
    if endpoint == "image_to_video":
        return _prompt_images(fields.get("promptImage"), model, uploads)
    if endpoint == "video_to_video":
        role, operation = _use_of_source(fields, model)
        source = _source(fields.get("videoUri"), role, "videoUri", uploads, operation)
        return source, *_references(fields.get("references", []), uploads)
    return ()


def _prompt_images(value: object, model: Model, uploads: Uploads) -> tuple[InputSource, ...]:
    name = "promptImage"
    if not isinstance(value, list):
        return (_source(value, Role.FIRST_FRAME, name, uploads),)
    if not all(isinstance(item, dict) and item.keys() == {"uri", "position"} for item in value):
        raise invalid(name, "must be a URI or an array of objects with uri and position")
    positions = [item["position"] for item in value]
    if any(position not in model.positions for position in positions):
        raise invalid(name, "has positions other than " + ", ".join(model.positions))
    if positions.count("first") != 1 or positions.count("last") > 1:
        raise invalid(name, "must have one first image and at most one last")
    roles = {"first": Role.FIRST_FRAME, "last": Role.LAST_FRAME}
    return tuple(_source(item["uri"], roles[item["position"]], name, uploads) for item in value)


def _use_of_source(fields: Mapping[str, Any], model: Model) -> tuple[Role, Operation | None]:
    mode = fields.get("mode") if "mode" in model.fields else "edit"
    if mode == "reference":
        return Role.REFERENCE_VIDEO, None
    if mode not in {"edit", "extend"}:
        raise invalid("mode", "must be one of edit, extend, reference")
    return Role.SOURCE_VIDEO, Operation(mode)


def _references(value: object, uploads: Uploads) -> tuple[InputSource, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) and item.keys() == {"uri"} for item in value):
        raise invalid("references", "must be an array of objects with uri")
    return tuple(_source(item["uri"], Role.REFERENCE_IMAGE, "references", uploads) for item in value)


def _source(uri: object, role: Role, name: str, uploads: Uploads, operation: Operation | None = None) -> InputSource:
    if not isinstance(uri, str):
        raise invalid(name, "must be a URI")
    if uri.startswith(SCHEME):
        content = uploads.content(uri)
        if content is None:
            raise invalid(name, "is not the URI of an upload, or has expired")
        return InputSource(role, name, content, operation=operation)
    if uri.startswith("data:"):
        return InputSource(role, name, *_inline(uri, role, name), operation=operation)
    if len(uri) > MAX_URL:
        raise invalid(name, f"must have at most {MAX_URL} characters")
    if not is_fetchable(uri, addresses=False):
        raise invalid(name, "must be an HTTPS URL with a domain name, a data URI or a runway:// URI")
    return InputSource(role, name, url=uri, operation=operation)


def _inline(uri: str, role: Role, name: str) -> tuple[bytes, str]:
    limit = MAX_VIDEO_DATA_URI if role.is_video else MAX_IMAGE_DATA_URI
    if len(uri) > limit:
        raise invalid(name, f"must be a data URI of at most {limit} characters")
    decoded = decode_data_uri(uri)
    if decoded is None or decoded[1] not in RULES.types(role):
        raise invalid(name, "must be a data URI of " + ", ".join(sorted(RULES.types(role))))
    return decoded


def _signed(form: Mapping[str, Any], upload: Upload) -> bool:
    return all(
        hmac.compare_digest(str(form.get(name, "")).encode(), value.encode()) for name, value in upload.fields.items()
    )


def _storage_error(status: int, code: str) -> Response:
    return Response(f"<Error><Code>{code}</Code></Error>", status, media_type="application/xml")
