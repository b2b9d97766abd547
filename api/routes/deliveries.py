"""Webhooks: what was owed, what became of it, and the secret they are signed with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api import examples
from api.auth import AccountId, Door
from api.openapi import answers, keyed
from api.schemas import DeliveriesQuery, DeliveryList, WebhookSecret
from api.views import find_delivery
from darkroom.domain.representation import DeliveryView, represent_delivery

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.get("/webhook-secret", responses=keyed())
async def get_webhook_secret(services: Door, account_id: AccountId) -> WebhookSecret:
    """What the webhooks of this account's jobs are signed with."""
    return WebhookSecret(secret=await services.accounts.webhook_secret(account_id))


@router.get(
    "/deliveries", responses=answers(200, "The newest, at most 100.", {"data": [examples.delivery()]}) | keyed()
)
async def list_deliveries(
    services: Door, account_id: AccountId, query: Annotated[DeliveriesQuery, Query()]
) -> DeliveryList:
    """Deliveries with every attempt, newest first."""
    found = await services.deliveries.newest(account_id, job_id=query.job_id, status=query.status)
    return DeliveryList(data=[represent_delivery(delivery) for delivery in found])


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=answers(202, "It is owed again, under the same webhook-id.", examples.delivery()) | keyed("not_found"),
)
async def redeliver(delivery_id: str, services: Door, account_id: AccountId) -> DeliveryView:
    """Send an event once more, with a fresh schedule of attempts."""
    await find_delivery(services, account_id, delivery_id)
    await services.deliveries.redeliver(delivery_id)
    return represent_delivery(await find_delivery(services, account_id, delivery_id))
