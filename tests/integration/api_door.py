"""The API under test on a real Valkey: in process, or behind a real server; and a worker's hand to move jobs with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from api.app import create_app
from api.compose import Services, compose
from api.problems import KINDS
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.domain.adopted import adopted_reference
from darkroom.domain.generation import Generated
from darkroom.domain.ids import new_id
from darkroom.domain.job import Artifact, Job
from darkroom.domain.krea import MODEL
from darkroom.domain.lifecycle import JobEvent
from darkroom.ports import Limits, Source
from darkroom.settings import ApiSettings

KEY = "a-key-that-exists-from-the-start"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
PROMPT = {"input": {"prompt": "a vintage travel poster for Mars"}}
NOBODY = "http://127.0.0.1:9"


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as it holds. What others do in their own time sets no event of ours."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Door:
    """The composed API and a client that has the bootstrap key."""

    services: Services
    client: httpx.AsyncClient

    async def create(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON there is
        answer = await self.client.post("/v1/jobs", json={**PROMPT, **more})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job


@asynccontextmanager
async def composed(url: str, **settings: Any) -> AsyncIterator[Services]:  # noqa: ANN401 - the settings' own
    values = {"s3_endpoint_url": NOBODY, "bootstrap_api_key": KEY, "webhook_allow_http": True, **settings}
    access = {name: values.pop(name, "made-up") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in access.items():
            environment.setenv(name, value)
        async with compose(ApiSettings(redis_url=url, **values)) as services:
            yield services


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Door]:  # noqa: ANN401 - the settings' own
    """In process: fast, and a fault in the application is a 500 as it would be outside."""
    async with composed(url, **settings) as services:
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://door", headers=AUTHORIZED) as client:
            yield Door(services, client)


class QuietServer(uvicorn.Server):
    """As in api/main.py: signals are not its business."""

    @property
    def url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"


@asynccontextmanager
async def served(url: str, **settings: Any) -> AsyncIterator[Door]:  # noqa: ANN401 - the settings' own
    """Behind a real server on a free port."""
    async with composed(url, **settings) as services:
        config = uvicorn.Config(create_app(services), port=0, log_config=None, access_log=False, lifespan="off")
        server = QuietServer(config)
        running = asyncio.create_task(server._serve())

        async def started() -> bool:
            return server.started

        await until(started)
        async with httpx.AsyncClient(base_url=server.url, headers=AUTHORIZED, timeout=30) as client:
            yield Door(services, client)
        services.watch.close()
        server.should_exit = True
        await running


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == f"/problems/{code}"
    assert problem["title"] == KINDS[code].title
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    return problem


async def somebody_waits(redis: Redis, job_id: str) -> None:
    """Return when a caller listens for the job's changes."""
    channel = f"dr:changed:{job_id}"

    async def listening() -> bool:
        return bool(await redis.pubsub_numsub(channel) == [(channel, 1)])

    await until(listening)


class Hand:
    """What a worker does to the records, step by step."""

    def __init__(self, redis: Redis, *, permits: int = 8) -> None:
        self.schedule = RedisSchedule(redis)
        self.transitions = RedisTransitions(redis, lease_seconds=30, unknown_seconds=720, max_attempts=5)
        self._permits = permits

    async def claim(self, job_id: str) -> Job:
        await self.schedule.announce_limits(Limits(permits=self._permits, reserve=0, copying=64, rate_interval=0))
        await self.schedule.dispatch()
        job = await self.transitions.claim(job_id, new_id("lease"))
        assert job is not None
        return job

    async def submit(self, job: Job) -> str:
        submission_id = new_id("sub")
        assert await self.transitions.open_submission(job, submission_id) == "opened"
        return submission_id

    async def accept(self, submission_id: str) -> str:
        request_id = new_id("req")
        reference = adopted_reference("https://queue.fal.run", MODEL, request_id)
        assert await self.transitions.accept_submission(submission_id, reference, Source.REPLY) == "accepted"
        return request_id

    async def complete(self, job_id: str, *, key: str = "renders/0.png") -> Job:
        """The whole story, with one picture said to lie at that key."""
        job = await self.claim(job_id)
        submission_id = await self.submit(job)
        await self.accept(submission_id)
        units = Decimal("1.048576")
        verdict = Generated(media=(), seed=7, has_nsfw_concepts=(False,), billable_units=units)
        await self.transitions.finish_submission(submission_id, verdict, units * Decimal("0.008"))
        picture = Artifact(0, key, "image/png", 1024, 1024, 4, "00" * 32, 7, has_nsfw_concepts=False, blank=False)
        assert await self.transitions.keep_artifact(job.id, job.lease or "", picture)
        assert await self.transitions.finish(job.id, job.lease or "", JobEvent.COMPLETED)
        return job
