"""Copying: each picture once, the sidecar last; what can pass is waited for, what cannot is bounded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    ResultGoneError,
    TransientError,
    UnavailableError,
    UnreadableMediaError,
)
from darkroom.domain.generation import Generated
from darkroom.domain.job import Artifact, Job
from darkroom.domain.lifecycle import JobEvent, SubmissionStatus
from darkroom.domain.outcome import Failed, Outcome, RetryAt, Succeeded, Superseded
from darkroom.domain.policy import COPY_TRIES_MAX
from darkroom.service.copy_artifacts import ArtifactCopier
from tests.unit.stand_ins import (
    Answers,
    FakeBucket,
    FakeMedia,
    FakeSchedule,
    FakeThumbnails,
    FakeTransitions,
    a_job,
    a_picture,
    a_submission,
    pictures,
    play,
)

FOLDER = "renders/acct_1/2023/11/14/job_1/"


class Room:
    def __init__(self) -> None:
        self.records, self.schedule = FakeTransitions(), FakeSchedule()
        self.media, self.bucket = FakeMedia(), FakeBucket()
        self.thumbnails = FakeThumbnails()
        self.copier = ArtifactCopier(
            transitions=self.records,
            schedule=self.schedule,
            media=self.media,
            thumbnails=self.thumbnails,
            store=self.bucket,
            prefix="renders/",
            price_per_megapixel=Decimal("0.008"),
        )

    def copy(self, result: Generated, job: Job | None = None) -> Outcome:
        submission = a_submission(SubmissionStatus.DONE, outcome="ok", result=result)
        return play(self.copier.copy(job or a_job(), submission, result))


@pytest.fixture
def room() -> Room:
    return Room()


def stored(index: int) -> Artifact:
    return Artifact(
        index,
        f"{FOLDER}{index}.png",
        "image/png",
        64,
        64,
        3,
        "ab" * 32,
        7 + index,
        has_nsfw_concepts=False,
        blank=False,
    )


def test_every_picture_and_then_the_sidecar(room: Room) -> None:
    assert room.copy(pictures(2, has_nsfw_concepts=(False, True))) == Succeeded()
    assert list(room.bucket.objects) == [FOLDER + "0.png", FOLDER + "1.png", FOLDER + "job.json"]
    assert room.records.did == [("keep", 0, FOLDER + "0.png"), ("keep", 1, FOLDER + "1.png")]
    document = room.bucket.objects[FOLDER + "job.json"]
    assert document["cost_usd"] == 0.008388608
    assert [(image["seed"], image["has_nsfw_concepts"]) for image in document["images"]] == [(7, False), (8, True)]
    assert room.bucket.objects[FOLDER + "1.png"] == {
        "job-id": "job_1",
        "submission-id": "sub_1",
        "fal-request-id": "req-1",
        "seed": "8",
    }


def test_copying_resumes_at_the_first_picture_that_is_missing(room: Room) -> None:
    assert room.copy(pictures(3), a_job(artifacts=(stored(0), stored(2)))) == Succeeded()
    assert room.media.fetched == ["https://m/1.png"]
    assert [image["index"] for image in room.bucket.objects[FOLDER + "job.json"]["images"]] == [0, 1, 2]


def test_a_lost_lease_ends_it_before_the_sidecar(room: Room) -> None:
    room.records.keeps = Answers(False)  # noqa: FBT003 - the answer itself
    assert room.copy(pictures(2)) == Superseded()
    assert list(room.bucket.objects) == [FOLDER + "0.png"]


@pytest.mark.parametrize("error", [UnreadableMediaError("cut off"), ResultGoneError("404")])
def test_media_that_stay_unreadable_end_the_job(room: Room, error: DarkroomError) -> None:
    room.media.answers = Answers(error)
    assert room.copy(pictures()) == Failed(JobEvent.EXHAUSTED, error)
    assert len(room.media.fetched) == COPY_TRIES_MAX


def test_media_that_mend_are_copied(room: Room) -> None:
    room.media.answers = Answers(*[UnreadableMediaError("cut off")] * (COPY_TRIES_MAX - 1), a_picture)
    assert room.copy(pictures()) == Succeeded()


def test_a_picture_of_another_size_than_fal_said_is_unreadable(room: Room) -> None:
    room.media.answers = Answers(lambda: a_picture(64, 32), a_picture)
    assert room.copy(pictures()) == Succeeded()
    assert len(room.media.fetched) == 2
    assert room.records.names() == ["keep"]


PASSING = [TransientError("reset"), PermanentError("host", code="media_host_refused"), BlockedError("bucket")]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_can_pass_never_ends_a_paid_job(room: Room, error: DarkroomError) -> None:
    """The job comes back for another try after a while; no attempt is used."""
    room.media.answers = Answers(error)
    outcome = room.copy(pictures())
    assert outcome == RetryAt(30.0, error, counts=False)


def test_faults_that_pass_do_not_use_up_the_tries_of_unreadable_media(room: Room) -> None:
    away: list[Any] = [TransientError("reset"), TransientError("reset")]
    room.media.answers = Answers(*away, *[UnreadableMediaError("cut off")] * (COPY_TRIES_MAX - 1), a_picture)
    assert room.copy(pictures()) == Succeeded()


@pytest.mark.parametrize("error", [TransientError("s3", code="s3_unavailable"), BlockedError("s3", code="s3_away")])
def test_while_the_bucket_is_away_no_picture_is_paid_for(room: Room, error: DarkroomError) -> None:
    room.bucket.puts = Answers(error)
    assert room.copy(pictures()) == RetryAt(30.0, error, counts=False)
    assert set(room.schedule.did) == {("set_storage", error.code)}


def test_the_store_of_records_may_be_away_at_the_same_time(room: Room) -> None:
    error = TransientError("s3", code="s3_unavailable")
    room.bucket.puts = Answers(error)
    room.schedule.storage = Answers(UnavailableError("away"))
    assert room.copy(pictures()) == RetryAt(30.0, error, counts=False)


def test_pictures_without_a_seed_of_fals_have_the_jobs(room: Room) -> None:
    assert room.copy(pictures(2, seed=None)) == Succeeded()
    assert [image["seed"] for image in room.bucket.objects[FOLDER + "job.json"]["images"]] == [7, 8]


SMALL = "renders/acct_1/batches/batch_1/thumbs/a%2Fb-{}.jpg"


def test_a_batchs_pictures_leave_thumbnails_before_they_are_on_record(room: Room) -> None:
    assert room.copy(pictures(2), a_job(batch_id="batch_1", custom_id="a/b", line=7)) == Succeeded()
    assert list(room.bucket.objects) == [
        SMALL.format(0),
        FOLDER + "0.png",
        SMALL.format(1),
        FOLDER + "1.png",
        FOLDER + "job.json",
    ]
    assert room.bucket.objects[SMALL.format(1)] == b"small"
    assert [artifact.thumbnail for artifact in room.records.kept] == [True, True]
    assert "thumbnail" not in room.bucket.objects[FOLDER + "job.json"]["images"][0]


def test_a_picture_that_has_no_thumbnail_is_kept_all_the_same(room: Room) -> None:
    room.thumbnails.answers = Answers(None)
    assert room.copy(pictures(), a_job(batch_id="batch_1", line=7)) == Succeeded()
    assert list(room.bucket.objects) == [FOLDER + "0.png", FOLDER + "job.json"]
    assert [artifact.thumbnail for artifact in room.records.kept] == [False]


def test_without_a_bill_the_sidecar_names_no_cost(room: Room) -> None:
    room.copy(pictures(billable_units=None))
    document = room.bucket.objects[FOLDER + "job.json"]
    assert (document["billable_units"], document["cost_usd"]) == (None, None)
