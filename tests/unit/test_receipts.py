from __future__ import annotations

from decimal import Decimal

from darkroom.domain.generation import RequestRef
from darkroom.domain.job import Job, Submission
from darkroom.domain.lifecycle import JobStatus, SubmissionStatus
from darkroom.service.receipts import Oddity, Totals, receipts_of
from tests.unit.stand_ins import a_job


def submission(name: str, status: SubmissionStatus, **facts: object) -> Submission:
    ref = RequestRef(f"req-{name}", "s", "r", "c") if status is SubmissionStatus.DONE else None
    return Submission(name, "job_1", status, 1_700_000_000_000, ref=ref, **facts)  # type: ignore[arg-type]


def job(status: JobStatus, *submissions: Submission) -> Job:
    return a_job(status=status, submissions=submissions)


def billed(name: str, outcome: str = "ok") -> Submission:
    return submission(
        name,
        SubmissionStatus.DONE,
        outcome=outcome,
        billable_units=Decimal("1.048576"),
        cost_usd=Decimal("0.008388608"),
    )


def test_a_receipt_names_the_price_that_was_paid() -> None:
    (receipt,) = receipts_of(job(JobStatus.SUCCEEDED, billed("sub_1")))

    assert (receipt.outcome, receipt.fal_request_id, receipt.seed) == ("ok", "req-sub_1", 7)
    assert receipt.unit_price_usd == Decimal("0.008")
    assert receipt.oddities == ()


def test_two_charged_submissions_of_one_job_are_both_exceptions() -> None:
    found = receipts_of(job(JobStatus.SUCCEEDED, billed("sub_1"), billed("sub_2")))

    assert [receipt.oddities for receipt in found] == [(Oddity.CHARGED_TWICE,), (Oddity.CHARGED_TWICE,)]


def test_an_unbilled_error_before_a_good_one_is_no_exception() -> None:
    failed = submission("sub_1", SubmissionStatus.DONE, outcome="error")

    assert all(not receipt.oddities for receipt in receipts_of(job(JobStatus.SUCCEEDED, failed, billed("sub_2"))))


def test_a_charged_job_that_failed_is_an_exception() -> None:
    (receipt,) = receipts_of(job(JobStatus.FAILED, billed("sub_1", "error")))

    assert receipt.oddities == (Oddity.CHARGED_BUT_FAILED,)


def test_what_is_unknown_and_what_came_late_are_exceptions() -> None:
    uncertain = submission("sub_1", SubmissionStatus.UNCERTAIN)
    late = submission("sub_2", SubmissionStatus.ABSENT, late_request_id="req-9")

    assert [receipt.oddities for receipt in receipts_of(job(JobStatus.QUEUED, uncertain, late))] == [
        (Oddity.UNKNOWN,),
        (Oddity.LATE,),
    ]


def test_totals_add_up_what_fal_billed() -> None:
    totals = Totals()
    for receipt in receipts_of(job(JobStatus.SUCCEEDED, billed("sub_1"), billed("sub_2"))):
        totals.add(receipt)

    assert (totals.submissions, totals.charged) == (2, 2)
    assert totals.cost_usd == Decimal("0.016777216")
    assert totals.oddities == {Oddity.CHARGED_TWICE: 2}
