"""How a batch looks from outside."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darkroom.domain.batch import Batch, OnInvalid, Pace, finish_at
from darkroom.domain.lifecycle import FEEDING, BatchStatus

_RATE_SECONDS = 60.0
"""The time over which the store averages a batch's speed."""


def moment(ms: int | None) -> datetime | None:
    """Unix milliseconds as an aware UTC datetime."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, tz=UTC)


class CountsView(BaseModel):
    """How many of its jobs are where; `held` ones are not counted as queued."""

    total: int
    queued: int
    running: int
    retrying: int
    held: int
    succeeded: int
    failed: int
    cancelled: int


class BatchCostView(BaseModel):
    """Money in USD: billed, reserved for what is at fal now (or will never be known), and expected in all."""

    spent_usd: float
    reserved_usd: float
    expected_usd: float | None
    budget_usd: float | None


class ForecastView(BaseModel):
    """When its last job will probably have ended: by its speed lately, or by what the deployment does now."""

    finish_at: datetime
    meets_finish_by: bool | None


class CauseView(BaseModel):
    """Failed jobs of one error code, and one of them to look at."""

    code: str
    count: int
    example_job_id: str


class LineError(BaseModel):
    """One mistake in one line of the upload."""

    line: int
    pointer: str = Field(description="A JSON pointer into the line; empty for the line as a whole.")
    detail: str


class BatchView(BaseModel):
    """A batch."""

    model_config = ConfigDict(title="Batch")

    id: str
    object: Literal["batch"] = "batch"
    name: str
    status: BatchStatus
    status_reason: Annotated[
        str | None,
        Field(
            description="Why: requested, budget, canary, bill_above_bound, not_before, finish_by, invalid_lines, empty."
        ),
    ]
    counts: CountsView
    valid: int | None
    invalid: int | None
    errors: list[LineError] = Field(default=[], description="The first mistakes; all of them: `/errors`.")
    failures: list[CauseView]
    rate_per_minute: float = Field(description="Jobs ended lately.")
    eta: datetime | None
    forecast: ForecastView | None
    cost: BatchCostView
    on_invalid: OnInvalid
    canary: int | None
    canary_max_failures: float | None
    not_before: datetime | None
    finish_by: datetime | None
    webhook_url: str | None
    job_events: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def line_errors(rows: list[dict[str, Any]]) -> list[LineError]:
    """The mistakes of lines, as the error file has them."""
    return [LineError(**mistake) for row in rows for mistake in row["errors"]]


def represent_batch(
    batch: Batch, *, now_ms: int, pace: Pace | None = None, mistakes: list[dict[str, Any]] | None = None
) -> BatchView:
    """A batch as the outside sees it at that moment. Without `pace` there is no forecast."""
    rate = rate_now(batch, now_ms)
    forecast = _forecast(batch, now_ms, rate, pace)
    counts = batch.counts
    return BatchView(
        id=batch.id,
        name=batch.name,
        status=batch.status,
        status_reason=batch.status_reason,
        counts=CountsView(**{name: getattr(counts, name) for name in CountsView.model_fields}),
        valid=batch.valid,
        invalid=batch.invalid,
        errors=line_errors(mistakes or []),
        failures=[CauseView(code=c.code, count=c.count, example_job_id=c.example) for c in batch.causes],
        rate_per_minute=round(rate * 60, 3),
        eta=forecast.finish_at if forecast and batch.status is BatchStatus.RUNNING else None,
        forecast=forecast,
        cost=BatchCostView(
            spent_usd=float(batch.spent_usd),
            reserved_usd=float(batch.reserved_usd),
            expected_usd=float(batch.estimate_usd) if batch.judged else None,
            budget_usd=None if batch.budget_usd is None else float(batch.budget_usd),
        ),
        on_invalid=batch.on_invalid,
        canary=batch.canary,
        canary_max_failures=batch.canary_max_failures,
        not_before=moment(batch.not_before),
        finish_by=moment(batch.finish_by),
        webhook_url=batch.webhook_url,
        job_events=batch.job_events,
        created_at=datetime.fromtimestamp(batch.created_at / 1000, tz=UTC),
        started_at=moment(batch.started_at),
        finished_at=moment(batch.finished_at),
    )


def rate_now(batch: Batch, now_ms: int) -> float:
    """Jobs ended a second, lately: the stored average has faded since, and a young one does not know its past yet."""
    if not batch.rate_at or not batch.started_at or batch.counts.left == 0:
        return 0.0
    faded = batch.rate * math.exp(-max(0, now_ms - batch.rate_at) / 1000 / _RATE_SECONDS)
    known = 1 - math.exp(-max(1000, now_ms - batch.started_at) / 1000 / _RATE_SECONDS)
    return faded / known


def _forecast(batch: Batch, now_ms: int, rate: float, pace: Pace | None) -> ForecastView | None:
    if pace is None or batch.status not in FEEDING:
        return None
    others = Pace(pace.permits, pace.seconds_a_job, max(0, pace.waiting - batch.counts.queued))
    ends = finish_at(now_ms, batch.counts.left, others, rate=rate, not_before=batch.not_before)
    at = datetime.fromtimestamp(ends / 1000, tz=UTC)
    return ForecastView(finish_at=at, meets_finish_by=None if batch.finish_by is None else ends <= batch.finish_by)
