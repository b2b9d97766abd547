"""How this program connects to Redis."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff


def connect(url: str, *, connections: int = 64) -> Redis:
    """A client whose pool waits for a free connection instead of raising, and repeats what a broken connection cut off.

    Repeating is safe: every script may be repeated. Three repeats over about a second; then, or when `scripts.ask` has
    waited long enough, it is UnavailableError at the caller. redis-py's own time limit for an answer stays off: it
    would make a task of every command that is sent. Close with `aclose()`.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=20,
        decode_responses=True,
        socket_connect_timeout=5,
        socket_timeout=None,
        retry=Retry(ExponentialBackoff(cap=1, base=0.1), retries=3),
        health_check_interval=15,
    )
    return Redis.from_pool(pool)
