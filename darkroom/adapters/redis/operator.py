"""What waits for an operator."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from darkroom.adapters.redis.records import read_jobs
from darkroom.adapters.redis.scripts import ask
from darkroom.domain.job import Job


@dataclass(frozen=True, slots=True)
class Gate:
    """Why fal takes no submissions. Times are Unix milliseconds."""

    reason: str
    message: str
    since: int
    probe_at: int


class RedisOperator:
    """Reads only: what an operator decides is a transition like any other."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def held(self) -> list[tuple[Job, int]]:
        """Jobs whose lost reply nobody could clear up, and since when (Unix ms), oldest first."""
        rows = await ask(self._redis.zrange("dr:held", 0, -1, withscores=True))
        since = {job_id: int(at) for job_id, at in rows}
        return [(job, since[job.id]) for job in await read_jobs(self._redis, list(since))]

    async def fal_gate(self) -> Gate | None:
        """The gate for submissions to fal, None while it is open."""
        record = await ask(self._redis.hgetall("dr:gate:fal"))
        if not record.get("reason"):
            return None
        return Gate(
            record["reason"], record.get("message", ""), int(record.get("since", 0)), int(record.get("probe_at", 0))
        )

    async def cooldown(self) -> float:
        """Seconds for which nobody submits, 0 for none."""
        left = int(await ask(self._redis.pttl("dr:cooldown")))
        return max(0, left - 1000) / 1000  # its key stays a second longer

    async def double_charges(self) -> int:
        """Second and late charges on record."""
        return int(await ask(self._redis.zcard("dr:double_charges")))
