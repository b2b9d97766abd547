"""What a job costs, measured: `make bench` prints one table. The whole stack runs on this machine, simulator included.

Slots are the simulator's: how full they were from the first start to the last end. CPU is each process's own, per job.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from infra.local.stack import Stack

_TICKS = os.sysconf("SC_CLK_TCK")
_AT_ONCE = 16


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=500)
    options.add_argument("--concurrency", type=int, default=40, help="fal's slots")
    options.add_argument("--ahead", type=int, default=8, help="DARKROOM_FAL_QUEUE_AHEAD")
    options.add_argument("--latency", type=float, default=1.0, help="mean seconds of a run")
    options.add_argument("--workers", type=int, default=2)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "DARKROOM_FAL_CONCURRENCY": str(asked.concurrency),
            "DARKROOM_FAL_QUEUE_AHEAD": str(asked.ahead),
        }
        simulator = ["--concurrency", str(asked.concurrency), "--latency", str(asked.latency), "--pool"]
        with Stack(
            Path(folder), environment=environment, workers=asked.workers, simulator_arguments=simulator
        ) as stack:
            figures = asyncio.run(measure(stack, asked.jobs, asked.concurrency))
    slots = f"{asked.concurrency} slots of {asked.latency:g} s, {asked.ahead} ahead"
    print(f"{asked.jobs} jobs, {slots}, {asked.workers} workers")
    for name, value in figures.items():
        print(f"  {name:<42} {value}")


async def measure(stack: Stack, jobs: int, slots: int) -> dict[str, str]:
    """One run: accept everything, wait for the end, read what it took."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as api:
        await _accept(api, 20)
        await _ended(api, 20)
        before, commands = _cpu(stack), _commands(stack)
        ledger = await _ledger(stack)
        began = time.perf_counter()
        latencies = await _accept(api, jobs)
        accepted = time.perf_counter() - began
        await _ended(api, jobs + 20)
        took = time.perf_counter() - began
        after = {name: (value - before[name]) * 1000 / jobs for name, value in _cpu(stack).items()}
        used = _commands(stack) - commands
        now = await _ledger(stack)
    latencies.sort()
    counters = {name: (now["counters"][name] - count) / jobs for name, count in ledger["counters"].items()}
    return {
        "accepted": f"{jobs / accepted:.0f}/s, p50 {statistics.median(latencies) * 1000:.1f} ms, "
        f"p99 {latencies[int(len(latencies) * 0.99)] * 1000:.1f} ms",
        "finished": f"{jobs / took:.1f}/s in {took:.1f} s",
        "slots full from first start to last end": f"{_fullness(now['requests'][20:], slots):.1%}",
        "CPU of the API per job": f"{after['api']:.1f} ms",
        "CPU of the workers per job": f"{sum(v for n, v in after.items() if n.startswith('worker')):.1f} ms",
        "CPU of Valkey per job": f"{after['valkey']:.1f} ms",
        "Redis commands per job, inside scripts too": f"{used / jobs:.0f}",
        "fal: posts, status reads, results per job": f"{counters['posts']:.2f}, {counters['status_gets']:.2f}, "
        f"{counters['result_gets']:.2f}",
    }


async def _accept(api: httpx.AsyncClient, jobs: int) -> list[float]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> float:
        async with room:
            began = time.perf_counter()
            answer = await api.post("/v1/jobs", json={"input": {"prompt": f"poster {number}", "image_size": "square"}})
            answer.raise_for_status()
            return time.perf_counter() - began

    return list(await asyncio.gather(*(one(number) for number in range(jobs))))


async def _ended(api: httpx.AsyncClient, jobs: int) -> None:
    while True:
        usage = (await api.get("/v1/usage")).json()["totals"]
        if usage["succeeded"] + usage["failed"] >= jobs:
            return
        await asyncio.sleep(0.1)


async def _ledger(stack: Stack) -> dict[str, Any]:
    assert stack.simulator is not None
    async with httpx.AsyncClient(base_url=stack.simulator.url, timeout=60) as simulator:
        document: dict[str, Any] = json.loads((await simulator.get("/_sim/ledger")).content)
        return document


def _fullness(requests: list[Mapping[str, Any]], slots: int) -> float:
    spans = [(_seconds(request["started_at"]), _seconds(request["ended_at"])) for request in requests]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return sum(end - start for start, end in spans) / (slots * (last - first))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _cpu(stack: Stack) -> dict[str, float]:
    """CPU seconds of each process so far (Linux)."""
    found = {}
    for program in (*filter(None, (stack.valkey,)), stack.api, *stack.workers):
        fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
        found[program.name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _commands(stack: Stack) -> int:
    assert stack.valkey is not None
    with Redis.from_url(stack.valkey.url) as redis:
        return int(redis.info("stats")["total_commands_processed"])


if __name__ == "__main__":
    main()
