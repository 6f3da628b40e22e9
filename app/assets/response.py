"""The HTTP response that carries a file or a range of it."""

from typing import Literal

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.assets.records import StoredAsset
from app.assets.service import AssetService
from app.ids import Prefix, encode
from app.media.ranges import Part, Version, not_modified, wanted

Disposition = Literal["attachment", "inline"]


async def respond(assets: AssetService, asset: StoredAsset, request: Request, disposition: Disposition) -> Response:
    """The whole file (200), one range of it (206), or "not modified" (304); a HEAD gets only the headers.

    Raises:
        RangeNotSatisfiable: the range begins after the end of the file.
        Unavailable: the storage cannot be read now.
    """
    version = Version(f'"{asset.sha256.hex()}"', asset.created_at)
    headers = _headers(asset, version, disposition)
    if not_modified(request.headers, version):
        return Response(status_code=304, headers=headers)
    # A range is only defined for GET.
    part = wanted(request.headers, version, asset.size_bytes) if request.method == "GET" else None
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{asset.size_bytes}"
    status = 200 if part is None else 206
    part = part or Part(0, asset.size_bytes)
    headers["Content-Length"] = str(part.end - part.start)
    headers["Content-Type"] = asset.content_type
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(await assets.open(asset, part.start, part.end), status, headers)


def _headers(asset: StoredAsset, version: Version, disposition: Disposition) -> dict[str, str]:
    extension = asset.object_key.rpartition(".")[2]
    name = f"{encode(Prefix.JOB, asset.job_id)}.{extension}"
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
        "Content-Disposition": f'{disposition}; filename="{name}"',
        # A browser executes nothing in the file and does not sniff its type.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
        "ETag": version.etag,
        "Last-Modified": version.last_modified,
    }
