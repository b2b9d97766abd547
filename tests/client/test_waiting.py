"""Waiting and following: what happens to the connection is not what happens to the job."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from darkroom_client import errors
from darkroom_client.steps import Opened
from darkroom_client.waiting import follow_job, wait_for_job
from tests.client.kit import JOB_ID, Clock, Driven, answer, job_document, problem

LOST = httpx.ReadError("reset")
AWAY = answer(503, problem(503, "unavailable"), Retry_After="2")


def late(clock: Clock, seconds: float, outcome: object) -> Callable[[], object]:
    """That outcome, after so much time."""

    def arrive() -> object:
        clock.now += seconds
        return outcome

    return arrive


def test_it_asks_until_the_job_has_ended(clock: Clock) -> None:
    running = late(clock, 30, answer(200, job_document("running")))
    driven = Driven(wait_for_job(clock.patience(), JOB_ID), clock)
    driven.give(running, running, answer(200, job_document("failed")))
    assert driven.result.status == "failed"
    assert [step.call.query for step in driven.steps] == [{"wait": 30}] * 3
    assert driven.sleeps == []


def test_it_bears_dropped_connections_and_a_service_that_is_away(clock: Clock) -> None:
    driven = Driven(wait_for_job(clock.patience(), JOB_ID), clock)
    driven.give(*[LOST, AWAY] * 3, answer(200, job_document()))
    assert driven.result.succeeded
    assert driven.sleeps == [0.5, 3.0, 2.0, 6.0, 8.0, 18.0]


def test_it_does_not_bear_them_for_ever(clock: Clock) -> None:
    with pytest.raises(errors.UnreachableError):
        Driven(wait_for_job(clock.patience(outage=100), JOB_ID), clock).give(*[late(clock, 30, LOST)] * 5)


def test_an_outage_is_over_when_the_service_was_heard(clock: Clock) -> None:
    trouble = late(clock, 80, LOST)
    running = late(clock, 30, answer(200, job_document("running")))
    driven = Driven(wait_for_job(clock.patience(outage=100), JOB_ID), clock)
    driven.give(trouble, running, trouble, running, trouble, running, answer(200, job_document()))
    assert driven.result.succeeded


def test_a_timeout_holds_whatever_happens_and_leaves_the_job(clock: Clock) -> None:
    running = late(clock, 10, answer(200, job_document("running")))
    with pytest.raises(errors.WaitTimeoutError, match="is generating after 10 s") as caught:
        Driven(wait_for_job(clock.patience(), JOB_ID, 10), clock).give(running)
    assert caught.value.job is not None
    with pytest.raises(errors.WaitTimeoutError) as caught:
        Driven(wait_for_job(clock.patience(), JOB_ID, timeout=5), clock).give(*[LOST] * 5)
    assert caught.value.job is None
    assert clock.now == pytest.approx(115)


def test_no_time_at_all_is_one_look(clock: Clock) -> None:
    driven = Driven(wait_for_job(clock.patience(), JOB_ID, timeout=0), clock).give(answer(200, job_document()))
    assert driven.steps[0].call.query == {"wait": None}


def test_a_service_too_full_to_let_us_wait_is_not_asked_in_a_circle(clock: Clock) -> None:
    at_once = answer(200, job_document("running"))
    driven = Driven(wait_for_job(clock.patience(), JOB_ID), clock).give(at_once, at_once, answer(200, job_document()))
    assert driven.sleeps == [0.5, 0.5]


def test_what_does_not_pass_is_told_at_once(clock: Clock) -> None:
    with pytest.raises(errors.NotFoundError):
        Driven(wait_for_job(clock.patience(), JOB_ID), clock).give(answer(404))
    with pytest.raises(errors.UnauthorizedError):
        Driven(follow_job(clock.patience(), JOB_ID), clock).give(answer(401))


# the stream of events -----------------------------------------------------------------------------------------------


def event(number: int, status: str, **more: str) -> bytes:
    return f"event: job\nid: {number}\ndata: {json.dumps(job_document(status, **more))}\n\n".encode()


def test_each_change_is_told_once_over_broken_streams(clock: Clock) -> None:
    driven = Driven(follow_job(clock.patience(), JOB_ID), clock)
    driven.give(
        *(LOST, Opened(), event(1, "queued") + event(2, "running", stage="submitting"), LOST),
        *(AWAY, Opened(), event(2, "running", stage="submitting"), b": ping\n\n", b""),
        *(Opened(), event(2, "running", stage="submitting") + event(5, "succeeded")),
    )
    assert [(job.status, job.stage) for job in driven.items] == [
        ("queued", "generating"),
        ("running", "submitting"),
        ("succeeded", None),
    ]
    assert all(seconds >= 0.25 for seconds in driven.sleeps)


def test_a_stream_that_never_lasts_is_no_outage(clock: Clock) -> None:
    short = (Opened(), event(1, "running"), b"")
    driven = Driven(follow_job(clock.patience(outage=10), JOB_ID), clock)
    driven.give(*short * 50, Opened(), event(2, "failed"))
    assert [job.status for job in driven.items] == ["running", "failed"]


def test_silence_is_an_outage(clock: Clock) -> None:
    with pytest.raises(errors.UnreachableError, match="ended early"):
        Driven(follow_job(clock.patience(outage=100), JOB_ID), clock).give(*(Opened(), late(clock, 30, b"")) * 5)


def test_an_event_that_is_no_job_is_told(clock: Clock) -> None:
    with pytest.raises(errors.UnexpectedAnswerError):
        Driven(follow_job(clock.patience(), JOB_ID), clock).give(Opened(), b"event: job\ndata: {}\n\n")
