"""HTTP route of the webhook secret."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response

from app.accounts.auth import Caller, require
from app.errors import Unavailable
from app.infra.encryption import DecryptionError
from app.web import problems
from app.webhooks.schemas import WebhookSecret
from app.webhooks.service import WebhookService

router = APIRouter(tags=["webhooks"])
log = structlog.get_logger()


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
    try:
        return WebhookSecret(secret=await webhooks.secret(caller.account_id))
    except DecryptionError as error:
        log.error("webhook secret cannot be decrypted", account=str(caller.account_id))  # noqa: TRY400
        raise Unavailable("The gateway cannot decrypt this secret now; its operator is rotating keys.") from error
