"""Only a signed and recent webhook is believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from darkroom_client import Event, MisuseError, WebhookInvalidError, verify_webhook
from tests.client.kit import BATCH_ID, JOB_ID, batch_document, job_document

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps({"type": "job.succeeded", "timestamp": "2026-11-22T22:06:24Z", "data": job_document()})


def signed(body: str = BODY, *, at: datetime | None = None) -> dict[str, str]:
    moment = at or datetime.now(UTC)
    return {
        "Webhook-Id": "evt_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("evt_1", moment.replace(microsecond=0), body),
    }


@pytest.mark.parametrize("payload", [BODY, BODY.encode()])
def test_what_is_signed_is_an_event(payload: bytes | str) -> None:
    event = verify_webhook(payload, signed(), SECRET)
    assert (event.id, event.seq, event.type) == ("evt_1", None, "job.succeeded")
    assert event.data is not None
    assert event.data.id == JOB_ID


def test_what_was_changed_is_not() -> None:
    with pytest.raises(WebhookInvalidError):
        verify_webhook(BODY + " ", signed(), SECRET)
    with pytest.raises(WebhookInvalidError):
        verify_webhook(BODY, {**signed(), "Webhook-Id": "evt_2"}, SECRET)
    with pytest.raises(WebhookInvalidError):
        verify_webhook(BODY, signed(), "whsec_" + "A" * 32)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_what_is_old_or_early_is_not(minutes: int) -> None:
    with pytest.raises(WebhookInvalidError, match="too"):
        verify_webhook(BODY, signed(at=datetime.now(UTC) + timedelta(minutes=minutes)), SECRET)


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v1,%%%", "v1,a", "v2,AAAA", "v1,ä", ",,,"])
def test_a_senseless_signature_is_only_invalid(signature: str) -> None:
    with pytest.raises(WebhookInvalidError):
        verify_webhook(BODY, {**signed(), "webhook-signature": signature}, SECRET)


def test_senseless_headers_and_bodies_are_only_invalid() -> None:
    with pytest.raises(WebhookInvalidError):
        verify_webhook(BODY, {}, SECRET)
    with pytest.raises(WebhookInvalidError):
        verify_webhook(b"\xff", signed(), SECRET)
    for body in ("[]", "{}", "x"):
        with pytest.raises(WebhookInvalidError, match="not an event"):
            verify_webhook(body, signed(body), SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä"])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(MisuseError):
        verify_webhook(BODY, signed(), secret)


def test_an_event_of_a_batch_is_read_without_being_a_job() -> None:
    event = Event.model_validate(
        {
            "id": "evt_1",
            "type": "batch.completed",
            "timestamp": "2026-11-22T20:00:00Z",
            "data": batch_document("completed", counts={"succeeded": 60}),
        }
    )

    assert event.data is None
    assert event.batch is not None
    assert (event.batch.id, event.batch.ended, event.batch.counts.succeeded) == (BATCH_ID, True, 60)
