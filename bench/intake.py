"""A large upload: how long until it is queued, what it takes in memory, and what it means for who wants one picture.

`.venv/bin/python -m bench.intake [--lines 100000] [--pictures 40]`

The batch has a `not_before` some time off, so that nothing of it starts while it is measured. Interactive jobs, one
after another, are timed three times: on the idle system, with the batch waiting, and with the batch at full speed
(`--slots`, DARKROOM_FAL_INTERACTIVE_RESERVE at its default). The simulator, the pictures' size and the length of a run
are the same (`--sigma 0`: every run takes as long), so what differs is ours. Promises: every line is taken, nothing
starts early, every interactive job succeeds. Ends with exit code 1 where one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

from bench.figures import (
    Figure,
    Memory,
    Meter,
    Span,
    Spent,
    forget_peak,
    fullness,
    percentile,
    report,
    seconds_of,
    spans,
)
from bench.house import House, Terms, house

SIZE = "square_hd"
_PROMPT_CHARACTERS = 150
_PIECE_BYTES = 64 * 1024


async def intake(terms: Terms, *, lines: int, pictures: int, aside: float) -> tuple[list[Figure], list[str]]:
    """One run: its figures, and the promises that it broke. `aside` is how many seconds off `not_before` is."""
    async with house(terms, size=SIZE) as opened:
        idle = await _interactive(opened, "idle", pictures)
        upload = make_upload(lines)
        opens_at = datetime.now(UTC) + timedelta(seconds=aside)
        taken = await _take_in(opened, upload, opens_at)
        broken = _broken_promises(await opened.caller.batch(taken.batch_id), lines)
        waiting = await _interactive(opened, "waiting", pictures)
        early = await _submitted(opened)
        if datetime.now(UTC) >= opens_at:
            raise TimeoutError(
                f"not_before passed after {aside:g} s, in the middle: this machine needs a larger --aside"
            )
        if early:
            broken.append(f"{early} jobs of the batch were submitted before not_before")
        await opened.caller.batch_in(taken.batch_id, "running", seconds=aside + 60)
        await opened.caller.batch_when(
            taken.batch_id, lambda batch: batch["counts"]["succeeded"] > 2 * terms.slots, "at full speed"
        )
        meter = Meter(opened.stack.programs)
        running = await _interactive(opened, "running", pictures)
        spent = meter.read()
        ran = spans((await opened.ledger())["requests"])
    broken += [
        f"an interactive job is {job['status']}" for job in (*idle, *waiting, *running) if job["status"] != "succeeded"
    ]
    return [*taken.figures(), *_compared(idle, waiting, running), *_busy(ran, running, terms, spent)], broken


# the upload ---------------------------------------------------------------------------------------------------------


def make_upload(lines: int) -> bytes:
    """JSONL with prompts of 150 characters, none like another."""
    rows = []
    for number in range(1, lines + 1):
        prompt = f"poster {number:06d}: a lighthouse in fog above a stormy sea, painted in gouache, muted colours, "
        prompt = prompt.ljust(_PROMPT_CHARACTERS, "~")
        rows.append(json.dumps({"custom_id": f"poster-{number:06d}", "input": {"prompt": prompt, "image_size": SIZE}}))
    return ("\n".join(rows) + "\n").encode()


@dataclass(frozen=True, slots=True)
class TakenIn:
    """An upload that is queued. Seconds from its first byte; memory in MB; `redis` is bytes a waiting job."""

    batch_id: str
    lines: int
    size: int
    answered: float
    judged: float
    made: float
    api: tuple[Memory, Memory]
    worker_growth: float
    redis: float
    spent: Spent

    def figures(self) -> list[Figure]:
        """What the upload took."""
        before, after = self.api
        grown, peak = after.now - before.now, after.peak - before.now
        limit = "< 15 s" if self.lines >= 100_000 else ""
        return [
            Figure("upload", f"{self.lines} lines, {self.size / 1e6:.1f} MB"),
            Figure("first byte to queued", f"{self.made:.1f} s", limit, met=self.made < 15),
            Figure("  first byte to 202", f"{self.answered:.1f} s"),
            Figure("  202 to judged", f"{self.judged - self.answered:.1f} s"),
            Figure("  judged to made and queued", f"{self.made - self.judged:.1f} s"),
            Figure("API's memory grew by", f"{grown:.0f} MB, at its peak {peak:.0f} MB", "< 100 MB", met=peak < 100),
            Figure("the busiest worker's memory grew by", f"{self.worker_growth:.0f} MB at its peak"),
            Figure("Redis per waiting job", f"{self.redis:.0f} bytes", "< 1,200 bytes", met=self.redis < 1200),
            Figure("machine meanwhile", self.spent.machine),
        ]


async def _take_in(opened: House, upload: bytes, opens_at: datetime) -> TakenIn:
    stack, lines = opened.stack, upload.count(b"\n")
    for program in (stack.api, *stack.workers):
        forget_peak(program)
    api, workers = Memory.of(stack.api), [Memory.of(worker) for worker in stack.workers]
    used = _used_memory(opened)
    meter = Meter(stack.programs)
    began = time.monotonic()
    answer = await opened.caller.api.post(
        "/v1/batches",
        content=_in_pieces(upload),
        params={"not_before": opens_at.isoformat()},
        headers={"Content-Type": "application/jsonl"},
    )
    answer.raise_for_status()
    answered, batch_id = time.monotonic() - began, str(answer.json()["id"])
    await opened.caller.batch_when(batch_id, lambda batch: batch["valid"] is not None, "judged")
    judged = time.monotonic() - began
    await opened.caller.batch_when(batch_id, lambda batch: batch["status"] != "validating", "made")
    made = time.monotonic() - began
    growths = [Memory.of(worker).peak - before.now for worker, before in zip(stack.workers, workers, strict=True)]
    return TakenIn(
        batch_id,
        lines=lines,
        size=len(upload),
        answered=answered,
        judged=judged,
        made=made,
        api=(api, Memory.of(stack.api)),
        worker_growth=max(growths),
        redis=(_used_memory(opened) - used) / lines,
        spent=meter.read(),
    )


async def _in_pieces(upload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(upload), _PIECE_BYTES):
        yield upload[start : start + _PIECE_BYTES]


def _used_memory(opened: House) -> int:
    assert opened.stack.valkey is not None
    with Redis.from_url(opened.stack.valkey.url) as redis:
        return int(redis.info("memory")["used_memory"])


def _broken_promises(batch: dict[str, Any], lines: int) -> list[str]:
    counts = batch["counts"]
    if (batch["valid"], batch["invalid"], counts["total"]) != (lines, 0, lines):
        return [f"of {lines} lines {batch['valid']} are valid, {batch['invalid']} not, {counts['total']} became jobs"]
    return []


async def _submitted(opened: House) -> int:
    """How many jobs of the batch fal knows of."""
    requests = (await opened.ledger())["requests"]
    return sum(request["input"]["prompt"].startswith("poster ") for request in requests)


# who wants one picture ----------------------------------------------------------------------------------------------

Jobs = list[dict[str, Any]]


async def _interactive(opened: House, name: str, pictures: int) -> Jobs:
    """One after another, as a person does."""
    return [await opened.caller.rendered(f"{name} {number}: a lighthouse", SIZE) for number in range(pictures)]


def _took(jobs: Jobs, until: str) -> list[float]:
    """Seconds from the acceptance to that moment, by Darkroom's own clock."""
    return [seconds_of(job[until]) - seconds_of(job["created_at"]) for job in jobs]


def _compared(idle: Jobs, waiting: Jobs, running: Jobs) -> list[Figure]:
    alone = statistics.median(_took(idle, "finished_at"))
    figures = []
    for name, jobs in (("idle system", idle), ("batch waiting", waiting), ("batch at full speed", running)):
        start, finish = _took(jobs, "started_at"), _took(jobs, "finished_at")
        slower = statistics.median(finish) / alone - 1
        late = percentile(start, 0.95)
        against = name != "idle system"
        figures += [
            Figure(
                f"{name}: accepted to started",
                f"{statistics.median(start):.3f} s, p95 {late:.3f} s, most {max(start):.3f} s",
                "< 2 s" if against else "",
                met=max(start) < 2,
            ),
            Figure(
                f"{name}: accepted to finished",
                f"{statistics.median(finish):.3f} s, p95 {percentile(finish, 0.95):.3f} s ({slower:+.1%})",
                "median within ±10 % of idle" if against else "",
                met=abs(slower) <= 0.1,
            ),
        ]
    return figures


def _busy(ran: list[Span], running: Jobs, terms: Terms, spent: Spent) -> list[Figure]:
    """That fal was busy with the batch while the last ones were timed."""
    within = (seconds_of(running[0]["created_at"]), seconds_of(running[-1]["finished_at"]))
    return [
        Figure("slots full meanwhile", f"{fullness(ran, terms.slots, within):.1%}"),
        Figure("machine meanwhile", spent.machine),
    ]


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="bench.intake", description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=40, help="interactive jobs, each of three times")
    parser.add_argument("--aside", type=float, default=180, help="seconds until the batch's not_before")
    Terms.add_to(parser, slots=16, ahead=0, sigma=0.0)
    options = parser.parse_args()
    terms = Terms.of(options)
    run = intake(terms, lines=options.lines, pictures=options.pictures, aside=options.aside)
    return report(f"an upload of {options.lines} lines, and interactive jobs beside it: {terms}", *asyncio.run(run))


if __name__ == "__main__":
    sys.exit(main())
