"""The decisions of one hold: what each fault leads to, what is resumed, and that a reply is saved whatever comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    NotSentError,
    PermanentError,
    RateLimitedError,
    ResultGoneError,
    ResultPendingError,
    TransientError,
    UnavailableError,
    UncertainError,
)
from darkroom.domain.generation import Completed, GenerationFailed, InProgress, InQueue, ListedRequest
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import JobEvent, SubmissionStatus
from darkroom.ports import Acceptance, Opening, Source, Trouble
from darkroom.service.copy_artifacts import ArtifactCopier
from darkroom.service.run_job import Hold, JobRunner, Terms
from tests.unit.stand_ins import (
    REF,
    Answers,
    FakeBucket,
    FakeGenerator,
    FakeMedia,
    FakeSchedule,
    FakeThumbnails,
    FakeTransitions,
    a_job,
    a_submission,
    pictures,
    play,
    settle_down,
)

PRICE = Decimal("0.008")


class House:
    """A runner on stand-ins."""

    def __init__(self) -> None:
        self.records, self.schedule, self.fal = FakeTransitions(), FakeSchedule(), FakeGenerator()
        self.bucket, self.media = FakeBucket(), FakeMedia()
        copier = ArtifactCopier(
            transitions=self.records,
            schedule=self.schedule,
            media=self.media,
            thumbnails=FakeThumbnails(),
            store=self.bucket,
            prefix="renders/",
            price_per_megapixel=PRICE,
        )
        self.runner = JobRunner(
            transitions=self.records,
            schedule=self.schedule,
            generator=self.fal,
            copier=copier,
            terms=Terms(600, 10, PRICE, lambda _: None),
        )

    def run(self, job: Job | None = None, hold: Hold | None = None) -> list[tuple[Any, ...]]:
        """Carry a job on to the end of its hold; what was recorded."""
        play(self.runner.run(job or a_job(), hold or Hold()))
        return self.records.did


@pytest.fixture
def house() -> House:
    return House()


# --- submit ----------------------------------------------------------------------------------------------------------


def test_the_whole_story(house: House) -> None:
    recorded = house.run()
    assert recorded == [
        ("open", Opening.OPENED),
        ("accept", "req-1", Source.REPLY),
        ("verdict", "Generated", Decimal("0.008388608")),
        ("keep", 0, "renders/acct_1/2023/11/14/job_1/0.png"),
        ("finish", JobEvent.COMPLETED, None),
    ]
    assert house.fal.did == ["submit", "status", "result"]
    assert set(house.bucket.objects) == {
        "renders/acct_1/2023/11/14/job_1/0.png",
        "renders/acct_1/2023/11/14/job_1/job.json",
    }


REFUSALS = [
    (PermanentError("no"), ("finish", JobEvent.REJECTED, "rejected_by_fal"), []),
    (RateLimitedError("slow", retry_after=7), ("snooze", "lease_1"), [("cool_down", 7)]),
    (RateLimitedError("slow"), ("snooze", "lease_1"), [("cool_down", 2.0)]),
    (BlockedError("key", code="fal_key_refused"), ("snooze", "lease_1"), [("close_gate", "fal_key_refused")]),
    (NotSentError("dns"), ("snooze", "lease_1"), [("trip", "fal_unreachable", Trouble.SUBMIT)]),
    (
        TransientError("503"),
        ("retry", "upstream_unavailable", True),
        [("trip", "upstream_unavailable", Trouble.SUBMIT)],
    ),
]


@pytest.mark.parametrize(("error", "follows", "stops"), REFUSALS, ids=lambda value: type(value).__name__)
def test_what_follows_when_fal_did_not_take_it(
    house: House, error: DarkroomError, follows: tuple[Any, ...], stops: list[tuple[Any, ...]]
) -> None:
    house.fal.submits = Answers(error)
    recorded = house.run()
    assert recorded == [("open", Opening.OPENED), ("reject", error.code), follows]
    assert house.schedule.did == stops
    assert house.fal.did == ["submit"]


def test_an_unknown_outcome_is_doubted_and_never_sent_again(house: House) -> None:
    house.fal.submits = Answers(UncertainError("reset"))
    assert house.run() == [("open", Opening.OPENED), ("doubt", "outcome_unknown")]
    assert house.fal.did == ["submit"]


def test_with_the_breaker_open_no_attempt_is_used(house: House) -> None:
    house.schedule.tripped = True
    house.fal.submits = Answers(TransientError("503"))
    assert house.run()[-1] == ("retry", "upstream_unavailable", False)


NOT_OPENED = {
    Opening.CANCEL: ("finish", JobEvent.CANCELLED, None),
    Opening.DEADLINE: ("finish", JobEvent.EXPIRED, "deadline_exceeded"),
    Opening.GATE: ("snooze", "lease_1"),
    Opening.COOLDOWN: ("snooze", "lease_1"),
    Opening.STORAGE: ("snooze", "lease_1"),
    Opening.PERMIT: ("snooze", "lease_1"),
    Opening.OPEN: ("snooze", "lease_1"),
}


@pytest.mark.parametrize(("opening", "follows"), NOT_OPENED.items())
def test_nothing_is_sent_unless_the_store_says_so(house: House, opening: Opening, follows: tuple[Any, ...]) -> None:
    house.records.opening = Answers(opening)
    assert house.run() == [("open", opening), follows]
    assert house.fal.did == []


@pytest.mark.parametrize("opening", [Opening.LEASE, Opening.UNREPLICATED])
def test_an_intent_that_may_be_written_is_taken_back(house: House, opening: Opening) -> None:
    house.records.opening = Answers(opening)
    assert house.run()[:2] == [("open", opening), ("reject", "not_sent")]
    assert house.fal.did == []


def test_a_cancelled_job_submits_nothing(house: House) -> None:
    assert house.run(hold=Hold(cancelling=True)) == [("finish", JobEvent.CANCELLED, None)]
    assert house.fal.did == []


def test_an_acceptance_is_written_until_the_store_has_it(house: House) -> None:
    away = UnavailableError("away")
    house.records.acceptance = Answers(away, away, away, Acceptance.ACCEPTED)
    assert house.run()[-1] == ("finish", JobEvent.COMPLETED, None)
    assert house.fal.did.count("submit") == 1


def test_a_request_that_another_submission_owns_is_reconciled(house: House) -> None:
    house.records.acceptance = Answers(Acceptance.OWNED)
    assert house.run()[-1] == ("doubt", "outcome_unknown")


@pytest.mark.parametrize("found", [Acceptance.DOUBLE, Acceptance.LATE, Acceptance.UNKNOWN])
def test_a_charge_on_record_ends_the_hold_without_another_word(house: House, found: Acceptance) -> None:
    house.records.acceptance = Answers(found)
    assert house.run() == [("open", Opening.OPENED), ("accept", "req-1", Source.REPLY)]


@pytest.mark.parametrize("cancellations", [1, 3])
def test_a_reply_is_saved_however_often_the_hold_is_cancelled(house: House, cancellations: int) -> None:
    """Every heartbeat of a lost lease cancels anew, and so does a shutdown on top of it."""

    async def story() -> None:
        reply = asyncio.Event()

        async def answered_late() -> object:
            await reply.wait()
            return REF

        house.fal.submits = Answers(answered_late)
        running = asyncio.create_task(house.runner.run(a_job(), Hold()))
        await settle_down()
        for _ in range(cancellations):
            running.cancel()
            await settle_down()
        assert not running.done()
        reply.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert house.records.did == [("open", Opening.OPENED), ("accept", "req-1", Source.REPLY)]

    play(story())


def test_a_doubt_is_recorded_by_a_hold_that_is_cancelled_meanwhile(house: House) -> None:
    async def story() -> None:
        lost = asyncio.Event()

        async def reset() -> object:
            await lost.wait()
            return UncertainError("reset")

        house.fal.submits = Answers(reset)
        running = asyncio.create_task(house.runner.run(a_job(), Hold()))
        await settle_down()
        running.cancel()
        await settle_down()
        lost.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert house.records.did[-1] == ("doubt", "outcome_unknown")

    play(story())


# --- resume ----------------------------------------------------------------------------------------------------------


def resuming(**fields: Any) -> Job:  # noqa: ANN401 - Submission's own
    return a_job(submissions=(a_submission(**fields),))


def test_an_accepted_submission_is_watched_on(house: House) -> None:
    house.run(resuming())
    assert house.fal.did == ["status", "result"]
    assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)


def test_a_known_result_is_only_copied(house: House) -> None:
    house.run(resuming(status=SubmissionStatus.DONE, outcome="ok", result=pictures()))
    assert house.fal.did == []
    assert house.records.names() == ["keep", "finish"]


@pytest.mark.parametrize("status", [SubmissionStatus.REJECTED, SubmissionStatus.ABSENT, SubmissionStatus.ABANDONED])
def test_a_closed_submission_is_followed_by_a_new_one(house: House, status: SubmissionStatus) -> None:
    house.run(resuming(status=status))
    assert house.fal.did == ["submit", "status", "result"]


def test_a_failed_generation_is_followed_by_a_new_submission(house: House) -> None:
    house.run(resuming(status=SubmissionStatus.DONE, outcome="error"))
    assert house.fal.did[0] == "submit"


def test_a_result_that_was_found_lost_by_an_earlier_hold_ends_the_job(house: House) -> None:
    """That hold died between the verdict and the job's end. The store refuses a submission in the same life."""
    house.records.opening = Answers(Opening.OPEN)
    error = {"code": "result_lost", "message": "fal no longer has it"}
    house.run(resuming(status=SubmissionStatus.DONE, outcome="lost", error=error))
    assert house.records.did[-1] == ("finish", JobEvent.EXHAUSTED, "result_lost")


def test_a_replay_of_a_lost_result_may_submit_anew(house: House) -> None:
    """In another life the store lets it."""
    house.run(resuming(status=SubmissionStatus.DONE, outcome="lost"))
    assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)


# --- watch -----------------------------------------------------------------------------------------------------------


def test_readings_that_fail_never_end_a_job(house: House) -> None:
    troubles = [TransientError("502"), BlockedError("403"), RateLimitedError("429"), TransientError("reset")]
    house.fal.statuses = Answers(InQueue(3), *troubles, InProgress(), Completed())
    house.fal.results = Answers(ResultPendingError("400"), TransientError("502"), pictures())
    house.run(resuming())
    assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)
    assert "submit" not in house.fal.did


@pytest.mark.parametrize(
    ("error", "follows", "stops"),
    [
        (PermanentError("nsfw", code="content_policy_violation"), ("finish", JobEvent.REJECTED), []),
        (TransientError("503", code="runner_disconnected"), ("retry", "runner_disconnected", True), [Trouble.RUN]),
    ],
)
def test_what_follows_from_fals_verdict(
    house: House, error: DarkroomError, follows: tuple[Any, ...], stops: list[Trouble]
) -> None:
    house.fal.results = Answers(GenerationFailed(error, None))
    recorded = house.run(resuming())
    assert recorded[0] == ("verdict", "GenerationFailed", None)
    assert recorded[1][: len(follows)] == follows
    assert [stop[2] for stop in house.schedule.did] == stops


def test_a_failed_generation_that_was_billed_says_so(house: House) -> None:
    house.fal.results = Answers(GenerationFailed(PermanentError("nsfw"), Decimal(2)))
    assert house.run(resuming())[0] == ("verdict", "GenerationFailed", Decimal("0.016"))


def test_a_request_that_fal_forgot_is_looked_for_in_the_listing(house: House) -> None:
    house.fal.statuses = Answers(ResultGoneError("404"))
    house.fal.listings = Answers([ListedRequest("req-1", None, None, 200, None, {"images": []})])
    house.run(resuming())
    assert house.fal.did.count("status") == 4
    assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)


@pytest.mark.parametrize("listing", [[], BlockedError("not an admin key")])
def test_a_request_that_is_nowhere_is_lost_and_charged_and_not_sent_again(house: House, listing: object) -> None:
    house.fal.statuses = Answers(ResultGoneError("404"))
    house.fal.listings = Answers(listing)
    assert house.run(resuming()) == [
        ("verdict", "ResultGoneError", None),
        ("finish", JobEvent.EXHAUSTED, "result_lost"),
    ]
    assert "submit" not in house.fal.did


def test_a_404_now_and_then_forgets_nothing(house: House) -> None:
    gone = ResultGoneError("404")
    house.fal.statuses = Answers(gone, gone, gone, InProgress(), gone, gone, gone, Completed())
    house.run(resuming())
    assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)


# --- cancel ----------------------------------------------------------------------------------------------------------


def cancelled_while_watching(house: House) -> list[tuple[Any, ...]]:
    return house.run(resuming(), Hold(cancelling=True))


def test_fal_is_told_once_of_a_cancellation(house: House) -> None:
    house.fal.statuses = Answers(InProgress(), InProgress(), Completed("Request was cancelled", "client_cancelled"))
    house.fal.results = Answers(GenerationFailed(TransientError("cancelled"), None))
    assert cancelled_while_watching(house)[-1] == ("finish", JobEvent.CANCELLED, None)
    assert house.fal.did.count("cancel") == 1


def test_fal_is_told_again_when_it_could_not_be_told(house: House) -> None:
    house.fal.cancels = Answers(TransientError("502"), True)  # noqa: FBT003 - the answer itself
    house.fal.statuses = Answers(InProgress(), InProgress(), Completed())
    cancelled_while_watching(house)
    assert house.fal.did.count("cancel") == 2


def test_a_picture_that_fal_finished_anyway_is_kept(house: House) -> None:
    assert cancelled_while_watching(house)[-1] == ("finish", JobEvent.CANCELLED, None)
    assert "renders/acct_1/2023/11/14/job_1/0.png" in house.bucket.objects


def test_a_request_that_is_gone_after_its_cancellation_is_not_looked_for_long(house: House) -> None:
    house.fal.statuses = Answers(ResultGoneError("404"))
    assert cancelled_while_watching(house)[-1] == ("finish", JobEvent.CANCELLED, None)
    assert house.fal.did.count("status") == 1


def test_a_cancellation_makes_the_next_look_come_now(house: House) -> None:
    async def story() -> None:
        hold = Hold()
        house.fal.statuses = Answers(*[InProgress()] * 40, Completed())
        running = asyncio.create_task(house.runner.run(resuming(), hold))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(30)
        looks = len(house.fal.did)
        hold.cancelling = True
        hold.wake.set()
        asked_at = loop.time()
        await settle_down()
        assert house.fal.did[looks : looks + 2] == ["cancel", "status"]
        assert loop.time() == asked_at
        await running

    play(story())


# --- the store is away -----------------------------------------------------------------------------------------------


def test_every_outcome_is_recorded_as_soon_as_the_store_is_back(house: House) -> None:
    async def story() -> None:
        back = asyncio.Event()
        finish = house.records.finish

        async def away(job_id: str, lease: str, event: JobEvent, error: DarkroomError | None = None) -> bool:
            if not back.is_set():
                raise UnavailableError("away")
            return await finish(job_id, lease, event, error)

        house.records.finish = away  # type: ignore[method-assign]
        running = asyncio.create_task(house.runner.run(a_job(), Hold()))
        await asyncio.sleep(300)
        assert not running.done()
        back.set()
        await running
        assert house.records.did[-1] == ("finish", JobEvent.COMPLETED, None)

    play(story())


def test_a_lease_that_is_lost_while_pictures_are_kept_writes_no_more(house: House) -> None:
    house.records.keeps = Answers(False)  # noqa: FBT003 - the answer itself
    assert house.run(resuming())[-1][0] == "keep"


def test_submissions_on_their_way_are_waited_for(house: House) -> None:
    async def story() -> None:
        reply = asyncio.Event()

        async def answered_late() -> object:
            await reply.wait()
            return replace(REF, request_id="req-2")

        house.fal.submits = Answers(answered_late)
        running = asyncio.create_task(house.runner.run(a_job(), Hold()))
        await settle_down()
        saved = asyncio.create_task(house.runner.saved())
        await settle_down()
        assert not saved.done()
        reply.set()
        await saved
        assert ("accept", "req-2", Source.REPLY) in house.records.did
        await running

    play(story())
