"""How a record looks from outside: the JSON of the API, of webhooks and of the sidecar in the bucket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darkroom.domain.batch_view import BatchView, moment, represent_batch
from darkroom.domain.job import Artifact, Delivery, Event, Job
from darkroom.domain.lifecycle import TERMINAL, DeliveryStatus, JobStatus, Lane, Stage, SubmissionStatus

Presign = Callable[[str], tuple[str, datetime]]
"""Signs the URL of a key: the URL and when it expires."""


class ErrorView(BaseModel):
    """Why a job failed, or what its last attempt met."""

    code: str
    message: str
    upstream: dict[str, Any] | None = None


class ImageView(BaseModel):
    """One stored picture. `url` is signed when this is read and expires."""

    index: int
    url: str
    url_expires_at: datetime
    bucket: str
    key: str
    content_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int
    has_nsfw_concepts: bool


class SubmissionView(BaseModel):
    """One paid POST of ours to fal."""

    id: str
    status: SubmissionStatus
    fal_request_id: str | None
    opened_at: datetime
    billable_units: float | None


class CostView(BaseModel):
    """What the job is expected to cost, and what fal billed (unknown until fal has said so)."""

    estimated_usd: float
    actual_usd: float | None
    billable_units: float | None


class JobView(BaseModel):
    """A job."""

    model_config = ConfigDict(title="Job")

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    stage: Stage | None
    model: str
    input: dict[str, Any] = Field(description="What was asked for, with the seed always filled in.")
    lane: Lane
    batch_id: str | None
    custom_id: str | None
    metadata: dict[str, str]
    webhook_url: str | None
    attempts: int
    cancel_requested: bool
    submissions: list[SubmissionView]
    deadline_at: datetime | None
    next_attempt_at: datetime | None
    images: list[ImageView]
    warnings: list[str]
    cost: CostView
    error: ErrorView | None
    fal_request_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class EventView(BaseModel):
    """A fact of the account's log."""

    model_config = ConfigDict(title="Event")

    id: str
    seq: int
    type: str
    timestamp: datetime
    data: Annotated[JobView | BatchView, Field(discriminator="object")] | None


class DeliveryAttemptView(BaseModel):
    """One POST to a receiver. `error` where no HTTP answer came."""

    number: int
    at: datetime
    status_code: int | None
    error: str | None
    latency_ms: int
    response_excerpt: str


class DeliveryView(BaseModel):
    """One event owed to one receiver."""

    model_config = ConfigDict(title="Delivery")

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    event_type: str
    job_id: str | None
    batch_id: str | None
    url: str
    status: DeliveryStatus
    attempts: list[DeliveryAttemptView]
    next_attempt_at: datetime | None


def warnings_of(artifacts: tuple[Artifact, ...]) -> list[str]:
    """What a person should look at.

    `unsafe` (fal's safety checker blackened a picture), `blank` (it has one colour).
    """
    found = []
    if any(artifact.has_nsfw_concepts for artifact in artifacts):
        found.append("unsafe")
    if any(artifact.blank for artifact in artifacts):
        found.append("blank")
    return found


def cost_of(job: Job) -> CostView:
    """All submissions that fal billed, together: a second charge is not hidden."""
    billed = [submission for submission in job.submissions if submission.cost_usd is not None]
    units = [submission.billable_units for submission in billed if submission.billable_units is not None]
    return CostView(
        estimated_usd=float(job.estimate_usd),
        actual_usd=float(sum((s.cost_usd for s in billed if s.cost_usd is not None), Decimal())) if billed else None,
        billable_units=float(sum(units, Decimal())) if units else None,
    )


def represent_job(job: Job, *, bucket: str, presign: Presign) -> JobView:
    """A job as the outside sees it."""
    latest = job.submission
    return JobView(
        id=job.id,
        status=job.status,
        stage=None if job.status in TERMINAL else job.stage,
        model=job.model,
        input=job.arguments,
        lane=job.lane,
        batch_id=job.batch_id,
        custom_id=job.custom_id,
        metadata=job.metadata,
        webhook_url=job.webhook_url,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        submissions=[
            SubmissionView(
                id=submission.id,
                status=submission.status,
                fal_request_id=submission.ref.request_id if submission.ref else None,
                opened_at=datetime.fromtimestamp(submission.opened_at / 1000, tz=UTC),
                billable_units=None if submission.billable_units is None else float(submission.billable_units),
            )
            for submission in job.submissions
        ],
        deadline_at=moment(job.deadline_at),
        next_attempt_at=moment(job.next_attempt_at),
        images=[_image(artifact, bucket, presign) for artifact in job.artifacts],
        warnings=warnings_of(job.artifacts),
        cost=cost_of(job),
        error=ErrorView(**job.error) if job.error else None,
        fal_request_id=latest.ref.request_id if latest and latest.ref else None,
        created_at=datetime.fromtimestamp(job.created_at / 1000, tz=UTC),
        started_at=moment(job.started_at),
        finished_at=moment(job.finished_at),
    )


def _image(artifact: Artifact, bucket: str, presign: Presign) -> ImageView:
    url, expires = presign(artifact.key)
    return ImageView(
        index=artifact.index,
        url=url,
        url_expires_at=expires,
        bucket=bucket,
        key=artifact.key,
        content_type=artifact.content_type,
        width=artifact.width,
        height=artifact.height,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        seed=artifact.seed,
        has_nsfw_concepts=artifact.has_nsfw_concepts,
    )


def represent_event(event: Event, *, bucket: str, presign: Presign) -> EventView:
    """An event with its job as it was then; URLs are signed now."""
    return EventView(
        id=event.id,
        seq=event.seq,
        type=event.type,
        timestamp=datetime.fromtimestamp(event.timestamp / 1000, tz=UTC),
        data=_data(event, bucket, presign),
    )


def _data(event: Event, bucket: str, presign: Presign) -> JobView | BatchView | None:
    if event.batch is not None:
        return represent_batch(event.batch, now_ms=event.timestamp)
    return represent_job(event.job, bucket=bucket, presign=presign) if event.job else None


def represent_delivery(delivery: Delivery) -> DeliveryView:
    """A delivery with all its attempts."""
    return DeliveryView(
        id=delivery.id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        job_id=delivery.job_id,
        batch_id=delivery.batch_id,
        url=delivery.url,
        status=delivery.status,
        attempts=[
            DeliveryAttemptView(
                number=attempt.number,
                at=datetime.fromtimestamp(attempt.at / 1000, tz=UTC),
                status_code=attempt.status_code,
                error=attempt.error,
                latency_ms=attempt.latency_ms,
                response_excerpt=attempt.response_excerpt,
            )
            for attempt in delivery.attempts
        ],
        next_attempt_at=moment(delivery.next_attempt_at),
    )
