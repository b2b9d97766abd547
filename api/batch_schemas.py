"""What callers send about batches, and the envelopes around what they get. The batch itself: domain/batch_view.py."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from api.schemas import Limit
from darkroom.domain.batch import LINES_MAX, OnInvalid
from darkroom.domain.batch_view import BatchView, ForecastView, LineError
from darkroom.domain.krea import PlainText
from darkroom.service.contact_sheet import Links

Budget = Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=9, description="USD; never exceeded.")]


class BatchQuery(BaseModel):
    """How a batch is to be run."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[PlainText, Field(max_length=200)] = ""
    dry_run: bool = False
    on_invalid: OnInvalid = OnInvalid.REJECT
    budget_usd: Budget | None = None
    not_before: AwareDatetime | None = None
    finish_by: AwareDatetime | None = None
    webhook_url: PlainText | None = None
    job_events: Annotated[bool, Field(description="Tell the webhook of each job's end too.")] = False
    canary: Annotated[
        int | None, Field(ge=1, le=LINES_MAX, description="Run so many first, then wait for `/resume`.")
    ] = None
    canary_max_failures: Annotated[
        float | None, Field(ge=0, le=1, description="Go on by itself when at most this share of the canary failed.")
    ] = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.finish_by is not None and self.not_before is not None and self.finish_by <= self.not_before:
            raise ValueError("finish_by must be after not_before")
        if self.job_events and self.webhook_url is None:
            raise ValueError("job_events needs webhook_url")
        if self.canary_max_failures is not None and self.canary is None:
            raise ValueError("canary_max_failures needs canary")
        return self


class BatchPageQuery(BaseModel):
    """Query of a listing of batches."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 20
    cursor: Annotated[str, Field(max_length=512)] | None = None


class ResumeQuery(BaseModel):
    """How a paused batch goes on."""

    model_config = ConfigDict(extra="forbid")

    budget_usd: Budget | None = None


class RetryQuery(BaseModel):
    """Which failed jobs start again."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str | None, Field(max_length=100, description="Only those with this error code.")] = None
    accept_charge: Annotated[bool, Field(description="Also those that were or may have been charged.")] = False


class OutcomeQuery(BaseModel):
    """Where reading begins."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=2**31, description="The last line that was read already.")] = 0
    limit: Annotated[int | None, Field(ge=1, le=10_000, description="At most so many rows; without it, all.")] = None


class SheetQuery(BaseModel):
    """What the contact sheet's links lead to."""

    model_config = ConfigDict(extra="forbid")

    links: Annotated[
        Literal[Links.SIGNED, Links.DOWNLOAD],
        Field(
            description="`signed`: pictures in the bucket, for as long as signed URLs are valid; `download`: pictures "
            "beside the page, as `darkroom batch download` lays them out."
        ),
    ] = Links.SIGNED


class FileView(BaseModel):
    """One of a batch's files in the bucket. `url` is signed now."""

    name: str
    bucket: str
    key: str
    url: str
    url_expires_at: datetime


class FileList(BaseModel):
    """A batch's files that are there by now."""

    data: list[FileView]


class BatchList(BaseModel):
    """Batches, newest first."""

    data: list[BatchView]
    has_more: bool
    next_cursor: str | None


class DryRunCounts(BaseModel):
    """What would be made."""

    lines: int
    jobs: int
    pictures: int
    duplicate_inputs: int = Field(
        description="Lines whose input an earlier line had. Where that names no seed, each draws its own."
    )


class DryRunCost(BaseModel):
    """USD. At least nothing (everything may fail unpaid), as expected, and at most (the budget, where one is set)."""

    min_usd: float
    expected_usd: float
    max_usd: float


class DryRunView(BaseModel):
    """What an upload would come to."""

    valid: int
    invalid: int
    errors: list[LineError] = Field(description="Those of the first 20 lines that have any.")
    counts: DryRunCounts
    cost: DryRunCost
    forecast: ForecastView
