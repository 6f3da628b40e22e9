"""HTTP route of the webhook secret."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.accounts.auth import Caller, require
from app.web import problems
from app.webhooks.schemas import WebhookSecret
from app.webhooks.service import WebhookService

router = APIRouter(tags=["webhooks"])


async def _webhooks(request: Request) -> WebhookService:
    service: WebhookService = request.app.state.webhooks
    return service


@router.get(
    "/webhook-secret",
    operation_id="get_webhook_secret",
    summary="The secret that signs your webhooks",
    responses=problems.responses("unauthenticated", "forbidden", "unavailable"),
)
async def get_webhook_secret(
    caller: Annotated[Caller, Depends(require("webhooks:read"))],
    webhooks: Annotated[WebhookService, Depends(_webhooks)],
    response: Response,
) -> WebhookSecret:
    """The signing secret of your account; created on the first request."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecret(secret=await webhooks.secret(caller.account_id))
