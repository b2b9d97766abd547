"""How often an account may ask, counted for all API processes together."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import run


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left for an account. Seconds until one more may come, and until all of the burst may."""

    allowed: bool
    remaining: int
    retry_after: float
    reset: float


class RedisAccountRate:
    """One event every `interval_ms`, and up to `burst` of them at once after a quiet time (GCRA)."""

    def __init__(self, redis: Redis, *, interval_ms: float, burst: int) -> None:
        self._redis = redis
        self._interval_ms = interval_ms
        self.burst = burst

    @property
    def window(self) -> float:
        """The seconds in which a burst is allowed again."""
        return self._interval_ms * self.burst / 1000

    async def take(self, account_id: str) -> Allowance:
        """Count one event, where it is allowed. Raises UnavailableError."""
        answer = await run(self._redis, "account_rate", account_id, self._interval_ms, self.burst)
        allowed, remaining, retry_ms, reset_ms = (int(value) for value in answer)
        return Allowance(bool(allowed), remaining, retry_ms / 1000, reset_ms / 1000)
