"""How much of everything there is now, in three round trips: what /metrics shows of the store."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import ask
from darkroom.domain.lifecycle import BatchStatus, JobStatus, Lane


@dataclass(frozen=True, slots=True)
class Gauges:
    """Sizes, by the glossary's names. `places` is where jobs wait or are worked; `closed` is what stops submissions."""

    jobs: dict[str, int]
    batches: dict[str, int]
    ready: dict[str, int]
    places: dict[str, int]
    permits: int
    timers: int
    outbox: int
    double_charges: int
    closed: dict[str, bool]
    memory_used: int
    memory_max: int


async def read_gauges(redis: Redis) -> Gauges:
    """Count. Raises UnavailableError."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall("dr:counts")
        pipe.hgetall("dr:batch_counts")
        for key in ("dr:permits", "dr:timers", "dr:ready:resume", "dr:held", "dr:leases", "dr:double_charges"):
            pipe.zcard(key)
        pipe.llen("dr:outbox")
        for key in ("dr:gate:fal", "dr:gate:s3", "dr:cooldown"):
            pipe.exists(key)
        pipe.info("memory")
        counts, batches, permits, timers, resume, held, leases, doubles, outbox, fal, s3, cooldown, memory = await ask(
            pipe.execute()
        )
    return Gauges(
        jobs={status.value: int(counts.get(status.value, 0)) for status in JobStatus},
        batches={status.value: int(batches.get(status.value, 0)) for status in BatchStatus},
        ready={lane.value: await _ready(redis, lane) for lane in Lane},
        places={"resume": resume, "held": held, "lease": leases},
        permits=permits,
        timers=timers,
        outbox=outbox,
        double_charges=doubles,
        closed={"fal": bool(fal), "s3": bool(s3), "cooldown": bool(cooldown)},
        memory_used=int(memory.get("used_memory", 0)),
        memory_max=int(memory.get("maxmemory", 0)),
    )


async def _ready(redis: Redis, lane: Lane) -> int:
    """A lane's jobs lie in one sorted set a flow, found through the sets of accounts and batches above them."""
    top = f"dr:ready:{lane}"
    accounts = await ask(redis.zrange(top, 0, -1))
    async with redis.pipeline(transaction=False) as pipe:
        for account in accounts:
            pipe.zrange(f"{top}:{account}", 0, -1)
        batches = await ask(pipe.execute())
    async with redis.pipeline(transaction=False) as pipe:
        for account, names in zip(accounts, batches, strict=True):
            for name in names:
                pipe.zcard(f"{top}:{account}:{name}")
        return sum(await ask(pipe.execute()))
