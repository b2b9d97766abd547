"""The records as values: what the store hands out. Times are Unix milliseconds by the store's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from darkroom.domain.batch import Batch
from darkroom.domain.generation import Generated, RequestRef
from darkroom.domain.lifecycle import DeliveryStatus, JobStatus, Lane, Place, Stage, SubmissionStatus


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is asked for. `arguments` is fal's input with the seed filled in; `estimate_usd` is exact.

    `idempotency` is the hash of the caller's key, None where none was sent; `fingerprint` is the hash of the request.
    """

    id: str
    account_id: str
    model: str
    arguments: dict[str, Any]
    lane: Lane
    estimate_usd: Decimal
    metadata: dict[str, str]
    webhook_url: str | None = None
    deadline_seconds: int | None = None
    idempotency: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """One POST of ours to fal. `outcome` is `ok` or `error` once done; `cost_usd` is known only from fal's bill."""

    id: str
    job_id: str
    status: SubmissionStatus
    opened_at: int
    ref: RequestRef | None = None
    accepted_at: int | None = None
    done_at: int | None = None
    outcome: str | None = None
    billable_units: Decimal | None = None
    cost_usd: Decimal | None = None
    error: dict[str, Any] | None = None
    result: Generated | None = None
    late_request_id: str | None = None
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Artifact:
    """Our stored copy of one image. `thumbnail`: whether its batch's folder has a small copy of it."""

    index: int
    key: str
    content_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int
    has_nsfw_concepts: bool
    blank: bool
    thumbnail: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """The durable record of one requested generation. `submissions` are in the order they were opened."""

    id: str
    account_id: str
    status: JobStatus
    stage: Stage | None
    place: Place
    model: str
    arguments: dict[str, Any]
    lane: Lane
    metadata: dict[str, str]
    webhook_url: str | None
    estimate_usd: Decimal
    attempts: int
    errored: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    deadline_at: int | None
    next_attempt_at: int | None
    cancel_requested: bool
    lease: str | None
    version: int
    batch_id: str | None = None
    custom_id: str | None = None
    error: dict[str, Any] | None = None
    artifacts: tuple[Artifact, ...] = ()
    submissions: tuple[Submission, ...] = ()
    line: int | None = None
    canary: bool = False
    life: int = 0

    @property
    def submission(self) -> Submission | None:
        """The latest submission: the only one that may be open."""
        return self.submissions[-1] if self.submissions else None


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of an account's log, about a job or a batch as it was then. `seq` counts from 1 without gaps."""

    id: str
    seq: int
    type: str
    timestamp: int
    job: Job | None
    job_id: str | None
    batch: Batch | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One POST to a receiver."""

    number: int
    at: int
    status_code: int | None
    error: str | None
    latency_ms: int
    response_excerpt: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event owed to one receiver. `schedule_from` is how many attempts a redelivery no longer counts."""

    id: str
    account_id: str
    event_id: str
    event_type: str
    event_seq: int
    job_id: str | None
    url: str
    status: DeliveryStatus
    created_at: int
    next_attempt_at: int | None
    batch_id: str | None = None
    schedule_from: int = 0
    attempts: tuple[DeliveryAttempt, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Account:
    """Owns keys, jobs and a webhook secret. Another account's things do not exist for it."""

    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account, without its secret: only the hash is stored; `hint` is its first characters."""

    id: str
    account_id: str
    hint: str
    created_at: int
    revoked_at: int | None
