"""What happens to a run, and when: seeded, so that the same seed deals the same blows in the same order.

Blows are dealt as the jobs get along (a share of them has ended) or every few seconds while any is left, never at a
fixed second: a faster machine meets as many of them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import cycle

from darkroom.adapters.redis.scripts import ask
from darkroom.domain.errors import DarkroomError
from infra.local.program import Program
from infra.local.services import Worker
from tests.chaos.run import Disturbance, Run


def kill_workers(*, every: tuple[float, float] = (2.0, 5.0)) -> Disturbance:
    """Kill -9 one worker after the other; each is started again half a second to a second and a half later."""

    async def disturb(run: Run) -> None:
        while await run.pause(run.dice.uniform(*every)):
            worker = run.dice.choice(run.stack.workers)
            run.note(f"kill -9 {worker.name}")
            run.watch.blows.append(time.monotonic())
            await run.do(worker.kill)
            await run.pause(run.dice.uniform(0.5, 1.5))
            await _start(run, worker)

    return disturb


def kill_a_worker_while_rendering() -> Disturbance:
    """Kill -9 one worker as soon as fal renders for it, and start it again."""

    async def disturb(run: Run) -> None:
        while not await run.watch.redis.zcard("dr:leases"):
            await run.pause(0.1)
        await run.pause(run.stack.times.mean_run / 4)
        worker = run.dice.choice(run.stack.workers)
        run.note(f"kill -9 {worker.name}")
        run.watch.blows.append(time.monotonic())
        await run.do(worker.kill)
        await _start(run, worker)

    return disturb


def kill_valkey(*, times: int = 3) -> Disturbance:
    """Kill -9 Valkey so many times, spread over the run, and start it again a moment later."""

    async def disturb(run: Run) -> None:
        for number in range(times):
            share = (number + run.dice.uniform(0.3, 0.9)) / (times + 0.5)
            if not await run.progress(share):
                return
            run.note("kill -9 valkey")
            await run.do(run.stack.valkey.kill)
            await run.pause(run.dice.uniform(0.1, 1.0))
            await run.do(run.stack.valkey.restart)
            run.note("valkey is back")

    return disturb


def kill_api(*, every: tuple[float, float] = (1.0, 2.0)) -> Disturbance:
    """Kill -9 the API again and again, first of all while jobs are being accepted."""

    async def disturb(run: Run) -> None:
        while await run.pause(run.dice.uniform(*every)):
            run.note("kill -9 api")
            await run.do(run.stack.api.kill)
            await run.do(run.stack.api.restart)

    return disturb


def lose_s3(*, at: float = 0.3, seconds: float = 20.0) -> Disturbance:
    """Kill -9 S3 and leave it away for so long."""

    async def disturb(run: Run) -> None:
        if not await run.progress(at):
            return
        run.note("kill -9 seaweedfs")
        await run.do(run.stack.s3.kill)
        await run.pause(seconds)
        await run.do(run.stack.s3.restart)
        run.note("seaweedfs is back")

    return disturb


def stall_s3(*, at: float, seconds: float) -> Disturbance:
    """SIGSTOP S3: connections are taken, and nothing is answered for so long."""

    async def disturb(run: Run) -> None:
        if await run.progress(at):
            await _freeze(run, run.stack.s3, seconds)

    return disturb


def slow_s3(*, at: float, seconds: float) -> Disturbance:
    """S3 stands still four fifths of the time."""

    async def disturb(run: Run) -> None:
        if not await run.progress(at):
            return
        run.note("seaweedfs is slow")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            run.stack.s3.freeze()
            await run.pause(0.4)
            run.stack.s3.thaw()
            if not await run.pause(0.1):
                return
        run.note("seaweedfs is fast again")

    return disturb


def freeze_workers(*, leases: float = 2.5) -> Disturbance:
    """SIGSTOP one worker after the other, each for longer than its leases last, then let it go on."""

    async def disturb(run: Run) -> None:
        seconds = leases * run.stack.times.lease
        for worker in cycle(list(run.stack.workers)):
            if not await run.pause(run.dice.uniform(1.0, 3.0)):
                return
            run.watch.blows.append(time.monotonic())
            await _freeze(run, worker, seconds)

    return disturb


def stop_workers(*, every: tuple[float, float] = (2.0, 5.0)) -> Disturbance:
    """SIGTERM one worker after the other, in the middle of everything, and start each again when it is gone."""

    async def disturb(run: Run) -> None:
        while await run.pause(run.dice.uniform(*every)):
            worker = run.dice.choice(run.stack.workers)
            await _stop(run, worker)
            await _start(run, worker)

    return disturb


def upgrade_workers(*, at: tuple[float, ...] = (0.15, 0.4, 0.65)) -> Disturbance:
    """At each of these shares a generation ends: for each worker a new one starts, then the old is SIGTERMed."""

    async def disturb(run: Run) -> None:
        for share in at:
            if not await run.progress(share):
                return
            for old in list(run.stack.workers):
                new = run.stack.new_worker()
                await run.do(lambda new=new: run.stack.run_worker(new))  # type: ignore[misc]
                run.note(f"{new.name} is up")
                await _stop(run, old)
                run.stack.workers.remove(old)

    return disturb


def kill_around_a_batch(*, times: int = 6) -> Disturbance:
    """Kill -9 the API while the upload arrives, and everything while it is taken in and while its outcome is written.

    In between, so many times as the jobs get along: a worker, the API, Valkey, S3, or everything.
    """

    async def disturb(run: Run) -> None:
        await run.pause(run.dice.uniform(0.3, 0.9))
        await _kill(run, "the upload", [run.stack.api])
        if await _taking_in(run):
            await run.pause(run.dice.uniform(0.0, 0.2))
            await _kill(run, "the intake", _everything(run))
        for number in range(times):
            if not await run.progress((number + run.dice.uniform(0.2, 0.9)) / times):
                return
            everything = _everything(run)
            await _kill(run, "the feeding", run.dice.choice([everything, *([one] for one in everything)]))
        if await run.progress(1.0):
            await _kill(run, "the outcome", _everything(run))

    return disturb


def start_with_a_wrong_name(*, seconds: float) -> Disturbance:
    """The workers cannot resolve fal's name for so long; then they are restarted with the right one."""

    async def disturb(run: Run) -> None:
        right = list(run.stack.workers)
        wrong = [run.stack.new_worker({"DARKROOM_FAL_QUEUE_URL": "https://nope.invalid"}) for _ in right]
        for worker, replacement in zip(right, wrong, strict=True):
            await run.do(worker.stop)
            await run.do(lambda new=replacement: run.stack.run_worker(new))  # type: ignore[misc]
        run.note("the workers look for https://nope.invalid")
        await run.pause(seconds)
        for worker, replacement in zip(right, wrong, strict=True):
            await run.do(replacement.stop)
            run.stack.workers.remove(replacement)
            await _start(run, worker)
        run.note("the workers have the right address")

    return disturb


def alternate_ingress_errors(rate: float) -> Disturbance:
    """5xx of fal's ingress: for a second and a half those where fal took the request, then those where it did not."""

    async def disturb(run: Run) -> None:
        for enqueued in cycle((True, False)):
            await run.arm("submit_5xx", rate, enqueued=enqueued, status=run.dice.choice((500, 502, 504)))
            if not await run.pause(1.5):
                return

    return disturb


async def _taking_in(run: Run) -> bool:
    """Wait until a batch is being taken in. False: it is queued already, or the run is over."""
    while True:
        with suppress(DarkroomError):
            keys = await ask(run.watch.redis.keys("dr:batch:batch_*"))
            status = await ask(run.watch.redis.hget(min(keys, key=len), "status")) if keys else None
            if status is not None:
                return bool(status == "validating")
        if not await run.pause(0.005):
            return False


def _everything(run: Run) -> list[Program]:
    """All but fal and the receiver, which are others' machines."""
    return [run.stack.valkey, run.stack.s3, run.stack.api, *run.stack.workers]


async def _kill(run: Run, during: str, programs: list[Program]) -> None:
    """Kill -9 all of them at once; a moment later they are started, and soon ready."""
    run.note(f"kill -9 {', '.join(program.name for program in programs)}: in {during}")
    run.watch.blows.append(time.monotonic())
    await asyncio.gather(*(run.do(program.kill) for program in programs))
    await run.pause(run.dice.uniform(0.1, 1.0))
    for program in programs:
        await run.do(program.start)
    for program in programs:
        await run.do(program.wait_ready)
    run.note("all is ready again")


async def _start(run: Run, worker: Worker) -> None:
    await run.do(worker.start)
    await run.do(worker.wait_ready)


async def _stop(run: Run, worker: Worker) -> None:
    began = time.monotonic()
    await run.do(worker.stop)
    run.note(f"SIGTERM {worker.name}: it {worker.ending} after {time.monotonic() - began:.1f} s")


async def _freeze(run: Run, program: Program, seconds: float) -> None:
    run.note(f"SIGSTOP {program.name}")
    program.freeze()
    try:
        await run.pause(seconds)
    finally:
        program.thaw()
        run.note(f"SIGCONT {program.name}")
