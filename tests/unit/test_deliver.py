"""What a delivery attempt leads to."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from darkroom.domain.errors import UnavailableError
from darkroom.domain.job import Delivery, DeliveryAttempt, Event
from darkroom.domain.lifecycle import DeliveryEvent, DeliveryStatus, JobStatus
from darkroom.domain.representation import represent_event
from darkroom.ports import AttemptReport
from darkroom.service.deliver import Deliverer
from tests.unit.stand_ins import CREATED_MS, Answers, FakeBucket, a_job, play

SCHEDULE = (5.0, 300.0)


def owed(made: int = 0, **fields: Any) -> Delivery:  # noqa: ANN401 - Delivery's own
    attempts = tuple(DeliveryAttempt(n + 1, CREATED_MS, 500, None, 3, "") for n in range(made))
    return Delivery(
        id="dlv_1",
        account_id="acct_1",
        event_id="evt_1",
        event_type="job.succeeded",
        event_seq=1,
        job_id="job_1",
        url="https://shop.example/hooks",
        status=DeliveryStatus.PENDING,
        created_at=CREATED_MS,
        next_attempt_at=CREATED_MS,
        attempts=attempts,
        **fields,
    )


class Records:
    """`ports.Deliveries` and `ports.Accounts`, as far as an attempt needs them."""

    def __init__(self, delivery: Delivery | None) -> None:
        self.delivery = delivery
        self.event: Event | None = Event(
            "evt_1", 1, "job.succeeded", CREATED_MS, a_job(status=JobStatus.SUCCEEDED), "job_1"
        )
        self.taking = Answers(None)
        self.recorded: list[tuple[DeliveryEvent, float]] = []

    async def claim(self, _id: str, _token: str, _seconds: float) -> Delivery | None:
        return self.delivery

    async def event_of(self, _: Delivery) -> Event | None:
        return self.event

    async def webhook_secret(self, _: str) -> str:
        return "whsec_made-up"

    async def record(self, _id: str, _token: str, report: AttemptReport, event: DeliveryEvent, *, delay: float) -> None:
        await self.taking.next()
        self.report = report
        self.recorded.append((event, delay))


class Sender:
    """Implements `ports.WebhookSender`."""

    def __init__(self, report: AttemptReport) -> None:
        self.report = report
        self.sent: list[dict[str, Any]] = []

    async def send(self, url: str, *, secret: str, webhook_id: str, timestamp: datetime, body: bytes) -> AttemptReport:
        self.sent.append({"url": url, "secret": secret, "id": webhook_id, "at": timestamp, "body": body})
        return self.report


def answered(status: int | None, *, error: str | None = None, retry_after: float | None = None) -> AttemptReport:
    return AttemptReport(status, error, 12, "", retry_after)


def attempt(records: Records, report: AttemptReport) -> Sender:
    sender = Sender(report)
    deliverer = Deliverer(
        deliveries=records,  # type: ignore[arg-type]
        accounts=records,  # type: ignore[arg-type]
        sender=sender,
        represent=lambda event: represent_event(event, bucket="b", presign=FakeBucket().presign),
        schedule=SCHEDULE,
        timeout=15,
    )
    assert play(deliverer.attempt("dlv_1")) == (records.delivery is not None)
    return sender


@pytest.mark.parametrize("status", [200, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    records = Records(owed())
    (sent,) = attempt(records, answered(status)).sent
    assert records.recorded == [(DeliveryEvent.ACKNOWLEDGED, 0)]
    assert (sent["id"], sent["secret"], sent["url"]) == ("evt_1", "whsec_made-up", "https://shop.example/hooks")
    assert set(json.loads(sent["body"])) == {"type", "timestamp", "data"}


@pytest.mark.parametrize("status", [199, 300, 301, 404, 429, 500, None])
def test_anything_else_is_tried_again_by_the_schedule(status: int | None) -> None:
    for made, follows in (
        (0, (DeliveryEvent.MISSED, 5)),
        (1, (DeliveryEvent.MISSED, 300)),
        (2, (DeliveryEvent.EXHAUSTED, 0)),
    ):
        records = Records(owed(made))
        attempt(records, answered(status, error=None if status else "refused"))
        assert records.recorded == [follows]


def test_410_is_refused_at_once() -> None:
    records = Records(owed())
    attempt(records, answered(410))
    assert records.recorded == [(DeliveryEvent.REFUSED, 0)]


@pytest.mark.parametrize(("asked", "delay"), [(2, 5), (60, 60), (10**9, 24 * 3600)])
def test_a_receiver_may_ask_for_more_time_but_not_for_ever(asked: float, delay: float) -> None:
    records = Records(owed())
    attempt(records, answered(503, retry_after=asked))
    assert records.recorded == [(DeliveryEvent.MISSED, delay)]


def test_a_redelivery_has_a_fresh_schedule() -> None:
    records = Records(owed(3, schedule_from=3))
    attempt(records, answered(500))
    assert records.recorded == [(DeliveryEvent.MISSED, 5)]


def test_what_another_attempt_has_is_not_sent() -> None:
    records = Records(None)
    assert attempt(records, answered(200)).sent == []
    assert records.recorded == []


def test_an_event_whose_job_was_removed_is_not_sent() -> None:
    records = Records(owed())
    records.event = None
    assert attempt(records, answered(200)).sent == []
    assert records.recorded == [(DeliveryEvent.MISSED, 5)]
    assert records.report.error is not None
    assert records.report.error.startswith("event_gone")


def test_what_was_answered_is_recorded_as_soon_as_the_store_is_back() -> None:
    records = Records(owed())
    records.taking = Answers(UnavailableError("away"), UnavailableError("away"), None)
    assert len(attempt(records, answered(204)).sent) == 1
    assert records.recorded == [(DeliveryEvent.ACKNOWLEDGED, 0)]
