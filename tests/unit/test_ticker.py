"""The loops that are nobody's job: they outlive every fault, and the bucket's silence counts as its absence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from darkroom.domain.errors import BlockedError, UnavailableError
from darkroom.ports import Limits, Message
from tests.unit.stand_ins import Answers, FakeBucket, FakeSchedule, FakeTransitions, play
from worker.ticker import Ticker


class NoBroker:
    """Implements `ports.Publisher`."""

    async def publish(self, messages: Sequence[Message]) -> None:
        raise AssertionError(f"there is nothing to publish, certainly not {messages}")


class TroubledSchedule(FakeSchedule):
    """Its clock ticks as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = Answers([])
        self.ticked = 0

    async def tick(self) -> list[str]:
        self.ticked += 1
        due: list[str] = await self.ticks.next()
        return due


class Looker:
    """A reconciler that fails in every way."""

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.answers = Answers(UnavailableError("away"), ZeroDivisionError("a bug"), None)

    async def look(self, job_id: str) -> None:
        self.looked.append(job_id)
        await self.answers.next()


class NoBatches:
    """There are none."""

    async def sweep(self, retention_days: int) -> None:
        assert retention_days == 30


class Room:
    def __init__(self) -> None:
        self.schedule, self.records, self.bucket, self.looker = (
            TroubledSchedule(),
            FakeTransitions(),
            FakeBucket(),
            Looker(),
        )
        self.ticker = Ticker(
            worker_id="w",
            schedule=self.schedule,
            transitions=self.records,
            reconciler=self.looker,  # type: ignore[arg-type]
            batches=NoBatches(),  # type: ignore[arg-type]
            ensure_storage=self.bucket.check,
            publisher=NoBroker(),
            remove=lambda _: asyncio.sleep(0),
            limits=Limits(4, 0, 64, 0),
            lease_seconds=30,
            retention_days=30,
        )

    def run(self, seconds: float) -> None:
        async def story() -> None:
            running = asyncio.create_task(self.ticker.run())
            await asyncio.sleep(seconds)
            assert not running.done()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await asyncio.sleep(1)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is left behind"

        play(story())


@pytest.fixture
def room() -> Room:
    return Room()


def test_faults_end_no_loop(room: Room) -> None:
    room.schedule.ticks = Answers(UnavailableError("away"), ZeroDivisionError("a bug"), [])
    room.run(10)
    assert room.schedule.ticked > 10


def test_what_is_due_is_done_and_a_look_that_fails_ends_nothing(room: Room) -> None:
    room.schedule.ticks = Answers(["reconcile:a", "deadline:d", "reconcile:b", "reconcile:c"], [])
    room.run(1)
    assert room.looker.looked == ["a", "b", "c"]
    assert room.records.did == [("expire", "d")]


def test_the_bucket_is_asked_again_and_again(room: Room) -> None:
    room.bucket.puts = Answers(None, BlockedError("gone", code="s3_bucket_missing"), None)
    room.run(14)
    assert [fault for _, fault in room.schedule.did] == [None, "s3_bucket_missing", None]


def test_a_bucket_that_hangs_is_away_all_the_time_and_asked_once(room: Room) -> None:
    """The gate holds for 20 seconds: whoever waited for S3's own timeouts would leave it open in between."""
    asked = 0

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(90)

    room.bucket.puts = Answers(hang)
    room.run(84)
    assert [fault for _, fault in room.schedule.did] == ["s3_unavailable"] * 8
    assert asked == 1


def test_a_bucket_that_answers_at_last_is_there(room: Room) -> None:
    room.bucket.puts = Answers(lambda: asyncio.sleep(32), None)
    room.run(36)
    assert [fault for _, fault in room.schedule.did] == ["s3_unavailable"] * 3 + [None]
