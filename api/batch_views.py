"""Batches as callers see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from api.batch_schemas import DryRunCost, DryRunCounts, DryRunView
from api.compose import Services
from darkroom.domain.batch import Batch
from darkroom.domain.batch_rows import is_result, result_row
from darkroom.domain.batch_view import BatchView, ForecastView, line_errors, represent_batch
from darkroom.domain.errors import NotFoundError
from darkroom.domain.ids import is_id
from darkroom.domain.job import Job
from darkroom.service.accept_batch import DryRun


async def show_batch(services: Services, batch: Batch) -> BatchView:
    """One batch, with its first mistakes. Raises UnavailableError."""
    mistakes = await services.batches.mistakes(batch.id) if batch.invalid else None
    pace, now = await services.batches.pace(), await services.batches.now()
    return represent_batch(batch, now_ms=now, pace=pace, mistakes=mistakes)


async def show_batches(services: Services, batches: Sequence[Batch]) -> list[BatchView]:
    """Many batches. Raises UnavailableError."""
    pace, now = await services.batches.pace(), await services.batches.now()
    return [represent_batch(batch, now_ms=now, pace=pace) for batch in batches]


def show_dry_run(tried: DryRun) -> DryRunView:
    """What an upload would come to."""
    judge = tried.judge
    return DryRunView(
        valid=judge.valid,
        invalid=judge.invalid,
        errors=line_errors([found.document() for found in judge.shown]),
        counts=DryRunCounts(lines=judge.valid + judge.invalid, jobs=judge.valid, pictures=judge.pictures),
        cost=DryRunCost(
            min_usd=float(tried.min_usd), expected_usd=float(tried.expected_usd), max_usd=float(tried.max_usd)
        ),
        forecast=ForecastView(
            finish_at=datetime.fromtimestamp(tried.finish_at / 1000, tz=UTC), meets_finish_by=tried.meets_finish_by
        ),
    )


async def result_lines(services: Services, batch: Batch, after: int) -> AsyncIterator[bytes]:
    """The results' lines. Signing takes CPU, so it does not happen on the event loop."""
    async for jobs in services.batch_reader.jobs(batch, after=after):
        done = [job for job in jobs if is_result(job)]
        if done:
            yield await asyncio.to_thread(_signed, services, done)


def _signed(services: Services, jobs: list[Job]) -> bytes:
    rows = (result_row(job, bucket=services.bucket_name, presign=services.bucket.presign) for job in jobs)
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def find_batch(services: Services, account_id: str, batch_id: str) -> Batch:
    """The account's batch. Raises NotFoundError for another's, and for what cannot be a batch's id."""
    batch = await services.batches.get(batch_id) if is_id(batch_id, "batch") else None
    if batch is None or batch.account_id != account_id:
        raise NotFoundError(f"there is no batch {batch_id}" if is_id(batch_id, "batch") else "there is no such batch")
    return batch
