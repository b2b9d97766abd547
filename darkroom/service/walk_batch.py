"""What is done to all jobs of a batch (ended, given a new life, removed), in slices, from where the last came to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from darkroom.domain.batch import Batch, batch_job_id, slices
from darkroom.domain.errors import ConflictError, NotFoundError
from darkroom.domain.lifecycle import TERMINAL_BATCH
from darkroom.ports import Batches, BatchTimer
from darkroom.service.batch_lines import Alive

_SLICE: Final = 100
"""Jobs moved by one script call, which nobody else can interrupt: about 10 ms."""

Step = Callable[..., Awaitable[bool]]


class BatchWalk:
    """Goes over batches line by line. `remove` deletes an ended job's record."""

    def __init__(self, batches: Batches, *, remove: Callable[[str], Awaitable[None]]) -> None:
        self._batches = batches
        self._remove = remove

    async def drain(self, batch_id: str) -> None:
        """End what is not paid. Repeatable. Raises UnavailableError: its timer brings it again."""
        await self._walk(batch_id, self._batches.drain)

    async def replay(self, batch_id: str) -> None:
        """Give failed jobs a new life. As `drain`."""
        await self._walk(batch_id, self._batches.replay)

    async def _walk(self, batch_id: str, step: Step) -> None:
        batch = await self._batches.get(batch_id)
        if batch is None:
            return
        for lines in slices(batch.cursor + 1, batch.added, _SLICE):
            last = lines[-1] == batch.added
            if not await step(batch_id, _ids(batch, lines), up_to_line=lines[-1], last=last) or last:
                return
            await asyncio.sleep(0)
        await step(batch_id, [], up_to_line=batch.added, last=True)

    async def purge(self, batch_id: str) -> None:
        """Remove an ended batch: its jobs' records, then its own; what lies in the bucket stays. As `drain`."""
        batch = await self._batches.get(batch_id)
        if batch is not None and batch.status in TERMINAL_BATCH:
            alive = Alive(lambda: self._still_there(batch_id))
            for lines in slices(1, batch.added, _SLICE):
                for job in await self._batches.jobs(_ids(batch, lines)):
                    await self._remove_job(job.id)
                if not await alive.still_wanted():
                    return
        await self._batches.delete(batch_id)

    async def _still_there(self, batch_id: str) -> bool:
        return await self._batches.hold(batch_id, BatchTimer.PURGE) in TERMINAL_BATCH

    async def _remove_job(self, job_id: str) -> None:
        try:
            await self._remove(job_id)
        except (NotFoundError, ConflictError):
            return


def _ids(batch: Batch, lines: range) -> list[str]:
    return [batch_job_id(batch.id, line) for line in lines]
