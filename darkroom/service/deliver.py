"""One delivery attempt: claim it, sign the event as it is read now, send, record what followed."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from darkroom.domain.job import Delivery, Event
from darkroom.domain.lifecycle import DeliveryEvent
from darkroom.domain.representation import EventView
from darkroom.ports import Accounts, AttemptReport, Deliveries, WebhookSender
from darkroom.service.persist import persist

logger = logging.getLogger(__name__)

_GONE: Final = 410

_RETRY_AFTER_MAX: Final = 24 * 3600.0
"""A receiver may ask for more time, but not for ever."""


class Deliverer:
    """Makes delivery attempts. `schedule` is the seconds before each retry; `timeout` bounds one attempt."""

    def __init__(
        self,
        *,
        deliveries: Deliveries,
        accounts: Accounts,
        sender: WebhookSender,
        represent: Callable[[Event], EventView],
        schedule: Sequence[float],
        timeout: float,
    ) -> None:
        self._deliveries = deliveries
        self._accounts = accounts
        self._sender = sender
        self._represent = represent
        self._schedule = schedule
        self._timeout = timeout

    async def attempt(self, delivery_id: str) -> bool:
        """Make the next attempt, if it is due and nobody else makes it. Returns whether one was made.

        A crash in between repeats the attempt, with the same webhook id: receivers see an event at least once.
        """
        token = secrets.token_hex(8)
        delivery = await self._deliveries.claim(delivery_id, token, self._timeout + 10)
        if delivery is None:
            return False
        report = await self._send(delivery)
        event, delay = self._next(delivery, report)
        logger.info(
            "%s attempt %d: %s",
            *(delivery.id, len(delivery.attempts) + 1, report.status_code or report.error),
            extra={
                "delivery_id": delivery.id,
                "job_id": delivery.job_id,
                "batch_id": delivery.batch_id,
                "event": event.value,
            },
        )
        await persist(
            lambda: self._deliveries.record(delivery_id, token, report, event, delay=delay),
            "a delivery attempt",
            delivery_id=delivery_id,
        )
        return True

    async def _send(self, delivery: Delivery) -> AttemptReport:
        event = await self._deliveries.event_of(delivery)
        if event is None or (event.job is None and event.batch is None):
            return AttemptReport(None, "event_gone: the record behind this event was removed", 0, "", None)
        view = self._represent(event)
        body = view.model_dump_json(include={"type", "timestamp", "data"}).encode()
        secret = await self._accounts.webhook_secret(delivery.account_id)
        return await self._sender.send(
            delivery.url, secret=secret, webhook_id=delivery.event_id, timestamp=datetime.now(UTC), body=body
        )

    def _next(self, delivery: Delivery, report: AttemptReport) -> tuple[DeliveryEvent, float]:
        """What an attempt's report leads to, and the seconds until the next one."""
        if report.status_code is not None and 200 <= report.status_code < 300:
            return DeliveryEvent.ACKNOWLEDGED, 0
        if report.status_code == _GONE:
            return DeliveryEvent.REFUSED, 0
        made = len(delivery.attempts) - delivery.schedule_from
        if made >= len(self._schedule):
            return DeliveryEvent.EXHAUSTED, 0
        return DeliveryEvent.MISSED, max(self._schedule[made], min(report.retry_after or 0, _RETRY_AFTER_MAX))
