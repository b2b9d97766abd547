"""What a worker does for batches when their timers are due, in slices that leave the loop to the jobs."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from darkroom.domain.errors import DarkroomError
from darkroom.ports import Batches, BatchTimer
from darkroom.service.close_batch import BatchCloser
from darkroom.service.intake_batch import BatchIntake
from darkroom.service.walk_batch import BatchWalk

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 2


class BatchWork:
    """Runs intakes, endings, retries, outcomes and removals. What breaks is begun again by its timer within 30 s."""

    def __init__(self, batches: Batches, *, intake: BatchIntake, walk: BatchWalk, closer: BatchCloser) -> None:
        self._batches = batches
        self._steps = {
            BatchTimer.INTAKE: intake.run,
            BatchTimer.DRAIN: walk.drain,
            BatchTimer.REPLAY: walk.replay,
            BatchTimer.OUTCOME: closer.close,
            BatchTimer.PURGE: walk.purge,
        }
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._under_way: dict[tuple[BatchTimer, str], asyncio.Task[None]] = {}

    def begin(self, timer: BatchTimer, batch_id: str) -> None:
        """Start it, unless this process is at it already."""
        name = (timer, batch_id)
        if name not in self._under_way:
            task = asyncio.create_task(self._run(timer, batch_id), name=f"{timer}:{batch_id}")
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))

    async def sweep(self, retention_days: int) -> None:
        """Have ended batches removed whose retention is over."""
        await self._batches.sweep(retention_days)

    async def _run(self, timer: BatchTimer, batch_id: str) -> None:
        async with self._room:
            try:
                await self._steps[timer](batch_id)
            except DarkroomError as error:
                logger.warning("%s of %s: %s", timer, batch_id, error.message, extra={"batch_id": batch_id})
            except Exception:
                logger.exception("%s of %s broke", timer, batch_id, extra={"batch_id": batch_id})
