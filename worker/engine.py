"""Holds the jobs of one worker process on one event loop: admits them, keeps their leases, gives them back.

A message is handed over by a Celery thread and the thread is free as soon as the job is claimed. The lease, not the
message, protects the job from there on: nothing here depends on how Celery's pool stops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from darkroom.domain.errors import DarkroomError, UnavailableError
from darkroom.domain.ids import new_id
from darkroom.domain.job import Job
from darkroom.ports import Hold as HoldState
from darkroom.ports import Schedule, Transitions
from darkroom.service.deliver import Deliverer
from darkroom.service.run_job import Hold, JobRunner

logger = logging.getLogger(__name__)

_DELIVERIES_AT_ONCE = 32


class Engine:
    """One event loop's jobs. Everything runs on that loop but `last_delivery` and `saving`, which anyone may read."""

    def __init__(
        self,
        *,
        runner: JobRunner,
        deliverer: Deliverer,
        transitions: Transitions,
        schedule: Schedule,
        concurrency: int,
        lease_seconds: int,
    ) -> None:
        self._runner = runner
        self._deliverer = deliverer
        self._transitions = transitions
        self._schedule = schedule
        self._lease_seconds = lease_seconds
        self._job_room = asyncio.Semaphore(concurrency)
        self._delivery_room = asyncio.Semaphore(_DELIVERIES_AT_ONCE)
        # By lease: a job that was rescued can come back while its former hold here still saves a reply.
        self._holds: dict[str, tuple[Job, Hold, asyncio.Task[None]]] = {}
        self._claims: set[asyncio.Task[None]] = set()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.last_delivery = time.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether a message of any kind would be taken at once."""
        return not (self._job_room.locked() or self._delivery_room.locked() or self._stopping.is_set())

    @property
    def running(self) -> int:
        """Jobs held now."""
        return len(self._holds)

    @property
    def saving(self) -> bool:
        """Whether a paid POST is on its way, or its reply not saved yet. Anyone may read this too."""
        return self._runner.saving

    # -- messages ------------------------------------------------------------------------------------------------------

    async def take_job(self, job_id: str) -> None:
        """Claim a job and start it; returns as soon as it is claimed, or the message proved stale. Waits while full."""
        self.last_delivery = time.monotonic()
        if not await self._enter(self._job_room):
            return
        claim = asyncio.create_task(self._claim(job_id, new_id("lease")))
        self._claims.add(claim)
        claim.add_done_callback(self._claims.discard)
        await claim

    async def _claim(self, job_id: str, lease: str) -> None:
        job = None
        try:
            job = await self._transitions.claim(job_id, lease)
            if job is not None and self._stopping.is_set():
                await self._quietly(self._transitions.snooze(job.id, lease), f"giving back {job.id}")
                job = None
        except UnavailableError:
            pass  # The message comes again: its timer stays until the claim.
        finally:
            if job is None:
                self._job_room.release()
        if job is not None:
            hold = Hold(cancelling=job.cancel_requested)
            self._holds[lease] = (job, hold, asyncio.create_task(self._work(job, hold, lease), name=job.id))

    async def take_delivery(self, delivery_id: str) -> None:
        """Start a delivery attempt. Waits while full."""
        self.last_delivery = time.monotonic()
        if not await self._enter(self._delivery_room):
            return
        task = asyncio.create_task(self._deliver(delivery_id), name=delivery_id)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _enter(self, room: asyncio.Semaphore) -> bool:
        """Wait for room. False when the worker stops meanwhile: the message is not taken, and comes again."""
        if self._stopping.is_set():
            return False
        if not room.locked():
            await room.acquire()
            return True
        entered = asyncio.create_task(room.acquire())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({entered, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if entered.done() and not self._stopping.is_set():
            return True
        if not entered.cancel():
            room.release()
        return False

    # -- work ----------------------------------------------------------------------------------------------------------

    async def _work(self, job: Job, hold: Hold, lease: str) -> None:
        try:
            await self._runner.run(job, hold)
        except asyncio.CancelledError:
            # Stopping, or the lease was lost: then the store refuses this.
            await self._quietly(self._transitions.snooze(job.id, lease), f"giving back {job.id}")
        except Exception:
            # Whatever it was, the lease runs out and the job is rescued; ten in a row end it.
            logger.exception("%s: the hold broke", job.id, extra={"job_id": job.id})
        finally:
            del self._holds[lease]
            self._job_room.release()

    async def _deliver(self, delivery_id: str) -> None:
        try:
            await self._deliverer.attempt(delivery_id)
        except Exception:
            # Its timer makes the attempt again.
            logger.exception("%s: the attempt broke", delivery_id, extra={"delivery_id": delivery_id})
        finally:
            self._delivery_room.release()

    # -- leases --------------------------------------------------------------------------------------------------------

    async def keep_leases(self) -> None:
        """Renew every lease three times in its length, for ever."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await self._quietly(self._beat(list(self._holds.values())), "a heartbeat")

    async def heed_wishes(self) -> None:
        """Look at once at jobs that someone wants looked at, for ever."""
        while True:
            try:
                async with self._schedule.wishes() as wishes:
                    async for wish in wishes:
                        for hold in (hold for job, hold, _ in self._holds.values() if job.id == wish.job_id):
                            hold.cancelling = hold.cancelling or wish.cancel
                            hold.wake.set()
            except DarkroomError:
                await asyncio.sleep(1)
            except Exception:
                logger.exception("listening for wishes broke")
                await asyncio.sleep(1)

    async def _beat(self, holds: list[tuple[Job, Hold, asyncio.Task[None]]]) -> None:
        answers = await self._transitions.heartbeat([(job.id, job.lease or "") for job, _, _ in holds])
        for (job, hold, task), answer in zip(holds, answers, strict=True):
            if answer is HoldState.LOST:
                if not task.done():
                    logger.warning("%s: the lease was lost", job.id, extra={"job_id": job.id})
                    task.cancel()
            elif answer is HoldState.CANCELLING and not hold.cancelling:
                hold.cancelling = True
                hold.wake.set()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Take nothing more, save what was sent however long that takes, and give every job back.

        What is not given back `grace` seconds after that is left to the rescue.
        """
        self._stopping.set()
        tasks = [task for _, _, task in self._holds.values()]
        for task in tasks:
            task.cancel()
        remaining = [*tasks, *self._claims, *self._deliveries]
        if remaining:
            logger.info("giving back %d jobs", len(tasks))
            await self._runner.saved()
            await asyncio.wait(remaining, timeout=grace)

    async def _quietly(self, step: Coroutine[Any, Any, Any], what: str) -> None:
        try:
            await step
        except DarkroomError as error:
            logger.warning("%s: %s", what, error.message)
        except Exception:
            logger.exception("%s broke", what)
