"""What the API says of batches, in the same tolerant way as models.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from darkroom_client.models import Image, JobError, Model

BatchStatus = Literal[
    "validating",
    "queued",
    "running",
    "paused",
    "cancelling",
    "completed",
    "cancelled",
    "failed",
    "expired",
]
OnInvalid = Literal["reject", "skip"]
Links = Literal["signed", "download"]

BATCH_ENDED: Final = frozenset({"completed", "cancelled", "failed", "expired"})


class BatchCounts(Model):
    """How many of its jobs are where; `held` ones are not counted as queued."""

    total: int = 0
    queued: int = 0
    running: int = 0
    retrying: int = 0
    held: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def left(self) -> int:
        """Those that have not ended."""
        return self.queued + self.running + self.retrying + self.held

    @property
    def ended(self) -> int:
        """Those that have."""
        return self.succeeded + self.failed + self.cancelled


class BatchCost(Model):
    """In USD: billed, reserved for what is at fal now (or will never be known), and expected in all."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    expected_usd: float | None = None
    budget_usd: float | None = None


class Forecast(Model):
    """When the last job will probably have ended, and whether that is by `finish_by` (None: there is none)."""

    finish_at: datetime
    meets_finish_by: bool | None = None


class Cause(Model):
    """Failed jobs of one error code, and one of them to look at."""

    code: str
    count: int
    example_job_id: str | None = None


class LineError(Model):
    """One mistake in one line of the upload. An empty `pointer` means the line as a whole."""

    line: int
    pointer: str = ""
    detail: str


class Batch(Model):
    """Jobs submitted together."""

    id: str
    name: str = ""
    status: BatchStatus | str
    status_reason: str | None = None
    counts: BatchCounts
    valid: int | None = None
    invalid: int | None = None
    errors: list[LineError] = Field(default_factory=list)
    failures: list[Cause] = Field(default_factory=list)
    rate_per_minute: float = 0.0
    eta: datetime | None = None
    forecast: Forecast | None = None
    cost: BatchCost
    on_invalid: OnInvalid | str = "reject"
    canary: int | None = None
    canary_max_failures: float | None = None
    not_before: datetime | None = None
    finish_by: datetime | None = None
    webhook_url: str | None = None
    job_events: bool = False
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more, unless what failed is retried."""
        return self.status in BATCH_ENDED

    @property
    def waits_for_a_person(self) -> bool:
        """Whether it paused by itself (budget, canary, bill_above_bound): somebody has to say how it goes on."""
        return self.status == "paused" and self.status_reason != "requested"


class AcceptedBatch(Batch):
    """The batch of an upload. `replayed`: an earlier one with the same idempotency key had made it already."""

    replayed: bool = False


class Thumbnail(Model):
    """A small picture of a picture. `path` is its place in a download."""

    path: str
    key: str
    url: str
    url_expires_at: datetime | None = None


class BatchImage(Image):
    """A stored picture of a batch. `path` is its place in a download, and its name in SHA256SUMS."""

    path: str
    thumbnail: Thumbnail | None = None


class BatchResult(Model):
    """One job that succeeded. `line` is its line in the upload."""

    line: int
    custom_id: str | None = None
    job_id: str
    status: str
    input: dict[str, Any]
    metadata: dict[str, str] = Field(default_factory=dict)
    images: list[BatchImage]
    warnings: list[str] = Field(default_factory=list)
    cost_usd: float | None = None
    fal_request_id: str | None = None
    finished_at: datetime | None = None


class BatchErrorRow(Model):
    """One job that failed or was cancelled; or one line that could not become a job: it has `errors`, and no job."""

    line: int
    custom_id: str | None = None
    job_id: str | None = None
    status: str | None = None
    error: JobError
    errors: list[LineError] = Field(default_factory=list)
    input: dict[str, Any] | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    cost_usd: float | None = None
    fal_request_id: str | None = None
    finished_at: datetime | None = None


class BatchFile(Model):
    """One file of the batch in the bucket: its upload, or a part of its outcome."""

    name: str
    bucket: str
    key: str
    url: str
    url_expires_at: datetime | None = None


class DryRunCounts(Model):
    """What would be made. `duplicate_inputs`: lines whose input an earlier line had; without a seed each draws one."""

    lines: int
    jobs: int
    pictures: int
    duplicate_inputs: int = 0


class DryRunCost(Model):
    """USD: at least, as expected, at most."""

    min_usd: float
    expected_usd: float
    max_usd: float


class DryRun(Model):
    """What an upload would come to. Nothing was stored."""

    valid: int
    invalid: int
    errors: list[LineError] = Field(default_factory=list)
    counts: DryRunCounts
    cost: DryRunCost
    forecast: Forecast
