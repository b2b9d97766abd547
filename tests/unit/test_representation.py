"""How records look from outside."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from darkroom.domain.batch_view import moment
from darkroom.domain.job import Artifact, Event
from darkroom.domain.lifecycle import JobStatus, Stage, SubmissionStatus
from darkroom.domain.representation import JobView, cost_of, represent_event, represent_job, warnings_of
from tests.unit.stand_ins import CREATED_MS, REF, FakeBucket, a_job, a_submission

CREATED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def artifact(index: int = 0, *, unsafe: bool = False, blank: bool = False) -> Artifact:
    return Artifact(index, f"k/{index}.png", "image/png", 64, 64, 3, "ab", 7, has_nsfw_concepts=unsafe, blank=blank)


def shown(**fields: object) -> JobView:
    return represent_job(a_job(**fields), bucket="bucket", presign=FakeBucket().presign)


def test_a_running_job() -> None:
    view = shown(submissions=(a_submission(),), stage=Stage.GENERATING)
    assert (view.object, view.status, view.stage, view.created_at) == ("job", "running", "generating", CREATED)
    assert view.fal_request_id == view.submissions[0].fal_request_id == REF.request_id
    assert view.cost.model_dump() == {"estimated_usd": 0.008388608, "actual_usd": None, "billable_units": None}
    assert (view.images, view.error, view.finished_at) == ([], None, None)


def test_an_ended_job_is_in_no_stage() -> None:
    assert shown(status=JobStatus.SUCCEEDED, stage=Stage.COPYING).stage is None


def test_pictures_have_urls_signed_now() -> None:
    (image,) = shown(artifacts=(artifact(),)).images
    assert (image.url, image.bucket, image.key) == ("https://s3/k/0.png", "bucket", "k/0.png")
    assert image.url_expires_at == CREATED


def test_an_error_is_readable_and_says_what_fal_said() -> None:
    error = {"code": "rejected_by_fal", "message": "no", "upstream": {"status": 422}}
    view = shown(status=JobStatus.FAILED, error=error)
    assert view.error is not None
    assert view.error.model_dump() == error


def test_a_second_charge_is_not_hidden() -> None:
    billed = a_submission(SubmissionStatus.DONE, billable_units=Decimal("0.3"), cost_usd=Decimal("0.0024"))
    job = a_job(submissions=(billed, a_submission(SubmissionStatus.REJECTED), billed))
    cost = cost_of(job)
    assert (cost.actual_usd, cost.billable_units) == (0.0048, 0.6)


def test_a_bill_of_nothing_is_not_an_unknown_bill() -> None:
    free = a_submission(SubmissionStatus.DONE, billable_units=Decimal(0), cost_usd=Decimal(0))
    assert cost_of(a_job(submissions=(free,))).actual_usd == 0
    assert cost_of(a_job(submissions=(a_submission(),))).actual_usd is None


def test_what_a_person_should_look_at_is_named_once() -> None:
    assert warnings_of(()) == warnings_of((artifact(),)) == []
    assert warnings_of((artifact(unsafe=True, blank=True), artifact(1, unsafe=True))) == ["unsafe", "blank"]


def test_an_event_outlives_its_job() -> None:
    event = Event("evt_1", 3, "job.failed", CREATED_MS, None, "job_1")
    view = represent_event(event, bucket="b", presign=FakeBucket().presign)
    assert (view.seq, view.type, view.timestamp, view.data) == (3, "job.failed", CREATED, None)


def test_moments_are_utc() -> None:
    assert moment(None) is None
    assert moment(CREATED_MS) == CREATED
