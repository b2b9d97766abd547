"""Taking a batch in: all its lines are judged first, then all its jobs are made, then they get turns: all or nothing.

What may happen in between, and what is true then:

- The worker dies while it judges: no job exists; another begins anew.
- It dies while it makes jobs: they are in a flow without turns. Another goes on, under the same names, and those that
  are there are left alone. Nothing runs before the last one is in.
"""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from typing import Final, Self

from darkroom.domain.batch import Batch, OnInvalid, batch_job_id, batch_key, batch_seed
from darkroom.domain.batch_line import BadLine, GoodLine, Judge
from darkroom.domain.krea import MODEL, usd
from darkroom.domain.lifecycle import BatchStatus
from darkroom.ports import Batches, BatchFiles, BatchJob, BatchTimer, Upload
from darkroom.service.batch_lines import Alive, numbered_lines

logger = logging.getLogger(__name__)

_JUDGED_AT_ONCE: Final = 200
"""Lines judged before the event loop is given back: about 5 ms."""

_MADE_AT_ONCE: Final = 500
"""Jobs made by one script call, which nobody else can interrupt: about 10 ms."""


class BatchIntake:
    """Judges uploads and makes their jobs. `prefix` is the bucket's."""

    def __init__(self, batches: Batches, files: BatchFiles, *, prefix: str, price_per_megapixel: Decimal) -> None:
        self._batches = batches
        self._files = files
        self._prefix = prefix
        self._price = price_per_megapixel

    async def run(self, batch_id: str) -> None:
        """Take the batch in, or find that somebody has. Raises DarkroomError: its timer brings it again."""
        batch = await self._batches.get(batch_id)
        if batch is None or batch.status is not BatchStatus.VALIDATING:
            return
        if not batch.judged:
            async with self._files.upload(self._key(batch, "errors.jsonl"), "application/jsonl") as errors:
                judge = await self._judge(batch, errors)
            if judge is None or not await self._pass_judgement(batch, judge):
                return
        if await self._make_jobs(batch):
            status = await self._batches.start(batch_id)
            logger.info("%s: taken in, %s", batch_id, status, extra={"batch_id": batch_id})

    async def _judge(self, batch: Batch, errors: Upload) -> Judge | None:
        """Judge every line; what is wrong goes to the error file. None when the batch is no longer wanted."""
        judge = Judge()
        alive = Alive(lambda: self._is_wanted(batch.id))
        async for lines in numbered_lines(self._files.chunks(self._key(batch, "input.jsonl")), _JUDGED_AT_ONCE):
            bad = [found.document() for found in judge.judge(lines) if isinstance(found, BadLine)]
            if bad:
                await errors.write(b"".join(json.dumps(row).encode() + b"\n" for row in bad))
            if not await alive.still_wanted():
                return None
            await asyncio.sleep(0)
        return judge

    async def _pass_judgement(self, batch: Batch, judge: Judge) -> bool:
        good = judge.valid > 0 and (judge.invalid == 0 or batch.on_invalid is OnInvalid.SKIP)
        status = await self._batches.judge(
            batch.id,
            good=good,
            valid=judge.valid,
            invalid=judge.invalid,
            estimate_usd=usd(judge.megapixels, self._price),
            pictures=judge.pictures,
            last_line=judge.last_line,
            mistakes=[found.document() for found in judge.shown],
        )
        return status is BatchStatus.VALIDATING

    async def _make_jobs(self, batch: Batch) -> bool:
        """Make the jobs of all good lines; those of an earlier try are there and stay. False when no longer wanted."""
        judge = Judge()
        slice_: list[BatchJob] = []
        making = _Making(self._batches, batch.id)
        async with making:
            async for lines in numbered_lines(self._files.chunks(self._key(batch, "input.jsonl")), _JUDGED_AT_ONCE):
                slice_ += (
                    self._job(batch, found, canary=judge.valid <= (batch.canary or 0))
                    for found in judge.judge(lines)
                    if isinstance(found, GoodLine) and found.line > batch.added
                )
                if len(slice_) >= _MADE_AT_ONCE - _JUDGED_AT_ONCE:
                    if not await making.add(slice_, up_to_line=slice_[-1].line):
                        return False
                    slice_ = []
                await asyncio.sleep(0)
            return await making.add(slice_, up_to_line=judge.last_line) and await making.done()

    def _job(self, batch: Batch, found: GoodLine, *, canary: bool) -> BatchJob:
        asked = found.asked
        return BatchJob(
            id=batch_job_id(batch.id, found.line),
            line=found.line,
            custom_id=asked.custom_id,
            arguments=asked.input.arguments(seed=batch_seed(batch.id, found.line)),
            metadata=asked.metadata,
            estimate_usd=usd(asked.input.megapixels, self._price),
            canary=canary,
        )

    async def _is_wanted(self, batch_id: str) -> bool:
        return await self._batches.hold(batch_id, BatchTimer.INTAKE) is BatchStatus.VALIDATING

    def _key(self, batch: Batch, name: str) -> str:
        return batch_key(self._prefix, batch.account_id, batch.id, name)


class _Making:
    """Hands slices of jobs to the store, one at a time and in order, while the next is being prepared.

    Leaving drops what is under way: its jobs may be there or not, and who makes them again finds those that are.
    """

    def __init__(self, batches: Batches, batch_id: str) -> None:
        self._batches = batches
        self._batch_id = batch_id
        self._under_way: asyncio.Task[bool] | None = None

    async def add(self, jobs: list[BatchJob], *, up_to_line: int) -> bool:
        """False when the intake is over. Raises UnavailableError: of this slice, or of the one before."""
        wanted = await self.done()
        if wanted:
            step = self._batches.add_jobs(self._batch_id, MODEL, jobs, up_to_line=up_to_line)
            self._under_way = asyncio.create_task(step)
            await asyncio.sleep(0)  # it is on its way before the next lines are read
        return wanted

    async def done(self) -> bool:
        """Wait for the slice under way. False when the intake is over."""
        task, self._under_way = self._under_way, None
        return task is None or await task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
