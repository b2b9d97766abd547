"""What a single job costs: accepted one by one over HTTP, rendered, stored. The whole stack runs on this machine.

`.venv/bin/python -m bench.throughput [--jobs 500]`

Slots are the simulator's: how full they were from the first start to the last end. CPU is each process's own, per job.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from redis import Redis

from bench.figures import Figure, Meter, fullness, percentile, report, spans
from bench.house import Caller, House, Terms, house, until

SIZE = "square"
_AT_ONCE = 16
_PATIENCE_SECONDS = 3600.0


async def throughput(terms: Terms, jobs: int) -> tuple[list[Figure], list[str]]:
    """One run: accept everything, wait for the end, read what it took."""
    async with house(terms, size=SIZE) as opened:
        earlier, commands = await opened.ledger(), _commands(opened)
        done = await _ended(opened.caller)
        meter = Meter(opened.stack.programs)
        began = time.perf_counter()
        latencies = await _accept(opened.caller, jobs)
        accepted = time.perf_counter() - began
        await until(lambda: _have_ended(opened.caller, done + jobs), "the end of all jobs", _PATIENCE_SECONDS)
        took = time.perf_counter() - began
        spent, used, now = meter.read(), _commands(opened) - commands, await opened.ledger()
        failed = (await opened.caller.get("/v1/usage"))["totals"]["failed"]
    counted = {name: (now["counters"][name] - count) / jobs for name, count in earlier["counters"].items()}
    full = fullness(spans(now["requests"][len(earlier["requests"]) :]), terms.slots)
    return [
        Figure(
            "accepted",
            f"{jobs / accepted:.0f}/s, p50 {statistics.median(latencies) * 1000:.1f} ms, "
            f"p99 {percentile(latencies, 0.99) * 1000:.1f} ms",
        ),
        Figure("finished", f"{jobs / took:.1f}/s in {took:.1f} s"),
        Figure("slots full from first start to last end", f"{full:.1%}"),
        Figure("Redis commands per job, inside scripts too", f"{used / jobs:.0f}"),
        Figure(
            "fal: posts, status reads, results per job",
            f"{counted['posts']:.2f}, {counted['status_gets']:.2f}, {counted['result_gets']:.2f}",
        ),
        *spent.figures(jobs),
    ], [f"{failed} jobs failed"] if failed else []


async def _accept(caller: Caller, jobs: int) -> list[float]:
    """Seconds that each POST took, so many at a time."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> float:
        async with room:
            began = time.perf_counter()
            await caller.post("/v1/jobs", {"input": {"prompt": f"poster {number}", "image_size": SIZE}})
            return time.perf_counter() - began

    return list(await asyncio.gather(*(one(number) for number in range(jobs))))


async def _ended(caller: Caller) -> int:
    usage = (await caller.get("/v1/usage"))["totals"]
    return int(usage["succeeded"] + usage["failed"])


async def _have_ended(caller: Caller, jobs: int) -> bool:
    return await _ended(caller) >= jobs


def _commands(opened: House) -> int:
    assert opened.stack.valkey is not None
    with Redis.from_url(opened.stack.valkey.url) as redis:
        return int(redis.info("stats")["total_commands_processed"])


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="bench.throughput", description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    Terms.add_to(parser)
    options = parser.parse_args()
    terms = Terms.of(options)
    return report(f"{options.jobs} single jobs: {terms}", *asyncio.run(throughput(terms, options.jobs)))


if __name__ == "__main__":
    sys.exit(main())
