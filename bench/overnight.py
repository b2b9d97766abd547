"""A night's batch: how full fal's slots are from start to end, what each program spends on a job, and what is left.

`.venv/bin/python -m bench.overnight [--jobs 5000] [--ahead 40] [--kill]`

With `--kill` everything (API, workers, Valkey, S3, the simulator) dies by kill -9 in the middle, at once, and is
started again. Promises, either way: every job succeeds, fal's ledger holds one billed request a job and the bill is its
sum, and a downloaded copy passes `sha256sum -c SHA256SUMS`. Ends with exit code 1 where one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.downloaded import download, faults_of
from bench.figures import Figure, Meter, Requests, fullness, report, seconds_of, spans, whole
from bench.house import ENDED_BATCH, PRICE, House, Terms, house, lines_of

_PATIENCE_SECONDS = 3600.0
_LOOK_SECONDS = 1.0
"""As often as somebody who watches a batch: the API's work for whoever looks is a part of the load."""


async def overnight(terms: Terms, jobs: int, *, kill: bool) -> tuple[list[Figure], list[str]]:
    """One run: its figures, and the promises that it broke."""
    async with house(terms) as opened:
        earlier = len((await opened.ledger())["requests"])
        meter = Meter(opened.stack.programs)
        batch_id = await opened.caller.upload(lines_of(f"a lighthouse, number {n}" for n in range(1, jobs + 1)))
        death = await _die_and_rise(opened, batch_id, jobs) if kill else None
        batch = await opened.caller.batch_in(batch_id, *ENDED_BATCH, seconds=_PATIENCE_SECONDS, every=_LOOK_SECONDS)
        spent = meter.read()
        requests = (await opened.ledger())["requests"][earlier:]
        broken = _broken_promises(batch, requests, jobs)
        with tempfile.TemporaryDirectory() as folder:
            if not broken:
                await download(opened, batch_id, Path(folder))
                broken += await asyncio.to_thread(faults_of, Path(folder), jobs)
            figures = [*_figures(batch, requests, terms, undisturbed=not kill), *_outcome(batch, Path(folder))]
    if death:
        # Processes took what they had spent with them: there is no CPU per job to tell.
        absent = Figure("a lost reply is proven absent after", f"{terms.start + terms.longest} s (--start, --longest)")
        machine = Figure("machine meanwhile", f"{spent.idle:.0%} idle, load {spent.load}")
        return [*figures, *death.figures(requests), absent, machine], broken
    return [*figures, *spent.figures(jobs)], broken


# the figures --------------------------------------------------------------------------------------------------------


def _figures(batch: dict[str, Any], requests: Requests, terms: Terms, *, undisturbed: bool) -> list[Figure]:
    ran = spans(requests)
    first, last = whole(ran)
    full = fullness(ran, terms.slots)
    queued = [seconds_of(r["started_at"]) - seconds_of(r["received_at"]) for r in requests]
    return [
        Figure(
            "slots full from first start to last end",
            f"{full:.1%}",
            ">= 95 %" if undisturbed else "",
            met=full >= 0.95,
        ),
        Figure("jobs/s", f"{len(requests) / (last - first):.1f} in {last - first:.1f} s"),
        Figure("waited in fal's own queue", f"{statistics.mean(queued):.2f} s on average"),
        Figure("created to first start", f"{first - seconds_of(batch['created_at']):.2f} s"),
        Figure("last picture at fal to completed", f"{seconds_of(batch['finished_at']) - last:.2f} s"),
    ]


def _outcome(batch: dict[str, Any], folder: Path) -> list[Figure]:
    """What the downloaded copy tells; nothing where there is none."""
    sizes = [file.stat().st_size for file in folder.glob("images/*")]
    if not sizes:
        return []
    ends = [json.loads(row)["finished_at"] for row in (folder / "results.jsonl").read_text().splitlines()]
    writing = seconds_of(batch["finished_at"]) - max(map(seconds_of, ends))
    return [
        Figure("  of it, from the last job's end on", f"{writing:.2f} s"),
        Figure("pictures", f"{len(sizes)} of {statistics.mean(sizes) / 1000:.0f} kB on average"),
    ]


# the promises -------------------------------------------------------------------------------------------------------


def _broken_promises(batch: dict[str, Any], requests: Requests, jobs: int) -> list[str]:
    """What the batch's record and fal's ledger have against each other."""
    found = []
    if batch["status"] != "completed" or batch["counts"]["succeeded"] != jobs:
        found.append(f"the batch is {batch['status']}, {batch['counts']}")
    billed = Counter(request["input"]["prompt"] for request in requests if request["billed"])
    twice = [prompt for prompt, times in billed.items() if times > 1]
    if twice:
        found.append(f"{len(twice)} pictures were billed more than once, such as {twice[0]!r}")
    if len(billed) != jobs:
        found.append(f"fal billed {len(billed)} pictures of {jobs}")
    bill = sum(float(request["billable_units"]) for request in requests) * PRICE
    if abs(bill - batch["cost"]["spent_usd"]) > 1e-6:
        found.append(f"fal billed ${bill:.6f}, the batch says ${batch['cost']['spent_usd']:.6f}")
    return found


# everything dies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """Unix times: of the blow, and when everything was ready again. `done` is how many jobs had succeeded."""

    at: float
    ready: float
    done: int

    def figures(self, requests: Requests) -> list[Figure]:
        """How long nothing was submitted, by fal's ledger."""
        received = [seconds_of(request["received_at"]) for request in requests]
        before = max(moment for moment in received if moment <= self.at)
        after = min(moment for moment in received if moment > self.at)
        return [
            Figure(
                "kill -9 of everything",
                f"with {self.done} jobs done; all ready again after {self.ready - self.at:.1f} s",
            ),
            Figure(
                "gap between submissions at fal",
                f"{after - before:.1f} s, {after - self.ready:.1f} s after all was ready",
            ),
        ]


async def _die_and_rise(opened: House, batch_id: str, jobs: int) -> Death:
    """Half of the jobs are done: nothing is left running. Returns when everything was started and is ready."""
    half = await opened.caller.batch_when(
        batch_id,
        lambda batch: batch["counts"]["succeeded"] >= jobs / 2,
        "half done",
        _PATIENCE_SECONDS,
        every=_LOOK_SECONDS,
    )
    programs = opened.stack.programs
    at = time.time()
    await asyncio.gather(*(asyncio.to_thread(program.kill) for program in programs))
    for program in programs:
        await asyncio.to_thread(program.start)
    for program in programs:
        await asyncio.to_thread(program.wait_ready)
    return Death(at, time.time(), half["counts"]["succeeded"])


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="bench.overnight", description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--kill", action="store_true", help="kill -9 everything in the middle")
    Terms.add_to(parser, ahead=40, start=60, longest=30)
    options = parser.parse_args()
    terms = Terms.of(options)
    figures, broken = asyncio.run(overnight(terms, options.jobs, kill=options.kill))
    return report(f"a batch of {options.jobs} jobs: {terms}", figures, broken)


if __name__ == "__main__":
    sys.exit(main())
