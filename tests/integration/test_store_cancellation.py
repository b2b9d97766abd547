"""Whoever is cancelled while the store answers is cancelled: a worker that is asked to stop has loops that ask."""

from __future__ import annotations

import asyncio
import random

import pytest
from redis.asyncio import Redis

from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.scripts import ask
from darkroom.domain.errors import UnavailableError
from tests.unit.stand_ins import play

LOOPS = 20
ROUNDS = 15


async def test_loops_that_ask_the_store_end_when_they_are_cancelled(redis: Redis) -> None:
    schedule = RedisSchedule(redis)

    async def ask_for_ever() -> None:
        while True:
            await schedule.now()

    dice = random.Random(1)
    for _ in range(ROUNDS):
        loops = [asyncio.create_task(ask_for_ever()) for _ in range(LOOPS)]
        await schedule.now()
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)  # anywhere in the middle of a question
        for loop in loops:
            loop.cancel()
        _, deaf = await asyncio.wait(loops, timeout=5)
        for loop in deaf:
            loop.cancel()
        assert not deaf, f"{len(deaf)} of {LOOPS} loops go on as if nothing had been said"


async def test_a_cancellation_that_the_answer_swallowed_counts() -> None:
    asked = asyncio.Event()

    async def forgetful() -> str:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "an answer all the same"
        return "never"

    task = asyncio.create_task(ask(forgetful()))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_was_cancelled_before_may_still_write(redis: Redis) -> None:
    """Giving a job back happens after the cancellation, in the same task."""
    gave_back: list[bool] = []
    waiting = asyncio.Event()

    async def work() -> None:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            gave_back.append(bool(await ask(redis.set("given", "back"))))
            raise

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gave_back == [True]


async def test_a_timeout_around_a_question_is_a_timeout(redis: Redis) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ask(redis.blpop(["nothing"], timeout=5))


def test_a_store_that_says_nothing_is_away() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        play(ask(asyncio.Event().wait()))
