"""Waiting for a job: until it ends, or from change to change."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from darkroom.domain.errors import UnavailableError
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import TERMINAL
from darkroom.ports import Jobs

_LOOK_SECONDS: Final = 5.0
"""Signals may get lost: a waiter looks by itself this often."""

_NAP_SECONDS: Final = 1.0
"""The longest that a waiter does not see that the process is about to end."""


class JobWatch:
    """Waits for jobs on behalf of callers.

    Signals come from `signals`, records from `jobs`: when they use different pools, waiting starves nobody. At most
    `room` callers wait at a time; whoever comes when it is full gets the job as it is.
    """

    def __init__(self, jobs: Jobs, signals: Jobs, *, room: int) -> None:
        self._jobs = jobs
        self._signals = signals
        self._room = room
        self._closing = False

    def close(self) -> None:
        """Answer everyone within a second: the process is about to end."""
        self._closing = True

    async def until_ended(self, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it is after that time. Raises UnavailableError when it cannot be read."""
        if seconds > 0:
            async for seen in self.follow(job, seconds=seconds):
                job = seen
        return job

    async def follow(self, job: Job, *, seconds: float = math.inf) -> AsyncIterator[Job]:
        """The job now, then after each change (those in between may be skipped), and last when it has ended.

        Ends early after that time, when there is no room, when the job is deleted, when the process is about to end,
        and when Redis is away: ask again then.
        """
        if self._room <= 0 or job.status in TERMINAL:
            yield job
            return
        with self._place():
            try:
                async for seen in self._changes(job, asyncio.get_running_loop().time() + seconds):
                    yield seen
            except UnavailableError:
                return

    async def _changes(self, job: Job, until: float) -> AsyncIterator[Job]:
        # The time is looked at, not cancelled by: on Python 3.11 redis-py loses cancellations that arrive as it sends.
        clock = asyncio.get_running_loop().time
        version = -1
        async with self._signals.changes(job.id) as changes:
            while True:
                seen = await self._jobs.get(job.id)
                if seen is None:
                    return
                if seen.version != version:
                    version = seen.version
                    yield seen
                if seen.status in TERMINAL:
                    return
                look_at = min(until, clock() + _LOOK_SECONDS)
                while (left := look_at - clock()) > 0 and not self._closing:
                    if await changes.wait(min(left, _NAP_SECONDS)):
                        break
                if clock() >= until or self._closing:
                    return

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._room -= 1
        try:
            yield
        finally:
            self._room += 1
