"""Watches the records while everything breaks: how far it is, and how soon a dead worker's jobs are worked on again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from redis.asyncio import Redis

from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.scripts import ask
from darkroom.domain.errors import DarkroomError
from darkroom.domain.lifecycle import TERMINAL

_LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Orphan:
    """A job whose worker died or froze with it. Seconds are from the blow to the moment it was in hands again."""

    job_id: str
    lease: str
    since: float
    back_after: float | None = None


@dataclass(slots=True)
class Watch:
    """`run` looks five times a second. A worker's death shows as a lease that nobody renews.

    `ended` and `held` are jobs, `batches` those that ended.

    An orphan is in hands again when it runs under another lease, is being reconciled or held, or has ended. `blows` are
    the moments (monotonic) at which workers were killed or frozen: an orphan's seconds count from the one that hit it.
    """

    redis: Redis
    lease_seconds: float
    ended: int = 0
    held: int = 0
    batches: int = 0
    blows: list[float] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    _seen: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self._look()
            except DarkroomError:
                # Valkey is away: nobody can renew a lease, and nothing that stands still means a death.
                self._seen.clear()
            await asyncio.sleep(_LOOK_SECONDS)

    @property
    def slowest_recovery(self) -> float | None:
        """The longest that an orphan waited; None without orphans, infinite for one that still waits."""
        return max((orphan.back_after or float("inf") for orphan in self.orphans), default=None)

    async def _look(self) -> None:
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hmget("dr:counts", *sorted(TERMINAL))
            pipe.zcard("dr:held")
            pipe.zcard("dr:ended_batches")
            ends, self.held, self.batches = await ask(pipe.execute())
        self.ended = sum(int(count or 0) for count in ends)
        leases = await RedisSchedule(self.redis).leases()
        now = time.monotonic()
        seen = {}
        for job_id, lease, expiry in leases:
            known = self._seen.get((job_id, lease))
            seen[job_id, lease] = known if known and known[0] == expiry else (expiry, now)
        self._seen = seen
        self._find_orphans(now)
        for orphan in self.orphans:
            if orphan.back_after is None and await self._in_hands(orphan):
                orphan.back_after = now - orphan.since

    def _find_orphans(self, now: float) -> None:
        known = {(orphan.job_id, orphan.lease) for orphan in self.orphans}
        for (job_id, lease), (_, renewed) in self._seen.items():
            if now - renewed > 0.9 * self.lease_seconds and (job_id, lease) not in known:
                # Renewed three times in its length: the blow came within a third after the last time.
                latest = renewed + self.lease_seconds / 3 + 1
                hits = [blow for blow in self.blows if renewed - 1 <= blow <= latest]
                self.orphans.append(Orphan(job_id, lease, since=min(hits, default=renewed)))

    async def _in_hands(self, orphan: Orphan) -> bool:
        status, lease, place = await ask(self.redis.hmget(f"dr:job:{orphan.job_id}", "status", "lease", "place"))
        if status == "running":
            return bool(lease != orphan.lease)
        return place in {"none", "reconcile", "held"}
