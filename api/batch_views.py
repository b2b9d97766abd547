"""Batches as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from api.batch_schemas import DryRunCost, DryRunCounts, DryRunView, FileView
from api.compose import Services
from darkroom.domain.batch import Batch, batch_key, files_of
from darkroom.domain.batch_view import BatchView, ForecastView, line_errors, represent_batch
from darkroom.domain.errors import NotFoundError
from darkroom.domain.ids import is_id
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
        counts=DryRunCounts(
            lines=judge.valid + judge.invalid,
            jobs=judge.valid,
            pictures=judge.pictures,
            duplicate_inputs=judge.repeated,
        ),
        cost=DryRunCost(
            min_usd=float(tried.min_usd), expected_usd=float(tried.expected_usd), max_usd=float(tried.max_usd)
        ),
        forecast=ForecastView(
            finish_at=datetime.fromtimestamp(tried.finish_at / 1000, tz=UTC), meets_finish_by=tried.meets_finish_by
        ),
    )


async def show_files(services: Services, batch: Batch) -> list[FileView]:
    """Its files that are there by now."""

    def view(name: str) -> FileView:
        key = batch_key(services.prefix, batch.account_id, batch.id, name)
        url, expires = services.bucket.presign(key)
        return FileView(name=name, bucket=services.bucket_name, key=key, url=url, url_expires_at=expires)

    return await asyncio.to_thread(lambda: [view(name) for name in files_of(batch)])


async def find_batch(services: Services, account_id: str, batch_id: str) -> Batch:
    """The account's batch. Raises NotFoundError for another's, and for what cannot be a batch's id."""
    batch = await services.batches.get(batch_id) if is_id(batch_id, "batch") else None
    if batch is None or batch.account_id != account_id:
        raise NotFoundError(f"there is no batch {batch_id}" if is_id(batch_id, "batch") else "there is no such batch")
    return batch
