"""One scenario at work: what its disturbances may lay hands on, and when it is over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from tests.chaos.stack import ChaosStack
from tests.chaos.watch import Watch

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """Disturbances are coroutines that take one of these; they end, and mend what they broke, once it is `over`."""

    stack: ChaosStack
    watch: Watch
    dice: random.Random
    simulator: aiohttp.ClientSession
    jobs: int
    batches: int = 0
    notes: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)

    async def pause(self, seconds: float) -> bool:
        """Wait so long. True: go on; False: the run is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()
        return not self.over.is_set()

    async def progress(self, share: float) -> bool:
        """Wait until that share of the jobs has ended or is held. True: go on; False: the run is over."""
        while self.watch.ended + self.watch.held < share * self.jobs:
            if not await self.pause(0.1):
                return False
        return True

    @property
    def settled(self) -> bool:
        """Whether every job has ended or is held, and every batch has ended."""
        return self.watch.ended + self.watch.held >= self.jobs and self.watch.batches >= self.batches

    async def do(self, step: Callable[[], T]) -> T:
        """A step that blocks, such as killing a process, in a thread."""
        return await asyncio.to_thread(step)

    def note(self, text: str) -> None:
        """Remember what was done when, for whoever has to understand this run."""
        self.notes.append(f"{time.monotonic() - self.began:7.2f}  {text}")

    async def arm(self, name: str, rate: float, **args: Any) -> None:  # noqa: ANN401 - JSON, as the fault has it
        """Arm one of the simulator's faults; a rate of 0 disarms it."""
        async with self.simulator.post("/_sim/faults", json={"name": name, "rate": rate, "args": args}) as answer:
            answer.raise_for_status()

    async def calm(self) -> None:
        """Disarm every fault: who audits must not be lied to."""
        async with self.simulator.delete("/_sim/faults") as answer:
            answer.raise_for_status()


Disturbance = Callable[[Run], Awaitable[None]]
