"""What a look for a lost reply concludes: adopt what is ours; absent only by proof; else wait, or obey the policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from darkroom.domain.errors import BlockedError, DarkroomError, TransientError
from darkroom.domain.generation import ListedRequest
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import JobStatus, Place, Stage, SubmissionStatus
from darkroom.domain.policy import reconcile_delay
from darkroom.ports import Acceptance, Settlement, Source
from darkroom.service.reconcile import ON_UNCERTAIN, DoubtTerms, Reconciler
from tests.unit.stand_ins import (
    CREATED_MS,
    Answers,
    FakeGenerator,
    FakeSchedule,
    FakeTransitions,
    a_job,
    a_submission,
    play,
)

OPENED = datetime.fromtimestamp(CREATED_MS / 1000, tz=UTC)
UNKNOWN, WINDOW = 100, 200
LATER, ABSENT, HOLD = Settlement.LATER, Settlement.ABSENT, Settlement.HOLD


class OneJob:
    """`ports.Jobs`, as far as a look reads it."""

    def __init__(self, job: Job | None) -> None:
        self._job = job

    async def get(self, _: str) -> Job | None:
        return self._job


def doubted(**fields: Any) -> Job:  # noqa: ANN401 - Submission's own
    submission = a_submission(SubmissionStatus.UNCERTAIN, ref=None, **fields)
    return a_job(
        status=JobStatus.QUEUED, stage=Stage.RECONCILING, place=Place.RECONCILE, lease=None, submissions=(submission,)
    )


def listed(request_id: str = "req-9", **fields: Any) -> ListedRequest:  # noqa: ANN401 - ListedRequest's own
    item = ListedRequest(request_id, OPENED, OPENED + timedelta(seconds=2), 200, {"prompt": "Mars", "seed": 7}, {})
    return replace(item, **fields)


class Look:
    """One look, at an age of the submission in seconds."""

    def __init__(self, job: Job | None = None, *, policy: str = "hold") -> None:
        self.records, self.schedule, self.fal = FakeTransitions(), FakeSchedule(), FakeGenerator()
        self.reconciler = Reconciler(
            jobs=OneJob(job or doubted()),  # type: ignore[arg-type]
            schedule=self.schedule,
            transitions=self.records,
            generator=self.fal,
            terms=DoubtTerms(UNKNOWN, WINDOW, ON_UNCERTAIN[policy]),
        )

    def at(self, age: float, *listing: object) -> list[tuple[Any, ...]]:
        self.schedule.clock = OPENED + timedelta(seconds=age)
        self.fal.listings = Answers(listing[0] if listing else [])
        play(self.reconciler.look("job_1"))
        return self.records.did


def test_our_request_is_adopted() -> None:
    assert Look().at(1, [listed("other", input={"prompt": "Venus", "seed": 7}), listed("ours")]) == [
        ("accept", "ours", Source.LISTING)
    ]


def test_defaults_that_fal_filled_in_make_no_difference() -> None:
    shown = {"prompt": "Mars", "seed": 7, "num_images": 1, "image_size": "square_hd", "enable_prompt_expansion": False}
    assert Look().at(1, [listed("ours", input=shown)]) == [("accept", "ours", Source.LISTING)]


def test_anothers_request_with_the_same_input_is_passed_over() -> None:
    look = Look()
    look.records.acceptance = Answers(Acceptance.OWNED, Acceptance.ACCEPTED)
    assert look.at(1, [listed("theirs"), listed("ours")]) == [
        ("accept", "theirs", Source.LISTING),
        ("accept", "ours", Source.LISTING),
    ]


def test_anothers_request_alone_is_no_match_and_no_obstacle() -> None:
    look = Look()
    look.records.acceptance = Answers(Acceptance.OWNED)
    assert look.at(UNKNOWN, [listed("theirs")])[-1] == ("settle", ABSENT, 0)


def test_while_a_twin_waits_for_its_reply_nothing_is_decided() -> None:
    """The listed request may be the twin's, whose own reply says so at any moment."""
    look = Look()
    look.records.acceptance = Answers(Acceptance.BUSY)
    assert look.at(WINDOW + 1, [listed()]) == [("accept", "req-9", Source.LISTING), ("settle", LATER, 5)]


@pytest.mark.parametrize("found", [Acceptance.DOUBLE, Acceptance.LATE])
def test_a_charge_that_is_on_record_ends_the_look(found: Acceptance) -> None:
    look = Look()
    look.records.acceptance = Answers(found)
    assert look.at(UNKNOWN + 1, [listed()]) == [("accept", "req-9", Source.LISTING)]


def test_absent_needs_the_time_to_have_passed() -> None:
    assert Look().at(UNKNOWN - 1)[-1][:2] == ("settle", LATER)
    assert Look().at(UNKNOWN) == [("settle", ABSENT, 0)]


@pytest.mark.parametrize("error", [TransientError("502"), BlockedError("no admin key", code="listing_refused")])
def test_absent_needs_a_listing_read_to_its_end(error: DarkroomError) -> None:
    assert Look().at(UNKNOWN + 1, error)[-1][:2] == ("settle", LATER)
    assert Look().at(WINDOW, error) == [("settle", HOLD, 0)]


@pytest.mark.parametrize("sent", [None, OPENED, OPENED - timedelta(minutes=4)])
def test_absent_needs_inputs_that_can_be_read(sent: datetime | None) -> None:
    hidden = listed(input=None, sent_at=sent)
    assert Look().at(UNKNOWN + 1, [hidden])[-1][:2] == ("settle", LATER)
    assert Look().at(WINDOW, [hidden]) == [("settle", HOLD, 0)]


def test_a_hidden_input_of_an_earlier_time_is_no_obstacle() -> None:
    hidden = listed(input=None, sent_at=OPENED - timedelta(minutes=6))
    assert Look().at(UNKNOWN, [hidden]) == [("settle", ABSENT, 0)]


@pytest.mark.parametrize(
    ("policy", "follows"), [("hold", HOLD), ("resubmit", Settlement.RESUBMIT), ("fail", Settlement.FAIL)]
)
def test_the_windows_end_follows_the_policy(policy: str, follows: Settlement) -> None:
    assert Look(policy=policy).at(WINDOW, TransientError("502")) == [("settle", follows, 0)]


def test_the_decisive_looks_come_on_time() -> None:
    """Looks grow apart, but the ones that can prove absence and end the window are not overslept."""
    late = doubted(looks=20)
    assert Look(late).at(10)[-1] == ("settle", LATER, reconcile_delay(20))
    assert Look(late).at(UNKNOWN - 3)[-1] == ("settle", LATER, pytest.approx(3))
    assert Look(late).at(WINDOW - 3, TransientError("502"))[-1] == ("settle", LATER, pytest.approx(3))


@pytest.mark.parametrize(
    "job", [a_job(), a_job(submissions=(a_submission(),)), a_job(submissions=(a_submission(SubmissionStatus.ABSENT),))]
)
def test_what_is_settled_already_is_left_alone(job: Job) -> None:
    look = Look(job)
    assert look.at(WINDOW) == []
    assert look.fal.did == []
