"""Who is fed when: shares of two batches and of two accounts, how fast a pause bites, and how a budget ends.

`.venv/bin/python -m bench.feeding [--large 400] [--small 100]`

All of it is read off fal's ledger: the order and the moments in which submissions arrived. Promises: shares are even
(±10 %) while both have work, a paused batch submits nothing, a budget is not exceeded. Ends with exit code 1 where one
is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from bench.figures import Figure, Meter, Requests, report, seconds_of
from bench.house import PRICE, Caller, House, Terms, house, lines_of

SIZE = "square_hd"
BUDGET = 1.0
_TOGETHER_SECONDS = 6.0
_ENDED = "completed"


@dataclass(slots=True)
class Found:
    """What one run found out."""

    figures: list[Figure] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def promise(self, name: str, value: str, promised: str, *, kept: bool) -> None:
        """A figure that breaks a promise where it is not kept."""
        self.figures.append(Figure(name, value, promised, met=kept))
        if not kept:
            self.broken.append(f"{name}: {value}, promised {promised}")


async def feeding(terms: Terms, *, large: int, small: int) -> Found:
    """One run of all four."""
    found = Found()
    async with house(terms, size=SIZE) as opened:
        meter = Meter(opened.stack.programs)
        owner = opened.caller
        await _share(opened, "two batches of one account", (owner, owner), (large, small), found)
        async with opened.another_caller() as another:
            await _share(opened, "two accounts", (owner, another), (large, small), found)
        await _pause(opened, large, found)
        await _budget(opened, found)
        found.figures.append(Figure("machine meanwhile", meter.read().machine))
    return found


async def _submitted(opened: House, name: str) -> Requests:
    """What fal took of the batches whose prompts begin so, in the order in which it came."""
    requests: Requests = (await opened.ledger())["requests"]
    return [request for request in requests if request["input"]["prompt"].startswith(name)]


def _prompts(name: str, jobs: int) -> list[str]:
    return [f"{name}, number {number}" for number in range(1, jobs + 1)]


# shares -------------------------------------------------------------------------------------------------------------


async def _share(opened: House, name: str, callers: Sequence[Caller], sizes: Sequence[int], found: Found) -> None:
    """Two batches that may run from the same moment on."""
    together = (datetime.now(UTC) + timedelta(seconds=_TOGETHER_SECONDS)).isoformat()
    ids = []
    for caller, which, jobs in zip(callers, ("large", "small"), sizes, strict=True):
        ids.append(await caller.upload(lines_of(_prompts(f"{name}, {which}", jobs), SIZE), not_before=together))
    for caller, batch_id in zip(callers, ids, strict=True):
        await caller.batch_in(batch_id, _ENDED)
    order = [",".join(request["input"]["prompt"].split(",")[:2]) for request in await _submitted(opened, name)]
    share, of = share_of(f"{name}, small", order)
    found.promise(
        f"{name}, {sizes[0]} and {sizes[1]} jobs",
        f"{1 - share:.1%} and {share:.1%} of the first {of} submissions",
        "45 % to 55 % each",
        kept=0.45 <= share <= 0.55,
    )


def share_of(smaller: str, order: Sequence[str]) -> tuple[float, int]:
    """Its share of the submissions made while it had any left, and how many those were."""
    last = len(order) - order[::-1].index(smaller)
    return order[:last].count(smaller) / last, last


# pause --------------------------------------------------------------------------------------------------------------


async def _pause(opened: House, jobs: int, found: Found) -> None:
    """Pause in the middle; what runs finishes; resume."""
    name, caller = "paused", opened.caller
    batch_id = await caller.upload(lines_of(_prompts(name, jobs), SIZE))
    await caller.batch_when(batch_id, lambda batch: batch["counts"]["succeeded"] >= jobs / 5, "under way")
    await caller.post(f"/v1/batches/{batch_id}/pause")
    paused_at = time.time()
    still = await caller.batch_when(batch_id, lambda batch: batch["counts"]["running"] == 0, "still")
    await asyncio.sleep(3)  # the time in which something might come
    resumed_at = time.time()
    await caller.post(f"/v1/batches/{batch_id}/resume")
    await caller.batch_in(batch_id, _ENDED)
    received = [seconds_of(request["received_at"]) for request in await _submitted(opened, name)]
    before = list(takewhile(lambda moment: moment < resumed_at, received))
    after = before[-1] - paused_at
    last = f"{after:.2f} s" if after > 0 else "none came"
    found.figures.append(Figure("202 of /pause to the last submission at fal", last, "< 2 s", met=after < 2))
    found.promise(
        "submitted until all was still, and until resumed",
        f"{still['counts']['succeeded']}, {len(before)}",
        "the same",
        kept=len(before) == still["counts"]["succeeded"],
    )
    found.figures.append(Figure("/resume to the next submission at fal", f"{received[len(before)] - resumed_at:.2f} s"))


# budget -------------------------------------------------------------------------------------------------------------


async def _budget(opened: House, found: Found) -> None:
    """A batch that would cost twice its budget."""
    name, caller = "poor", opened.caller
    picture = 1024 * 1024 / 1e6 * PRICE
    jobs = int(2 * BUDGET / picture)
    batch_id = await caller.upload(lines_of(_prompts(name, jobs), SIZE), budget_usd=f"{BUDGET:.2f}")
    batch = await caller.batch_in(batch_id, "paused", _ENDED)
    spent = batch["cost"]["spent_usd"]
    units = sum(float(request["billable_units"]) for request in await _submitted(opened, name))
    found.promise(
        "a budget of $1.00 ends",
        f"{batch['status']}: {batch['status_reason']}",
        "paused: budget",
        kept=(batch["status"], batch["status_reason"]) == ("paused", "budget"),
    )
    found.promise(
        "spent by fal's ledger, by the API",
        f"${units * PRICE:.6f}, ${spent:.6f}",
        "<= $1.00, the same",
        kept=max(units * PRICE, spent) <= BUDGET and abs(units * PRICE - spent) < 1e-6,
    )
    found.figures.append(Figure("left of the budget", f"${BUDGET - spent:.6f}; a picture costs ${picture:.6f}"))


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="bench.feeding", description=__doc__)
    parser.add_argument("--large", type=int, default=400, help="jobs of the larger batch")
    parser.add_argument("--small", type=int, default=100, help="jobs of the smaller batch")
    Terms.add_to(parser, slots=10, ahead=0, latency=0.5)
    options = parser.parse_args()
    terms = Terms.of(options)
    found = asyncio.run(feeding(terms, large=options.large, small=options.small))
    return report(f"feeding: {terms}", found.figures, found.broken)


if __name__ == "__main__":
    sys.exit(main())
