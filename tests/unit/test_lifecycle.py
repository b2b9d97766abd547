"""The tables of transitions: complete, without dead ends or unused words, and the same ones that the scripts have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import pytest

from darkroom.domain.lifecycle import (
    BATCH,
    DELIVERY,
    JOB,
    OPEN_SUBMISSION,
    SUBMISSION,
    TERMINAL,
    TERMINAL_BATCH,
    BatchEvent,
    BatchStatus,
    DeliveryEvent,
    DeliveryStatus,
    JobEvent,
    JobStatus,
    SubmissionEvent,
    SubmissionStatus,
)

Table = Mapping[Any, Mapping[Any, Any]]

LIVES = [
    pytest.param(JOB, JobStatus, JobEvent, JobStatus.QUEUED, id="job"),
    pytest.param(SUBMISSION, SubmissionStatus, SubmissionEvent, SubmissionStatus.INTENDED, id="submission"),
    pytest.param(DELIVERY, DeliveryStatus, DeliveryEvent, DeliveryStatus.PENDING, id="delivery"),
    pytest.param(BATCH, BatchStatus, BatchEvent, BatchStatus.VALIDATING, id="batch"),
]


def edges(table: Table) -> Iterator[tuple[Any, Any, Any]]:
    for state, exits in table.items():
        for event, to in exits.items():
            yield state, event, to


def reachable(table: Table, start: StrEnum) -> set[Any]:
    found, new = {start}, {start}
    while new:
        new = {to for state, _, to in edges(table) if state in new} - found
        found |= new
    return found


@pytest.mark.parametrize(("table", "status", "event", "first"), LIVES)
def test_the_table_speaks_of_every_state_and_only_of_states(
    table: Table, status: type[StrEnum], event: type[StrEnum], first: StrEnum
) -> None:
    assert set(table) == set(status)
    assert {to for _, _, to in edges(table)} <= set(status)
    assert reachable(table, first) == set(status)
    assert {name for _, name, _ in edges(table)} == set(event), "an event that never happens is not one"


def test_an_ended_job_only_begins_anew_and_a_succeeded_one_does_not_even_that() -> None:
    assert {status: dict(JOB[status]) for status in TERMINAL} == {
        JobStatus.SUCCEEDED: {},
        JobStatus.FAILED: {JobEvent.REPLAYED: JobStatus.QUEUED},
        JobStatus.CANCELLED: {JobEvent.REPLAYED: JobStatus.QUEUED},
    }


@pytest.mark.parametrize("status", sorted(set(JobStatus) - TERMINAL))
def test_every_waiting_or_running_job_can_be_ended_by_cancellation_deadline_and_grace(status: JobStatus) -> None:
    exits = JOB[status]
    assert exits[JobEvent.CANCELLED] is JobStatus.CANCELLED
    assert exits[JobEvent.EXPIRED] is JobStatus.FAILED
    assert exits[JobEvent.EXHAUSTED] is JobStatus.FAILED


def test_only_a_worker_that_holds_the_job_completes_it() -> None:
    assert [state for state, event, _ in edges(JOB) if event is JobEvent.COMPLETED] == [JobStatus.RUNNING]
    assert [state for state, _, to in edges(JOB) if to is JobStatus.RUNNING] == [JobStatus.QUEUED]
    assert [state for state, _, to in edges(JOB) if to is JobStatus.SUCCEEDED] == [JobStatus.RUNNING]


def test_one_event_always_ends_in_the_same_state() -> None:
    for table in (JOB, SUBMISSION, DELIVERY, BATCH):
        ends: dict[Any, set[Any]] = {}
        for _, event, to in edges(table):
            ends.setdefault(event, set()).add(to)
        assert all(len(states) == 1 for states in ends.values()), ends


def test_an_ended_batch_only_opens_again_and_a_failed_one_does_not_even_that() -> None:
    assert {tuple(BATCH[status]) for status in TERMINAL_BATCH - {BatchStatus.FAILED}} == {(BatchEvent.REOPENED,)}
    assert BATCH[BatchStatus.FAILED] == {}


def test_what_fal_took_is_never_called_rejected_or_absent() -> None:
    """Else the next submission would be paid for a second time."""
    after = reachable(SUBMISSION, SubmissionStatus.ACCEPTED)
    assert after == {SubmissionStatus.ACCEPTED, SubmissionStatus.DONE}


def test_a_doubt_is_never_forgotten_only_settled() -> None:
    assert set(SUBMISSION[SubmissionStatus.UNCERTAIN].values()) == {
        SubmissionStatus.ACCEPTED,
        SubmissionStatus.REJECTED,
        SubmissionStatus.ABSENT,
        SubmissionStatus.ABANDONED,
    }


def test_open_submissions_are_those_that_something_may_still_be_heard_of() -> None:
    assert {status for status in SubmissionStatus if SUBMISSION[status]} == OPEN_SUBMISSION


def test_every_delivery_can_be_owed_again() -> None:
    for status in DeliveryStatus:
        assert DELIVERY[status][DeliveryEvent.REDELIVERED] is DeliveryStatus.PENDING
