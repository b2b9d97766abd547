"""Ends a worker that stopped consuming: a dead broker connection that nobody notices would strand its share of work."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import ask
from darkroom.domain.errors import UnavailableError
from worker.engine import Engine

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_STALLED_SECONDS = 30.0

EXIT_STALLED = 70
"""The exit status of a worker that ended itself; its supervisor starts a new one."""


class Watchdog:
    """Looks whether messages wait, there is room, and yet nothing is delivered for half a minute."""

    def __init__(
        self, *, engine: Engine, redis: Redis, queues: Sequence[str], end: Callable[[int], object] = os._exit
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._queues = queues
        self._end = end

    async def run(self) -> None:
        """Watch for ever."""
        since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                waiting = await self.waiting()
            except UnavailableError:
                waiting = 0
            now = time.monotonic()
            stalled = waiting > 0 and self._engine.has_room and now - self._engine.last_delivery > _LOOK_SECONDS
            since = (since or now) if stalled else None
            if since is not None and now - since >= _STALLED_SECONDS:
                logger.critical("%d messages wait and none is delivered: this worker ends", waiting)
                self._end(EXIT_STALLED)

    async def waiting(self) -> int:
        """Messages in this worker's queues that no worker holds."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for queue in self._queues:
                pipe.llen(queue)
            return sum(await ask(pipe.execute()))
