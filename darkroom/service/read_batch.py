"""A batch's results and errors in line order, a bounded slice at a time: while it runs, and for its outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from darkroom.domain.batch import Batch, batch_job_id, batch_key, slices
from darkroom.domain.batch_rows import error_row, is_error
from darkroom.domain.errors import NotFoundError
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import BatchStatus
from darkroom.ports import Batches, BatchFiles
from darkroom.service.batch_lines import numbered_lines

_SLICE: Final = 100


class BatchReader:
    """Reads batches line by line. `prefix` is the bucket's."""

    def __init__(self, batches: Batches, files: BatchFiles, *, prefix: str) -> None:
        self._batches = batches
        self._files = files
        self._prefix = prefix

    async def jobs(self, batch: Batch, *, after: int = 0) -> AsyncIterator[list[Job]]:
        """All its jobs after that line, in slices."""
        for lines in slices(after + 1, batch.added, _SLICE):
            yield await self._batches.jobs([batch_job_id(batch.id, line) for line in lines])
            await asyncio.sleep(0)

    async def error_rows(self, batch: Batch, *, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Lines that could not become jobs, and jobs that failed or were cancelled, in line order."""
        async for row in self.rows(batch, after=after):
            if not isinstance(row, Job):
                yield row
            elif is_error(row):
                yield error_row(row)

    async def rows(self, batch: Batch, *, after: int = 0) -> AsyncIterator[Job | dict[str, Any]]:
        """All its lines that are not empty: the job, or the row of the error file for a line that is none."""
        bad = self._bad_lines(batch, after)
        waiting = await anext(bad, None)
        async for jobs in self.jobs(batch, after=after):
            for job in jobs:
                while waiting is not None and waiting["line"] < (job.line or 0):
                    yield waiting
                    waiting = await anext(bad, None)
                yield job
        while waiting is not None:
            yield waiting
            waiting = await anext(bad, None)

    async def _bad_lines(self, batch: Batch, after: int) -> AsyncIterator[dict[str, Any]]:
        """What the intake found: it stands in the error file, where later the jobs stand too."""
        if not batch.invalid and batch.status is not BatchStatus.VALIDATING:
            return
        key = batch_key(self._prefix, batch.account_id, batch.id, "errors.jsonl")
        try:
            async for lines in numbered_lines(self._files.chunks(key), _SLICE):
                for _, text in lines:
                    row = json.loads(text)
                    if row["job_id"] is None and row["line"] > after:
                        yield row
        except NotFoundError:
            return
