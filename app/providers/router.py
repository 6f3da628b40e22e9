"""HTTP routes of the model catalogue."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.accounts.auth import Caller, require
from app.providers.registry import Registry
from app.providers.schemas import ModelList, ModelView
from app.web import problems


async def registry(request: Request) -> Registry:
    opened: Registry = request.app.state.registry
    return opened


router = APIRouter(prefix="/models", tags=["models"])


@router.get(
    "",
    operation_id="list_models",
    summary="List models with their options and prices",
    responses=problems.responses("unauthenticated", "forbidden", "invalid_request"),
)
async def list_models(
    _caller: Annotated[Caller, Depends(require("jobs:read"))],
    opened: Annotated[Registry, Depends(registry)],
    available: bool | None = None,
) -> ModelList:
    """`available=true` omits models that no configured connection serves."""
    offers = [offer for offer in opened.models() if available is None or offer.available == available]
    return ModelList(data=[ModelView.of(offer) for offer in offers], aliases=opened.catalog.aliases)
