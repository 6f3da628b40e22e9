"""HTTP routes of assets."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.accounts.auth import Caller, optional, require
from app.assets import schemas
from app.assets.records import StoredAsset
from app.assets.service import AssetService
from app.errors import FilmgateError, Unauthenticated
from app.ids import Prefix, encode
from app.media.info import Container
from app.media.response import CONDITIONS, Content, Disposition, documented, respond
from app.web import problems

router = APIRouter(tags=["assets"])

NEITHER = "This needs an API key (`Authorization: Bearer fgk_…`) or a signed URL."
SIGNED_OR_KEY = (
    "Needs a key with `assets:read`, or a signed URL: the `url` that `GET /v1/assets/{asset_id}?signed=1` returns."
)
CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    **documented([*(container.content_type for container in Container), "image/jpeg"]),
    **problems.responses("unauthenticated", "forbidden", "not_found", "gone", "range_not_satisfiable", "unavailable"),
}


async def _assets(request: Request) -> AssetService:
    service: AssetService = request.app.state.assets
    return service


Assets = Annotated[AssetService, Depends(_assets)]


@dataclass(frozen=True, slots=True)
class Readable:
    """An asset that this request may read, and its content disposition."""

    asset: StoredAsset
    disposition: Disposition


def content_of(asset: StoredAsset) -> Content:
    extension = asset.object_key.rpartition(".")[2]
    return Content(
        object_key=asset.object_key,
        name=f"{encode(Prefix.JOB, asset.job_id)}.{extension}",
        content_type=asset.content_type,
        size_bytes=asset.size_bytes,
        sha256=asset.sha256,
        created_at=asset.created_at,
    )


async def _readable(
    asset_id: str,
    caller: Annotated[Caller | None, Depends(optional("assets:read", other="signature"))],
    assets: Assets,
    signed: Annotated[schemas.SignedQuery, Query()],
) -> Readable:
    if signed.expires is not None or signed.signature is not None:
        try:
            asset = await assets.get_signed(asset_id, signed.expires or "", signed.signature or "")
            return Readable(asset, "inline")
        except FilmgateError:
            if caller is None:
                raise
    if caller is None:
        raise Unauthenticated(NEITHER)
    return Readable(await assets.get(caller.account_id, asset_id), "attachment")


@router.get(
    "/assets/{asset_id}",
    operation_id="get_asset",
    summary="A stored video or poster",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "gone", "invalid_request"),
)
async def get_asset(
    asset_id: str,
    caller: Annotated[Caller, Depends(require("assets:read"))],
    assets: Assets,
    signed: Annotated[bool, Query(description="`1` adds a `url` that needs no key and expires soon.")] = False,
) -> schemas.Asset:
    """The metadata of the file: type, size, checksum, length."""
    return assets.show(await assets.get(caller.account_id, asset_id), signed=signed)


@router.get(
    "/assets/{asset_id}/content",
    operation_id="get_asset_content",
    summary="The bytes of a stored video or poster",
    description=f"{SIGNED_OR_KEY} A request for one `Range` gets that range (206); for several, the whole file.",
    response_class=Response,
    responses=CONTENT_RESPONSES,
    openapi_extra={"security": [{}], "parameters": CONDITIONS},
)
async def get_asset_content(
    request: Request, assets: Assets, readable: Annotated[Readable, Depends(_readable)]
) -> Response:
    return await respond(assets.storage, content_of(readable.asset), request, readable.disposition)


@router.head(
    "/assets/{asset_id}/content",
    operation_id="head_asset_content",
    summary="The headers of a stored video or poster",
    description=SIGNED_OR_KEY,
    response_class=Response,
    responses={status: CONTENT_RESPONSES[status] for status in (200, 304, 401, 403, 404, 410)},
    openapi_extra={"security": [{}], "parameters": CONDITIONS[:1]},
)
async def head_asset_content(
    request: Request, assets: Assets, readable: Annotated[Readable, Depends(_readable)]
) -> Response:
    return await respond(assets.storage, content_of(readable.asset), request, readable.disposition)
