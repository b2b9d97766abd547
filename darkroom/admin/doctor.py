"""`darkroom-admin doctor`: whether this deployment can keep its promises, line by line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis

from darkroom.adapters.redis.operator import RedisOperator
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.server import RedisServer
from darkroom.adapters.s3 import S3Bucket
from darkroom.domain.errors import DarkroomError, UnavailableError
from darkroom.settings import CommonSettings

_SEEN_SECONDS = 60.0


class Verdict(StrEnum):
    """What a line says."""

    OK = "ok"
    NOTE = "note"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    verdict: Verdict
    text: str


async def examine(redis: Redis, settings: CommonSettings) -> AsyncIterator[Finding]:
    """Look at everything that can be looked at from here. Never raises for what it finds."""
    try:
        async for finding in _store(redis):
            yield finding
    except UnavailableError:
        yield Finding(Verdict.BAD, "Redis: not reachable at DARKROOM_REDIS_URL")
    yield await _bucket(settings)


async def _store(redis: Redis) -> AsyncIterator[Finding]:
    server = RedisServer(redis)
    facts = await server.facts()
    yield Finding(Verdict.OK, f"Redis: {facts.software} {facts.version}, {facts.role}, {facts.replicas} replica(s)")
    if facts.cluster:
        yield Finding(Verdict.BAD, "Redis: this is a Redis Cluster; Darkroom's scripts need one server")
    for danger in facts.dangers():
        yield Finding(Verdict.BAD, f"Redis: {danger}")
    for unknown in facts.unknowns():
        yield Finding(Verdict.NOTE, f"Redis: {unknown}")
    if not facts.dangers() and not facts.unknowns():
        yield Finding(Verdict.OK, "Redis: appendonly yes, appendfsync always, noeviction: nothing acknowledged is lost")
    limit = f"of {facts.max_memory / 2**20:.0f} MiB" if facts.max_memory else "(no maxmemory)"
    yield Finding(Verdict.OK, f"Redis: {facts.used_memory / 2**20:.0f} MiB {limit} in use")
    yield await _workers(server)
    operator = RedisOperator(redis)
    for who, why in (await RedisSchedule(redis).gates()).items():
        yield Finding(Verdict.BAD, f"{who}: submissions are stopped: {why}")
    if held := await operator.held():
        yield Finding(Verdict.NOTE, f"{len(held)} job(s) held: see `darkroom-admin held ls`")
    if doubles := await operator.double_charges():
        yield Finding(Verdict.NOTE, f"{doubles} second or late charge(s) on record")


async def _workers(server: RedisServer) -> Finding:
    seen = [seconds for seconds in (await server.workers()).values() if seconds <= _SEEN_SECONDS]
    if seen:
        return Finding(Verdict.OK, f"workers: {len(seen)} seen within the last minute")
    return Finding(Verdict.BAD, "workers: none seen within the last minute")


async def _bucket(settings: CommonSettings) -> Finding:
    bucket = S3Bucket(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        url_expires_seconds=settings.s3_url_expires_seconds,
        max_threads=1,
    )
    try:
        await bucket.check()
    except DarkroomError as fault:
        return Finding(Verdict.BAD, f"bucket {settings.s3_bucket}: {fault.message}")
    finally:
        await bucket.close()
    return Finding(Verdict.OK, f"bucket {settings.s3_bucket}: readable (writing shows with the first picture)")
