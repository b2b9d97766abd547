"""What is to happen next: dispatch, timers, leases, the outbox; and what stops it: cooldown and gates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import ask, run
from darkroom.domain.errors import DarkroomError
from darkroom.domain.lifecycle import Lane
from darkroom.domain.policy import TROUBLE_MAX, Fate, reaction_to
from darkroom.ports import Limits, Message, Trouble, Wish

_TICK: Final = 256
"""Timers applied in one script call, which nobody else can interrupt."""

_HOLD_MS: Final = 30_000
"""A timer whose effect needs more than the store is ours for so long; then another ticker may try."""

_STORAGE_DOWN_MS: Final = 20_000

_PROBE_MS: Final = (5_000, 60_000)
"""First and longest distance between the single submissions that try a closed gate."""

_OUTBOX: Final = 64


class RedisSchedule:
    """Implements `ports.Schedule`. `waiting` is a client for what blocks; without it, `redis` serves that too."""

    def __init__(self, redis: Redis, *, waiting: Redis | None = None) -> None:
        self._redis = redis
        self._waiting = waiting or redis

    async def now(self) -> datetime:
        """See `ports.Schedule`."""
        seconds, micros = await ask(self._redis.time())
        return datetime.fromtimestamp(seconds + micros / 1e6, tz=UTC)

    async def seen(self, worker_id: str) -> None:
        """See `ports.Schedule`. Workers that were not seen for an hour are forgotten."""
        now_ms = int((await self.now()).timestamp() * 1000)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd("dr:workers", {worker_id: now_ms})
            pipe.zremrangebyscore("dr:workers", "-inf", now_ms - 3_600_000)
            await ask(pipe.execute())

    async def announce_limits(self, limits: Limits) -> None:
        """See `ports.Schedule`. The last worker to start wins; they are meant to agree."""
        fields: list[Any] = [part for name in Limits.__slots__ for part in (name, getattr(limits, name))]
        await ask(self._redis.hset("dr:limits", items=fields))

    async def dispatch(self) -> float | None:
        """See `ports.Schedule`."""
        wait_ms = int(await run(self._redis, "dispatch"))
        return None if wait_ms < 0 else wait_ms / 1000

    async def tick(self) -> list[str]:
        """See `ports.Schedule`."""
        return list(await run(self._redis, "tick", _TICK, _HOLD_MS))

    async def leases(self) -> list[tuple[str, str, int]]:
        """See `ports.Schedule`."""
        rows = await ask(self._redis.zrange("dr:leases", 0, -1, withscores=True))
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id, _ in rows:
                pipe.hget(f"dr:job:{job_id}", "lease")
            tokens = await ask(pipe.execute())
        return [(job_id, token or "", int(at)) for (job_id, at), token in zip(rows, tokens, strict=True)]

    async def take_outbox(self, wait: float) -> list[Message]:
        """See `ports.Schedule`."""
        first = await ask(self._waiting.blpop(["dr:outbox"], timeout=wait))
        if first is None:
            return []
        more = await ask(self._redis.lpop("dr:outbox", _OUTBOX))
        return [_message(entry) for entry in (first[1], *(more or ()))]

    async def cool_down(self, seconds: float) -> None:
        """See `ports.Schedule`."""
        await run(self._redis, "cool_down", int(seconds * 1000))

    async def trip(self, job_id: str, error: DarkroomError, trouble: Trouble) -> bool:
        """See `ports.Schedule`."""
        blame = int(reaction_to(error).fate is Fate.RETRY)
        facts = (error.code, error.message, *_PROBE_MS, job_id, blame)
        return bool(await run(self._redis, "trip", trouble, TROUBLE_MAX, *facts))

    async def close_gate(self, job_id: str, error: DarkroomError) -> None:
        """See `ports.Schedule`."""
        await run(self._redis, "close_gate", error.code, error.message, *_PROBE_MS, job_id)

    async def open_gate(self) -> None:
        """The operator says that fal takes submissions again."""
        await run(self._redis, "open_gate")

    async def gates(self) -> dict[str, str]:
        """What stops submissions now: `fal` and `s3` with a code each, for /readyz and people."""
        fal = await ask(self._redis.hget("dr:gate:fal", "reason"))
        storage = await ask(self._redis.get("dr:gate:s3"))
        return {name: reason for name, reason in (("fal", fal), ("s3", storage)) if reason}

    async def set_storage(self, fault: DarkroomError | None) -> None:
        """See `ports.Schedule`."""
        if fault is None:
            await ask(self._redis.delete("dr:gate:s3"))
        else:
            await ask(self._redis.set("dr:gate:s3", fault.code, px=_STORAGE_DOWN_MS))

    async def sweep(self, retention_days: int) -> list[str]:
        """See `ports.Schedule`."""
        return list(await run(self._redis, "sweep", retention_days * 86_400_000, 200))

    @asynccontextmanager
    async def wishes(self) -> AsyncIterator[AsyncIterator[Wish]]:
        """See `ports.Schedule`. The iterator raises UnavailableError when the connection breaks: enter again."""
        pubsub = self._waiting.pubsub()
        try:
            await ask(pubsub.subscribe("dr:wake"))
            yield _wishes(pubsub)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]


async def _wishes(pubsub: Any) -> AsyncIterator[Wish]:  # noqa: ANN401 - redis-py does not type its PubSub's iterator
    while True:
        message = await ask(pubsub.get_message(ignore_subscribe_messages=True, timeout=5))
        if message is not None:
            kind, _, job_id = message["data"].partition(":")
            yield Wish(job_id, cancel=kind == "cancel")


def _message(entry: str) -> Message:
    kind, lane, name = entry.split(":", 2)
    return Message(kind, Lane(lane) if lane else None, name)
