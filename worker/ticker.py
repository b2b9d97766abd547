"""What time brings about: due timers, free permits, dead workers' jobs, published messages, old records.

Every worker runs one; any number may. Each step is one of the store's scripts, so two tickers never do a thing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from darkroom.domain.errors import DarkroomError, TransientError
from darkroom.ports import BatchTimer, Limits, Publisher, Schedule, Transitions
from darkroom.service.reconcile import Reconciler
from worker.batch_work import BatchWork

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
_WATCHES_A_LEASE = 10
"""Reading every lease costs as many reads as there are jobs at work; a tenth of a lease is soon enough to rescue."""
_STORAGE_SECONDS = 5.0
_STORAGE_PATIENCE = 5.0
"""A bucket that has not answered by then counts as away: a hanging S3 must not look like a slow one."""
_SWEEP_SECONDS = 60.0
_LOOKS_AT_ONCE = 4


class LeaseWatch:
    """Knows leases that this process has itself seen unchanged for a whole lease, on its monotonic clock.

    After a clock jump every lease looks expired at once; what was seen to stand still is another matter.
    """

    def __init__(self, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}

    def expired(self, leases: list[tuple[str, str, int]]) -> list[tuple[str, str]]:
        """Those of `leases` (job, lease, expiry) that have stood still for a lease's length."""
        now = self._clock()
        seen = {}
        for job_id, lease, expiry in leases:
            known = self._seen.get((job_id, lease))
            seen[job_id, lease] = known if known and known[0] == expiry else (expiry, now)
        self._seen = seen
        return [name for name, (_, since) in seen.items() if now - since >= self._lease_seconds]


class Ticker:
    """The loops of one worker that are nobody's job."""

    def __init__(
        self,
        *,
        worker_id: str,
        schedule: Schedule,
        transitions: Transitions,
        reconciler: Reconciler,
        batches: BatchWork,
        ensure_storage: Callable[[], Awaitable[None]],
        publisher: Publisher,
        remove: Callable[[str], Awaitable[None]],
        limits: Limits,
        lease_seconds: int,
        retention_days: int,
    ) -> None:
        self._worker_id = worker_id
        self._schedule = schedule
        self._transitions = transitions
        self._reconciler = reconciler
        self._batches = batches
        self._ensure_storage = ensure_storage
        self._publisher = publisher
        self._remove = remove
        self._limits = limits
        self._leases = LeaseWatch(lease_seconds)
        self._watch_seconds = max(1.0, lease_seconds / _WATCHES_A_LEASE)
        self._retention_days = retention_days
        self._storage_check: asyncio.Future[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._look_room = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def run(self) -> None:
        """Run all loops for ever. What they began ends with them."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._every(_TICK_SECONDS, self.tick))
                group.create_task(self._every(0, self.relay))
                group.create_task(self._every(self._watch_seconds, self.watch))
                group.create_task(self._every(_STORAGE_SECONDS, self.check_storage))
                group.create_task(self._every(_SWEEP_SECONDS, self.sweep))
        finally:
            for task in (*self._looks, *filter(None, (self._storage_check,))):
                task.cancel()

    async def _every(self, seconds: float, step: Callable[[], Awaitable[float | None]]) -> None:
        """Repeat a step; it may answer that it wants to come again sooner. A fault is logged and changes nothing."""
        while True:
            try:
                sooner = await step()
            except DarkroomError as error:
                logger.warning("%s: %s", getattr(step, "__name__", "step"), error.message)
                sooner = 1.0
            except Exception:
                logger.exception("%s broke", getattr(step, "__name__", "step"))
                sooner = 1.0
            await asyncio.sleep(seconds if sooner is None else sooner)

    async def tick(self) -> float | None:
        """Apply what is due, start the looks that are due, hand out permits."""
        for entry in await self._schedule.tick():
            kind, _, job_id = entry.partition(":")
            if kind == "deadline":
                await self._transitions.expire(job_id)
            elif kind == "reconcile":
                task = asyncio.create_task(self._look(job_id))
                self._looks.add(task)
                task.add_done_callback(self._looks.discard)
            else:
                self._batches.begin(BatchTimer(kind), job_id)
        wait = await self._schedule.dispatch()
        return None if wait is None else max(0.005, min(wait, _TICK_SECONDS))

    async def _look(self, job_id: str) -> None:
        async with self._look_room:
            try:
                await self._reconciler.look(job_id)
            except DarkroomError as error:
                logger.warning("the look for %s failed: %s", job_id, error.message)
            except Exception:
                logger.exception("the look for %s broke", job_id)

    async def relay(self) -> None:
        """From the outbox to the broker. Messages that get lost in between come again by their timers."""
        messages = await self._schedule.take_outbox(1.0)
        if messages:
            await self._publisher.publish(messages)

    async def watch(self) -> None:
        """Say that this worker lives, keep the limits known, rescue the jobs of workers that are gone."""
        await self._schedule.seen(self._worker_id)
        await self._schedule.announce_limits(self._limits)
        for job_id, lease in self._leases.expired(await self._schedule.leases()):
            if await self._transitions.rescue(job_id, lease):
                logger.warning("rescued %s from a worker that is gone", job_id, extra={"job_id": job_id})

    async def check_storage(self) -> None:
        """While pictures cannot be stored, nothing is submitted."""
        fault = await self._storage_fault()
        if fault is not None:
            logger.warning("the bucket cannot be used: %s", fault.message)
        await self._schedule.set_storage(fault)

    async def _storage_fault(self) -> DarkroomError | None:
        # One check at a time: what hangs holds a thread of the bucket's.
        check = self._storage_check = self._storage_check or asyncio.ensure_future(self._ensure_storage())
        await asyncio.wait({check}, timeout=_STORAGE_PATIENCE)
        if not check.done():
            return TransientError("the bucket does not answer", code="s3_unavailable")
        self._storage_check = None
        try:
            check.result()
        except DarkroomError as error:
            return error
        return None

    async def sweep(self) -> None:
        """Remove records whose retention is over."""
        await self._batches.sweep(self._retention_days)
        for job_id in await self._schedule.sweep(self._retention_days):
            await self._remove(job_id)
