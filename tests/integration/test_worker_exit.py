"""How a worker process ends tells its supervisor whether it was asked to; and what does not end it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from infra.local.ports import free_port
from infra.local.valkey import Valkey
from tests.integration.programs import ended, start


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[str, Redis]]:
    """A Valkey of its own: what is done to it concerns nobody else."""
    with Valkey(tmp_path / "valkey") as server:
        redis = Redis.from_url(server.url, decode_responses=True)
        yield server.url, redis
        await redis.aclose()


async def _consuming(url: str, redis: Redis) -> Process:
    """A worker that takes messages, while fal and S3 are not there; it is to create the bucket once it can."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    environment = {
        "FAL_KEY": "made:up",
        "DARKROOM_REDIS_URL": url,
        "DARKROOM_FAL_QUEUE_URL": nowhere,
        "DARKROOM_FAL_API_URL": nowhere,
        "DARKROOM_S3_ENDPOINT_URL": nowhere,
        "DARKROOM_S3_CREATE_BUCKET": "1",
    }
    worker = await start("darkroom-worker", environment=environment)
    async with asyncio.timeout(60):
        while not any(client["cmd"] == "brpop" for client in await redis.client_list()):
            assert worker.returncode is None, "it ended before it consumed"
            await asyncio.sleep(0.05)
    return worker


async def test_a_worker_works_while_s3_is_away_and_ends_with_0_when_asked_to(store: tuple[str, Redis]) -> None:
    worker = await _consuming(*store)
    worker.send_signal(signal.SIGTERM)
    assert (await ended(worker)).status == 0


async def test_a_worker_whose_consumer_broke_does_not_look_as_if_it_had_been_asked(store: tuple[str, Redis]) -> None:
    url, redis = store
    worker = await _consuming(url, redis)
    # An answer that Celery does not know how to live with; what it knows, such as a lost connection, it waits out.
    await redis.execute_command("ACL", "SETUSER", "default", "-brpop")  # type: ignore[no-untyped-call]
    result = await ended(worker)
    assert result.status == 1
    assert "ended by itself" in result.err
