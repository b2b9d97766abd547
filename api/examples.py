"""Examples for the OpenAPI document, made by the same code as the answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from darkroom.domain.batch import Batch, Cause, Counts, OnInvalid, Pace, batch_key, files_of
from darkroom.domain.batch_view import represent_batch
from darkroom.domain.generation import RequestRef
from darkroom.domain.job import Artifact, Delivery, DeliveryAttempt, Event, Job, Submission
from darkroom.domain.krea import MODEL
from darkroom.domain.lifecycle import BatchStatus, DeliveryStatus, JobStatus, Lane, Place, SubmissionStatus
from darkroom.domain.representation import represent_delivery, represent_event, represent_job

_AT: Final = 1_770_000_000_000
_NAME: Final = "01kgdsd9g0v4hznbx7c1q2w3e4"
_FOLDER: Final = f"renders/acct_{'0' * 26}/2026/02/02/job_{_NAME}"

_JOB: Final = Job(
    id=f"job_{_NAME}",
    account_id="acct_" + "0" * 26,
    status=JobStatus.SUCCEEDED,
    stage=None,
    place=Place.NONE,
    model=MODEL,
    arguments={"prompt": "a vintage travel poster for Mars", "seed": 12345},
    lane=Lane.INTERACTIVE,
    metadata={"order": "4711"},
    webhook_url="https://shop.example/hooks/darkroom",
    estimate_usd=Decimal("0.008388608"),
    attempts=1,
    errored=0,
    created_at=_AT,
    started_at=_AT + 40,
    finished_at=_AT + 3210,
    deadline_at=None,
    next_attempt_at=None,
    cancel_requested=False,
    lease=None,
    version=7,
    artifacts=(
        Artifact(
            index=0,
            key=f"{_FOLDER}/0.png",
            content_type="image/png",
            width=1024,
            height=1024,
            bytes=1_404_019,
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            seed=12345,
            has_nsfw_concepts=False,
            blank=False,
        ),
    ),
    submissions=(
        Submission(
            id="sub_01kgdsda0mh3t9xk2c8w5r7y6z",
            job_id=f"job_{_NAME}",
            status=SubmissionStatus.DONE,
            opened_at=_AT + 55,
            ref=RequestRef("019c2a4e-6f0c-7c1e-8a55-0d9b2a4c7e31", "", "", ""),
            billable_units=Decimal("1.048576"),
            cost_usd=Decimal("0.008388608"),
        ),
    ),
)


_BATCH: Final = Batch(
    id=f"batch_{_NAME}",
    account_id="acct_" + "0" * 26,
    name="posters",
    status=BatchStatus.RUNNING,
    status_reason=None,
    on_invalid=OnInvalid.SKIP,
    created_at=_AT,
    started_at=_AT + 9_000,
    finished_at=None,
    not_before=None,
    finish_by=_AT + 8 * 3_600_000,
    webhook_url="https://shop.example/hooks/darkroom",
    canary=None,
    canary_max_failures=None,
    budget_usd=Decimal(900),
    spent_usd=Decimal("65.16"),
    reserved_usd=Decimal("0.335"),
    estimate_usd=Decimal("838.852"),
    pictures=99_999,
    lines=100_000,
    bytes=21_300_000,
    judged=True,
    valid=99_999,
    invalid=1,
    last_line=100_000,
    added=100_000,
    cursor=0,
    counts=Counts(99_999, 92_188, 40, 1, 0, 7768, 2, 0),
    rate=13.2,
    rate_at=_AT + 600_000,
    version=3,
    causes=(Cause("rejected_by_fal", 2, f"job_{_NAME}"),),
)


def _presign(key: str) -> tuple[str, datetime]:
    return f"https://s3.example/darkroom/{key}?X-Amz-Signature=…", datetime(2026, 2, 3, 2, 40, tzinfo=UTC)


def job() -> dict[str, Any]:
    """A job that succeeded."""
    return represent_job(_JOB, bucket="darkroom", presign=_presign).model_dump(mode="json")


def event() -> dict[str, Any]:
    """Its event."""
    fact = Event(f"evt_{_NAME}_0", 1, "job.succeeded", _AT + 3210, _JOB, _JOB.id)
    return represent_event(fact, bucket="darkroom", presign=_presign).model_dump(mode="json")


def delivery() -> dict[str, Any]:
    """What was owed for the event."""
    owed = Delivery(
        id=f"dlv_{_NAME}_0",
        account_id=_JOB.account_id,
        event_id=f"evt_{_NAME}_0",
        event_type="job.succeeded",
        event_seq=1,
        job_id=_JOB.id,
        url="https://shop.example/hooks/darkroom",
        status=DeliveryStatus.DELIVERED,
        created_at=_AT + 3210,
        next_attempt_at=None,
        attempts=(DeliveryAttempt(1, _AT + 3260, 204, None, 87, ""),),
    )
    return represent_delivery(owed).model_dump(mode="json")


def batch() -> dict[str, Any]:
    """A batch that runs."""
    return represent_batch(_BATCH, now_ms=_AT + 600_000, pace=Pace(40, 3.0, 61_200)).model_dump(mode="json")


def dry_run() -> dict[str, Any]:
    """What an upload would come to."""
    return {
        "valid": 99_999,
        "invalid": 1,
        "errors": [{"line": 17, "pointer": "/input/num_images", "detail": "Input should be less than or equal to 4"}],
        "counts": {"lines": 100_000, "jobs": 99_999, "pictures": 99_999, "duplicate_inputs": 0},
        "cost": {"min_usd": 0.0, "expected_usd": 838.852, "max_usd": 838.852},
        "forecast": {"finish_at": "2026-02-02T04:45:00Z", "meets_finish_by": True},
    }


def files() -> dict[str, Any]:
    """A batch's files."""
    found = []
    for name in files_of(replace(_BATCH, status=BatchStatus.COMPLETED)):
        key = batch_key("renders/", _BATCH.account_id, _BATCH.id, name)
        url, expires = _presign(key)
        found.append({"name": name, "bucket": "darkroom", "key": key, "url": url, "url_expires_at": expires})
    return {"data": found}


def usage() -> dict[str, Any]:
    """One day."""
    counts = {"jobs": 3, "succeeded": 2, "failed": 0, "cancelled": 1, "pictures": 2, "spend_usd": 0.016777216}
    return {"object": "usage", "data": [{**counts, "date": "2026-02-02"}], "totals": counts}
