"""What the Redis server itself says: whether it answers, how full it is, what it would lose in a crash."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from darkroom.adapters.redis.scripts import ask
from darkroom.domain.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server as an operator should know it. A setting is None where it cannot be known (CONFIG blocked)."""

    software: str
    version: str
    cluster: bool
    role: str
    replicas: int
    append_only: bool | None
    append_fsync: str | None
    eviction: str | None
    max_memory: int
    used_memory: int

    def dangers(self) -> list[str]:
        """What a crash would lose or what would go wrong, in words for an operator."""
        found = []
        if self.append_only is False:
            found.append("appendonly is off: a crash loses everything since its last snapshot, accepted jobs included")
        elif self.append_fsync not in {None, "always"}:
            found.append(f"appendfsync is {self.append_fsync}: a crash of the machine loses the last second or more")
        if self.eviction not in {None, "noeviction"}:
            found.append(f"maxmemory-policy is {self.eviction}: a full server throws records away (use noeviction)")
        if self.role == "slave":
            found.append("it is a replica: nothing can be written to it")
        return found

    def unknowns(self) -> list[str]:
        """What a crash may lose, where that cannot be known."""
        if self.append_only is None:
            return ["whether it writes an append-only file cannot be known (INFO does not say)"]
        if self.append_only and self.append_fsync is None:
            return ["appendfsync cannot be known (CONFIG blocked): a crash of the machine may lose the last second"]
        return []


class RedisServer:
    """Questions to the server, not to the records."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def ping(self, seconds: float) -> None:
        """Return when it answers within that time. Raises UnavailableError."""
        try:
            async with asyncio.timeout(seconds):
                await ask(self._redis.ping())
        except TimeoutError:
            raise UnavailableError("the store of records does not answer") from None

    async def fullness(self) -> float:
        """Used memory as a share of maxmemory; 0 where none is set. Raises UnavailableError."""
        memory = await ask(self._redis.info("memory"))
        limit = int(memory.get("maxmemory", 0))
        return int(memory["used_memory"]) / limit if limit else 0.0

    async def facts(self) -> ServerFacts:
        """Everything at once. Raises UnavailableError."""
        info: dict[str, Any] = await ask(self._redis.info())
        append_fsync = await self._setting("appendfsync")
        return ServerFacts(
            software="Valkey" if "valkey_version" in info else "Redis",
            version=str(info.get("valkey_version", info.get("redis_version", "?"))),
            cluster=bool(int(info.get("cluster_enabled", 0))),
            role=str(info.get("role", "?")),
            replicas=int(info.get("connected_slaves", 0)),
            append_only=bool(int(info["aof_enabled"])) if "aof_enabled" in info else None,
            append_fsync=append_fsync,
            eviction=info.get("maxmemory_policy"),
            max_memory=int(info.get("maxmemory", 0)),
            used_memory=int(info.get("used_memory", 0)),
        )

    async def workers(self) -> dict[str, float]:
        """Workers seen within the last hour, and how many seconds ago. Raises UnavailableError."""
        seconds, micros = await ask(self._redis.time())
        now_ms = seconds * 1000 + micros // 1000
        rows = await ask(self._redis.zrange("dr:workers", 0, -1, withscores=True))
        return {name: max(0.0, (now_ms - at) / 1000) for name, at in rows}

    async def _setting(self, name: str) -> str | None:
        """A line of the server's configuration; managed servers do not show it."""
        try:
            return str((await ask(self._redis.config_get(name)))[name])
        except (RedisError, KeyError):
            return None
