"""The deployment's secret: what signs callback tokens and cursors, the same for the API and all workers."""

from __future__ import annotations

import secrets

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import ask

_KEY = "dr:secret"


async def shared_secret(redis: Redis, configured: str | None) -> bytes:
    """The configured secret, or one that is made on the first start and kept in Redis. Raises UnavailableError."""
    if configured is not None:
        return configured.encode()
    await ask(redis.set(_KEY, secrets.token_urlsafe(32), nx=True))
    kept: str = await ask(redis.get(_KEY))
    return kept.encode()
