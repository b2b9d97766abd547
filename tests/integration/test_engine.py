"""The engine on a real store: leases kept and lost, wishes heeded, jobs given back; fal, media and bucket stand in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from darkroom.adapters.redis.accounts import RedisAccounts
from darkroom.adapters.redis.deliveries import RedisDeliveries
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.domain.errors import ResultGoneError, TransientError
from darkroom.domain.generation import GenerationFailed, InProgress
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import JobStatus, Stage, SubmissionStatus
from darkroom.domain.representation import represent_event
from darkroom.ports import AttemptReport, Source, Wish
from darkroom.ports import Hold as HoldState
from darkroom.service.copy_artifacts import ArtifactCopier
from darkroom.service.deliver import Deliverer
from darkroom.service.run_job import JobRunner, Terms
from tests.integration.store_kit import LEASE_SECONDS, Kit
from tests.integration.store_view import travel
from tests.unit.stand_ins import (
    REF,
    Answers,
    FakeBucket,
    FakeGenerator,
    FakeMedia,
    FakeSchedule,
    FakeThumbnails,
    FakeTransitions,
)
from worker.engine import Engine

PRICE = Decimal("0.008")


class NoReceiver:
    """A webhook sender for tests that owe no webhook."""

    async def send(self, *_: object, **__: object) -> AttemptReport:
        raise AssertionError("nothing is owed to anybody")


class Room:
    """An engine, and the store it works on."""

    def __init__(self, redis: Redis, *, concurrency: int = 8, transitions: RedisTransitions | None = None) -> None:
        self.kit = Kit(redis)
        self.store = transitions or self.kit.store
        self.fal = FakeGenerator()
        copier = ArtifactCopier(
            transitions=self.store,
            schedule=self.kit.schedule,
            media=FakeMedia(),
            thumbnails=FakeThumbnails(),
            store=FakeBucket(),
            prefix="",
            price_per_megapixel=PRICE,
        )
        terms = Terms(600, 10, PRICE, lambda _: None)
        self.engine = Engine(
            runner=JobRunner(
                transitions=self.store, schedule=self.kit.schedule, generator=self.fal, copier=copier, terms=terms
            ),
            deliverer=Deliverer(
                deliveries=RedisDeliveries(redis),
                accounts=RedisAccounts(redis),
                sender=NoReceiver(),
                represent=lambda event: represent_event(event, bucket="b", presign=FakeBucket().presign),
                schedule=(),
                timeout=1,
            ),
            transitions=self.store,
            schedule=self.kit.schedule,
            concurrency=concurrency,
            lease_seconds=1,  # beats three times a second; the store's leases are longer
        )

    async def job(self, **fields: Any) -> str:  # noqa: ANN401 - NewJob's own
        """A job that is dispatched."""
        await self.kit.limit(4)
        job_id = await self.kit.create(**fields)
        await self.kit.schedule.dispatch()
        return job_id

    async def until(self, job_id: str, holds: Callable[[Job], bool]) -> Job:
        async with asyncio.timeout(20):
            while not holds(job := await self.kit.get(job_id)):  # noqa: ASYNC110 - the store sets no event of ours
                await asyncio.sleep(0.01)
        return job

    async def until_idle(self) -> None:
        async def idle() -> bool:
            return self.engine.running == 0

        await until(idle)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - what other tasks do sets no event of ours
            await asyncio.sleep(0.01)


@asynccontextmanager
async def going(*loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(loop()) for loop in loops]
    try:
        yield
        assert not any(task.done() for task in tasks), "a loop that goes on for ever ended"
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def held_back() -> tuple[asyncio.Event, Callable[[], Awaitable[object]]]:
    """An answer of fal's that comes when the event is set."""
    event = asyncio.Event()

    async def answer() -> object:
        await event.wait()
        return REF

    return event, answer


@pytest.fixture
async def room(redis: Redis) -> AsyncIterator[Room]:
    room = Room(redis)
    yield room
    await room.engine.drain(5)


async def test_a_message_becomes_a_picture(room: Room) -> None:
    job_id = await room.job()
    await room.engine.take_job(job_id)
    job = await room.until(job_id, lambda job: job.status is JobStatus.SUCCEEDED)
    assert len(job.artifacts) == 1
    await room.until_idle()
    assert room.engine.has_room


async def test_a_stale_message_takes_no_room(redis: Redis) -> None:
    room = Room(redis, concurrency=1)
    await room.engine.take_job("job_unknown")
    assert room.engine.has_room
    job_id = await room.job()
    await room.engine.take_job(job_id)
    await room.engine.take_job(job_id)
    await room.until(job_id, lambda job: job.status is JobStatus.SUCCEEDED)


async def test_a_full_engine_takes_nothing_until_there_is_room(redis: Redis) -> None:
    room = Room(redis, concurrency=1)
    reply, answer = held_back()
    room.fal.submits = Answers(answer, REF)
    first, second = await room.job(), await room.job()
    await room.engine.take_job(first)
    waiting = asyncio.create_task(room.engine.take_job(second))
    await room.until(first, lambda job: job.submission is not None)
    assert not waiting.done()
    assert not room.engine.has_room
    reply.set()
    await waiting
    await room.until(second, lambda job: job.status.value in {"running", "succeeded"})
    await room.engine.drain(5)


async def test_a_full_engine_that_stops_lets_its_waiters_go(redis: Redis) -> None:
    room = Room(redis, concurrency=1)
    reply, answer = held_back()
    room.fal.submits = Answers(answer)
    first, second = await room.job(), await room.job()
    await room.engine.take_job(first)
    waiting = asyncio.create_task(room.engine.take_job(second))
    await room.until(first, lambda job: job.submission is not None)
    draining = asyncio.create_task(room.engine.drain(5))
    await waiting
    reply.set()
    await draining
    assert (await room.kit.get(second)).status is JobStatus.QUEUED
    assert (await room.kit.get(second)).submissions == ()


async def test_leases_are_kept_while_jobs_are_held(room: Room, redis: Redis) -> None:
    room.fal.statuses = Answers(InProgress())
    job_id = await room.job()
    await room.engine.take_job(job_id)
    await travel(redis, LEASE_SECONDS - 1)
    (before,) = [expiry for _, _, expiry in await room.kit.schedule.leases()]
    async with going(room.engine.keep_leases):

        async def renewed() -> bool:
            return (await room.kit.schedule.leases())[0][2] > before + 1000

        await until(renewed)


async def test_a_job_that_was_taken_away_is_let_go(room: Room, redis: Redis) -> None:
    room.fal.statuses = Answers(InProgress())
    job_id = await room.job()
    await room.engine.take_job(job_id)
    job = await room.until(job_id, lambda job: job.stage is Stage.GENERATING)
    await travel(redis, LEASE_SECONDS + 1)
    assert await room.kit.store.rescue(job_id, job.lease or "")
    async with going(room.engine.keep_leases):
        await room.until_idle()
    assert (await room.kit.get(job_id)).status is JobStatus.QUEUED


async def test_a_job_that_comes_back_while_its_former_hold_still_saves_keeps_its_new_lease(
    room: Room, redis: Redis
) -> None:
    reply, answer = held_back()
    room.fal.submits = Answers(answer)
    room.fal.statuses = Answers(InProgress())
    job_id = await room.job()
    await room.engine.take_job(job_id)
    job = await room.until(job_id, lambda job: job.submission is not None)
    assert job.submission is not None
    await travel(redis, LEASE_SECONDS + 1)
    assert await room.kit.store.rescue(job_id, job.lease or "")
    # fal's callback settles the doubt: the job is dispatched again, and this very worker claims it.
    await room.kit.store.accept_submission(job.submission.id, REF, Source.CALLBACK)
    await room.engine.take_job(job_id)
    again = await room.until(job_id, lambda job: job.status is JobStatus.RUNNING)
    assert room.engine.running == 2
    async with going(room.engine.keep_leases):
        reply.set()

        async def one_left() -> bool:
            return room.engine.running == 1

        await until(one_left)
        before = (await room.kit.schedule.leases())[0][2]

        async def renewed() -> bool:
            return (await room.kit.schedule.leases())[0][2] > before

        await until(renewed)
        assert (await room.kit.get(job_id)).lease == again.lease
    assert room.fal.did.count("submit") == 1


async def test_a_wish_is_heeded_at_once(room: Room, redis: Redis) -> None:
    room.fal.statuses = Answers(InProgress())
    room.fal.results = Answers(GenerationFailed(TransientError("stopped"), None))
    async with going(room.engine.heed_wishes):
        job_id = await room.job()
        await room.engine.take_job(job_id)
        await room.until(job_id, lambda job: job.stage is Stage.GENERATING)

        async def listening() -> bool:
            return bool(await redis.pubsub_numsub("dr:wake") == [("dr:wake", 1)])

        async def told() -> bool:
            return "cancel" in room.fal.did

        await until(listening)
        await room.kit.jobs.cancel(job_id)
        await until(told)


async def test_what_is_given_back_is_resumed_not_submitted_again(room: Room) -> None:
    room.fal.statuses = Answers(InProgress())
    job_id = await room.job()
    await room.engine.take_job(job_id)
    await room.until(job_id, lambda job: job.stage is Stage.GENERATING)
    await room.engine.drain(5)
    job = await room.kit.get(job_id)
    assert (job.status, job.lease) == (JobStatus.QUEUED, None)
    assert job.submission is not None
    assert job.submission.status is SubmissionStatus.ACCEPTED


def saving(room: Room) -> bool:
    return room.engine.saving


async def test_a_reply_that_comes_after_the_grace_is_saved_and_the_job_given_back(room: Room) -> None:
    reply, answer = held_back()
    room.fal.submits = Answers(answer)
    job_id = await room.job()
    await room.engine.take_job(job_id)
    await room.until(job_id, lambda job: job.submission is not None)
    draining = asyncio.create_task(room.engine.drain(0.05))
    _, pending = await asyncio.wait({draining}, timeout=0.5)
    assert pending
    assert saving(room)
    reply.set()
    await draining
    assert not saving(room)
    job = await room.kit.get(job_id)
    assert job.submission is not None
    assert (job.status, job.submission.ref) == (JobStatus.QUEUED, REF)


class HesitantClaims(RedisTransitions):
    """The store has given the lease, and its answer takes its time."""

    claimed: asyncio.Event
    answer: asyncio.Event

    async def claim(self, job_id: str, lease: str) -> Job | None:
        job = await super().claim(job_id, lease)
        self.claimed.set()
        await self.answer.wait()
        return job


async def test_a_claim_under_way_when_the_engine_stops_is_given_back(redis: Redis) -> None:
    store = HesitantClaims(redis, lease_seconds=LEASE_SECONDS, unknown_seconds=100, max_attempts=2)
    store.claimed, store.answer = asyncio.Event(), asyncio.Event()
    room = Room(redis, transitions=store)
    job_id = await room.job()
    taking = asyncio.create_task(room.engine.take_job(job_id))
    await store.claimed.wait()
    draining = asyncio.create_task(room.engine.drain(5))
    await asyncio.sleep(0)
    store.answer.set()
    await draining
    await taking
    job = await room.kit.get(job_id)
    assert (job.status, job.lease) == (JobStatus.QUEUED, None)
    assert room.fal.did == []
    assert room.engine.running == 0


async def test_a_fault_nobody_thought_of_leaves_the_job_to_the_rescue_and_the_engine_going(room: Room) -> None:
    room.fal.submits = Answers(ZeroDivisionError("a bug"))
    job_id = await room.job()
    await room.engine.take_job(job_id)
    await room.until_idle()
    job = await room.kit.get(job_id)
    assert (job.status, job.lease is not None) == (JobStatus.RUNNING, True)
    assert room.engine.has_room


async def test_heartbeats_and_wishes_outlive_any_fault() -> None:
    """Their loops end a worker when they end."""
    beats = FakeTransitions()
    beats.heartbeats = Answers(ZeroDivisionError("a bug"), HoldState.HELD)
    wishes = Wishes()
    engine = Engine(
        runner=None,  # type: ignore[arg-type]
        deliverer=None,  # type: ignore[arg-type]
        transitions=beats,
        schedule=wishes,
        concurrency=1,
        lease_seconds=0,
    )
    engine._beat = broken  # type: ignore[method-assign, assignment]
    async with going(engine.keep_leases, engine.heed_wishes):

        async def asked_again() -> bool:
            return wishes.asked >= 2

        await until(asked_again)


async def broken(_: object) -> None:
    raise ZeroDivisionError("a bug")


class Wishes(FakeSchedule):
    """A subscription that breaks in an unforeseen way."""

    asked = 0

    @asynccontextmanager
    async def wishes(self) -> AsyncIterator[AsyncIterator[Wish]]:
        self.asked += 1
        yield _breaking()


async def _breaking() -> AsyncIterator[Wish]:
    yield Wish("job_unknown", cancel=True)
    raise RuntimeError("a bug of the client's")


async def test_a_result_that_an_earlier_hold_found_lost_ends_the_job(room: Room) -> None:
    job_id = await room.job()
    worked = await room.kit.accepted(job_id)
    await room.kit.store.finish_submission(worked.submission, ResultGoneError("fal no longer has it"), None)
    assert await room.kit.store.snooze(job_id, worked.lease)
    await room.kit.schedule.dispatch()
    await room.engine.take_job(job_id)
    job = await room.until(job_id, lambda job: job.status is JobStatus.FAILED)
    assert job.error is not None
    assert (job.error["code"], job.error["message"]) == ("result_lost", "fal no longer has it")
    assert room.fal.did == []
