"""HTTP routes of callbacks. Providers send them, so there is no API key: the token in the URL authenticates."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.jobs.api.callbacks import CallbackService
from app.web import problems

router = APIRouter(prefix="/callbacks", tags=["callbacks"])


async def callbacks(request: Request) -> CallbackService:
    service: CallbackService = request.app.state.callbacks
    return service


@router.post(
    "/{connection}/{token}",
    operation_id="receive_callback",
    summary="A provider reports on a submission",
    description=(
        "For providers only. A callback changes nothing by itself: the provider is polled at once, and only its reply "
        "counts."
    ),
    responses=problems.responses("not_found", "invalid_request", "body_too_large", "unavailable"),
)
async def receive_callback(
    connection: str, token: str, request: Request, service: Annotated[CallbackService, Depends(callbacks)]
) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    await service.receive(connection, token, headers, await request.body())
    return {"status": "noted"}
