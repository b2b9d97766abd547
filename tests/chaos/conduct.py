"""Conducts one scenario from an empty folder to its judgement."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from darkroom.adapters.redis.connection import connect
from darkroom.adapters.s3 import S3Bucket
from tests.chaos import clocks
from tests.chaos.audit import TERMINAL, Expectations, Problem, audit
from tests.chaos.evidence import Evidence, Sources, dump
from tests.chaos.load import Callers, Uploader, make_wishes
from tests.chaos.receiver import Receiver
from tests.chaos.run import Run
from tests.chaos.scenarios import Scenario
from tests.chaos.stack import ChaosStack
from tests.chaos.watch import Watch

_SETTLE_SECONDS = 240.0
_SETTLE_SECONDS_A_JOB = 0.4
_DELIVERIES_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One scenario's end: why it was not run, or what was found. `folder` is there only where something is wrong."""

    scenario: Scenario
    evidence: Evidence | None = None
    problems: tuple[Problem, ...] = ()
    not_run: str | None = None
    folder: Path | None = None


async def conduct(
    scenario: Scenario, *, jobs: int, seed: int, folder: Path, say: Callable[[str], None], keep: bool = False
) -> Verdict:
    """Play the scenario and judge it. What a breach leaves behind (logs, records, ledger) stays in `folder`."""
    if reason := scenario.missing():
        return Verdict(scenario, not_run=reason)
    _empty(folder)
    count = min(jobs, scenario.most or jobs)
    with scenario.around(folder):
        stack = ChaosStack(
            folder,
            times=scenario.times,
            permits=scenario.permits,
            workers=scenario.workers,
            callbacks=scenario.callbacks,
            seed=seed,
            say=say,
            environment=scenario.environment,
            clocks=clocks.clocks(folder) if scenario.clocks else None,
            mean_run=scenario.mean_run,
        )
        await asyncio.to_thread(stack.__enter__)
        try:
            evidence, dump_of_redis = await _play(scenario, stack, count, seed, say)
        finally:
            await asyncio.to_thread(stack.__exit__, None, None, None)
    expected = Expectations(
        failures=scenario.failures,
        held=scenario.held,
        recovery_seconds=scenario.times.recovery if scenario.prompt_recovery else None,
    )
    problems = tuple(audit(evidence, expected, scenario.checks))
    if problems or keep:
        _keep(folder, evidence, problems, dump_of_redis)
        return Verdict(scenario, evidence, problems, folder=folder)
    shutil.rmtree(folder)
    return Verdict(scenario, evidence)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


async def _play(
    scenario: Scenario, stack: ChaosStack, count: int, seed: int, say: Callable[[str], None]
) -> tuple[Evidence, dict[str, Any]]:
    dice = random.Random(f"{seed}|{scenario.name}")
    wishes = make_wishes(scenario.name, count, dice, cancelled=scenario.cancelled, hurried=scenario.hurried)
    async with _doors(stack) as doors:
        secret = (await doors.ask_api("/v1/webhook-secret"))["secret"]
        receiver = await doors.enter(Receiver(secret, moods=scenario.moods, dice=random.Random(f"{seed}|receiver")))
        watch = Watch(doors.redis, scenario.times.lease)
        run = Run(stack, watch, dice, doors.simulator, count, batches=int(scenario.as_batch))
        for fault in scenario.faults:
            await run.arm(fault.name, fault.rate, **fault.args)
        callers = (Uploader if scenario.as_batch else Callers)(doors.api, receiver.url)
        watching = asyncio.create_task(watch.run())
        disturbing = [asyncio.ensure_future(disturbance(run)) for disturbance in scenario.disturbances]
        began = time.monotonic()
        try:
            await callers.ask_for(wishes)
            run.note(f"all accepted, after {callers.repeats} repeated requests")
            await _until_settled(run, disturbing, _SETTLE_SECONDS + _SETTLE_SECONDS_A_JOB * count)
        finally:
            run.over.set()
            await asyncio.gather(*disturbing)
        seconds = time.monotonic() - began
        await _until_delivered(doors.sources, receiver)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        say(f"  {scenario.name}: ended after {seconds:.0f} s; auditing")
        await run.calm()
        jobs = await doors.sources.jobs()
        ledger = await doors.sources.ledger()
        evidence = Evidence(
            wishes=wishes,
            accepted=callers.accepted,
            jobs=jobs,
            events=await doors.sources.events(),
            ledger=ledger["requests"],
            counters=ledger["counters"],
            fired=ledger["faults"],
            pictures=await doors.sources.pictures(jobs),
            sidecars=await doors.sources.sidecars(jobs),
            outcomes=await doors.sources.outcomes(),
            inbox=receiver.inbox,
            double_charges=await doors.sources.double_charges(),
            permits=scenario.permits,
            slowest_recovery=watch.slowest_recovery,
            orphans=len(watch.orphans),
            seconds=seconds,
            notes=run.notes,
        )
        return evidence, await _dump_redis(doors.redis)


@dataclass(slots=True)
class _Doors:
    """Everything of a running stack that is spoken to."""

    api: aiohttp.ClientSession
    simulator: aiohttp.ClientSession
    redis: Redis
    sources: Sources
    exits: AsyncExitStack

    async def enter(self, receiver: Receiver) -> Receiver:
        return await self.exits.enter_async_context(receiver)

    async def ask_api(self, path: str) -> dict[str, Any]:
        async with self.api.get(path) as answer:
            answer.raise_for_status()
            document: dict[str, Any] = await answer.json()
            return document


@asynccontextmanager
async def _doors(stack: ChaosStack) -> AsyncIterator[_Doors]:
    key = {"Authorization": f"Bearer {stack.api_key}"}
    limit = aiohttp.ClientTimeout(total=30)
    async with AsyncExitStack() as exits:
        api = await exits.enter_async_context(aiohttp.ClientSession(stack.api.url, headers=key, timeout=limit))
        simulator = await exits.enter_async_context(aiohttp.ClientSession(stack.simulator.url, timeout=limit))
        plain = await exits.enter_async_context(aiohttp.ClientSession(timeout=limit))
        redis = connect(stack.valkey.url)
        exits.push_async_callback(redis.aclose)
        bucket = S3Bucket(
            bucket=stack.s3.bucket,
            endpoint_url=stack.s3.url,
            access_key_id=stack.s3.access_key,
            secret_access_key=stack.s3.secret_key,
        )
        exits.push_async_callback(bucket.close)
        sources = Sources(api=api, simulator=simulator, plain=plain, redis=redis, bucket=bucket)
        yield _Doors(api, simulator, redis, sources, exits)


async def _until_settled(run: Run, disturbing: Sequence[asyncio.Future[None]], seconds: float) -> None:
    """Return when all has ended or is held, or after that long: what is open then is for the audit."""
    give_up_at = time.monotonic() + seconds
    while not run.settled and time.monotonic() < give_up_at:
        for task in disturbing:
            if task.done():
                task.result()
        await asyncio.sleep(0.1)


async def _until_delivered(sources: Sources, receiver: Receiver) -> None:
    """Return when every event that is owed was taken, or after a time in which all retries have passed.

    Owed is the end of a job that came alone, and of a batch.
    """
    give_up_at = time.monotonic() + _DELIVERIES_SECONDS
    jobs = (await sources.jobs()).values()
    owed = {job["id"] for job in jobs if job["status"] in TERMINAL and not job["batch_id"]}
    owed |= {outcome.batch["id"] for outcome in await sources.outcomes()}
    while time.monotonic() < give_up_at:
        taken = {received.subject for received in receiver.inbox.by_id.values() if received.acknowledged}
        if owed <= taken:
            return
        await asyncio.sleep(0.2)


async def _dump_redis(redis: Redis) -> dict[str, Any]:
    """Every key of ours, for the forensic folder."""
    found: dict[str, Any] = {}
    async for key in redis.scan_iter("dr:*", count=1000):
        match await redis.type(key):
            case "hash":
                found[key] = await redis.hgetall(key)
            case "zset":
                found[key] = await redis.zrange(key, 0, -1, withscores=True)
            case "list":
                found[key] = await redis.lrange(key, 0, -1)
            case "set":
                found[key] = sorted(await redis.smembers(key))
            case "string":
                found[key] = await redis.get(key)
    return {key: found[key] for key in sorted(found) if not key.startswith(("dr:account:", "dr:key:", "dr:secret"))}


def _keep(folder: Path, evidence: Evidence, problems: tuple[Problem, ...], records: dict[str, Any]) -> None:
    """Leave what tells what happened; the data of Valkey and S3 are too large and hold the keys."""
    lines = [f"{problem.breach}: {problem.subject}: {problem.text}" for problem in problems]
    (folder / "problems.txt").write_text("\n".join(lines) + "\n")
    (folder / "notes.txt").write_text("\n".join(evidence.notes) + "\n")
    (folder / "evidence.json").write_text(dump(evidence.document()))
    (folder / "records.json").write_text(dump(records))
    shutil.rmtree(folder / "valkey", ignore_errors=True)
    shutil.rmtree(folder / "s3", ignore_errors=True)
