"""What the API speaks of. Fields that this version does not know are kept and passed on, never refused."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")

JobStatus = Literal["queued", "running", "retrying", "succeeded", "failed", "cancelled"]
Lane = Literal["interactive", "bulk"]
DeliveryStatus = Literal["pending", "delivered", "failed", "dead"]
Stage = Literal[
    "waiting_for_slot",
    "submitting",
    "reconciling",
    "held",
    "generating",
    "copying",
    "scheduled",
    "paused",
    "blocked",
]

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})


class Model(BaseModel):
    """Immutable, and tolerant: a newer server may say more, in fields and in values."""

    model_config = ConfigDict(frozen=True, extra="allow")


class JobError(Model):
    """Why a job failed, or what its last attempt met."""

    code: str
    message: str
    upstream: dict[str, Any] | None = None


class Image(Model):
    """One stored picture. `url` is signed and expires at `url_expires_at`: get the job again for a fresh one."""

    index: int
    url: str
    url_expires_at: datetime | None = None
    bucket: str
    key: str
    content_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int
    has_nsfw_concepts: bool = False

    @property
    def extension(self) -> str:
        """The file's, without the dot: png or jpeg."""
        return PurePosixPath(self.key).suffix.removeprefix(".") or self.content_type.rpartition("/")[2]


class Submission(Model):
    """One paid request to fal."""

    id: str
    status: str
    fal_request_id: str | None = None
    opened_at: datetime
    billable_units: float | None = None


class Cost(Model):
    """In USD: what is expected, and what fal billed (None until it has said so)."""

    estimated_usd: float
    actual_usd: float | None = None
    billable_units: float | None = None


class Job(Model):
    """One requested generation."""

    id: str
    status: JobStatus | str
    stage: Stage | str | None = None
    model: str
    input: dict[str, Any]
    lane: Lane | str
    batch_id: str | None = None
    custom_id: str | None = None
    metadata: dict[str, str] = {}
    webhook_url: str | None = None
    attempts: int = 0
    cancel_requested: bool = False
    submissions: list[Submission] = []
    deadline_at: datetime | None = None
    next_attempt_at: datetime | None = None
    images: list[Image] = []
    warnings: list[str] = []
    cost: Cost
    error: JobError | None = None
    fal_request_id: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more, unless it is replayed."""
        return self.status in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether every picture is there."""
        return self.status == "succeeded"


class DeliveryAttempt(Model):
    """One POST to a receiver. `error` where no HTTP answer came."""

    number: int
    at: datetime
    status_code: int | None = None
    error: str | None = None
    latency_ms: int
    response_excerpt: str = ""


class Delivery(Model):
    """One event owed to one receiver."""

    id: str
    event_id: str
    event_type: str
    job_id: str | None = None
    batch_id: str | None = None
    url: str
    status: DeliveryStatus | str
    attempts: list[DeliveryAttempt] = []
    next_attempt_at: datetime | None = None


class UsageCounts(Model):
    """Jobs accepted and ended, pictures stored, and what fal billed."""

    jobs: int
    succeeded: int
    failed: int
    cancelled: int
    pictures: int
    spend_usd: float


class UsageDay(UsageCounts):
    """One day, UTC."""

    date: date


class Usage(Model):
    """Per day, and all together."""

    data: list[UsageDay]
    totals: UsageCounts


class WebhookSecret(Model):
    """What the account's webhooks are signed with."""

    secret: str


class Readiness(Model):
    """Whether the service works; what makes jobs wait is named in `degraded`, such as "fal: out of balance"."""

    status: str
    degraded: list[str] = []


class Listed(Model, Generic[T]):
    """The envelope around a listing."""

    data: list[T]
    has_more: bool = False
    next_cursor: str | None = None
