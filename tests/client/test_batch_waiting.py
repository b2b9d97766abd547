"""Looking at a batch until it has ended, whatever becomes of the connection."""

from __future__ import annotations

import httpx
import pytest

from darkroom_client import errors
from darkroom_client.batch_waiting import follow_batch, wait_for_batch
from tests.client.kit import BATCH_ID, Clock, Driven, answer, batch_document, problem

LOST = httpx.ReadError("reset")
RUNNING = answer(200, batch_document("running"))
PAUSED = answer(200, batch_document("paused"))
AWAY = answer(503, problem(503, "unavailable"), Retry_After="2")


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed", "expired"])
def test_it_looks_until_the_batch_has_ended(clock: Clock, end: str) -> None:
    driven = Driven(wait_for_batch(clock.patience(), BATCH_ID, every=3), clock)
    driven.give(answer(200, batch_document("validating")), RUNNING, PAUSED, answer(200, batch_document(end)))
    assert driven.result.status == end
    assert driven.sleeps == [3, 3, 3]


def test_it_bears_an_outage_but_not_for_ever(clock: Clock) -> None:
    driven = Driven(wait_for_batch(clock.patience(outage=100), BATCH_ID), clock)
    driven.give(LOST, AWAY, RUNNING, LOST, answer(200, batch_document("completed")))
    assert driven.result.ended
    with pytest.raises(errors.UnreachableError):
        Driven(wait_for_batch(clock.patience(outage=10), BATCH_ID), clock).give(*[LOST] * 5)


def test_an_outage_is_over_when_the_service_was_heard(clock: Clock) -> None:
    looks = (LOST, LOST, RUNNING) * 5 + (answer(200, batch_document("completed")),)
    patience = clock.patience(outage=10, first_delay=2)
    assert Driven(wait_for_batch(patience, BATCH_ID), clock).give(*looks).result.ended
    assert len(Driven(follow_batch(patience, BATCH_ID), clock).give(*looks).items) == 6


def test_a_timeout_leaves_the_batch(clock: Clock) -> None:
    with pytest.raises(errors.WaitTimeoutError, match="is running after 5 s; it goes on") as caught:
        Driven(wait_for_batch(clock.patience(), BATCH_ID, 5, every=2), clock).give(*[RUNNING] * 4)
    assert caught.value.batch is not None
    assert clock.now == 105


def test_what_does_not_pass_is_told_at_once(clock: Clock) -> None:
    with pytest.raises(errors.NotFoundError):
        Driven(wait_for_batch(clock.patience(), BATCH_ID), clock).give(answer(404))
    with pytest.raises(errors.UnauthorizedError):
        Driven(follow_batch(clock.patience(), BATCH_ID), clock).give(RUNNING, answer(401))


def test_following_gives_each_look_and_tells_of_trouble(clock: Clock) -> None:
    told: list[errors.DarkroomError] = []
    driven = Driven(follow_batch(clock.patience(), BATCH_ID, every=1, on_trouble=told.append), clock)
    driven.give(RUNNING, LOST, AWAY, RUNNING, PAUSED, answer(200, batch_document("completed")))
    assert [batch.status for batch in driven.items] == ["running", "running", "paused", "completed"]
    assert [type(fault) for fault in told] == [errors.UnreachableError, errors.UnavailableError]


def test_an_outage_that_lasts_too_long_ends_following(clock: Clock) -> None:
    told: list[errors.DarkroomError] = []
    with pytest.raises(errors.UnreachableError):
        Driven(follow_batch(clock.patience(outage=2), BATCH_ID, on_trouble=told.append), clock).give(
            RUNNING, *[LOST] * 3
        )
    assert len(told) == 2
