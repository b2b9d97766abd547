"""Workers that are asked to leave, and workers that die: no job is stranded, and fal's slots are never overfull."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.studio import Studio, eventually, studio

pytestmark = pytest.mark.timeout(240)

SLOTS = 4


def test_a_worker_asked_to_leave_gives_its_jobs_back(house: Studio) -> None:
    """One job is being rendered, one POST waits for its answer: that is saved first, and nothing is paid twice."""
    (worker,) = house.stack.workers
    rendered = house.ask("given back while rendering")
    eventually(lambda: house.rendering("given back while rendering"), "fal renders")
    house.arm("submit_slow", times=1, seconds=3)
    submitted = house.ask("given back while submitting")
    eventually(lambda: house.requests("given back while submitting"), "fal takes the POST")
    began = time.monotonic()
    said = worker.log.read_text().count("giving back")
    worker.terminate()
    eventually(lambda: worker.log.read_text().count("giving back") > said, "the worker heard it")
    worker.stop()  # by a second SIGTERM: an impatient one changes nothing
    assert worker.ending == "ended with exit code 0"
    assert time.monotonic() - began < 20
    # Given back, not left to the rescue: nobody needs to wait for a lease to run out.
    for job_id in (rendered, submitted):
        job = house.job(job_id)
        assert (job["status"], job["stage"]) == ("queued", "generating")
        assert job["fal_request_id"] is not None
    worker.start()
    worker.wait_ready()
    for prompt, job_id in (("given back while rendering", rendered), ("given back while submitting", submitted)):
        assert house.ended(job_id)["status"] == "succeeded"
        assert len(house.requests(prompt)) == 1
        assert len(house.job(job_id)["submissions"]) == 1


def test_the_slots_are_never_overfull_while_workers_die(tmp_path: Path) -> None:
    """Two workers, kill -9 in turns, in the middle of everything: fal never sees a fifth request at a time."""
    environment = {
        "DARKROOM_FAL_CONCURRENCY": str(SLOTS),
        "DARKROOM_FAL_INTERACTIVE_RESERVE": "0",
        # A worker that dies between the intent and the POST leaves a doubt: so long until it is proven absent.
        "DARKROOM_FAL_START_TIMEOUT_SECONDS": "10",
        "DARKROOM_FAL_MAX_RUN_SECONDS": "5",
    }
    simulator = ("--latency", "0.5", "--concurrency", str(SLOTS + 4), "--pool")
    with studio(tmp_path, workers=2, environment=environment, simulator=simulator) as house:
        prompts = [f"one of many {number}" for number in range(40)]
        jobs = [house.ask(prompt, lane="bulk") for prompt in prompts]

        def done() -> int:
            outcomes: Counter[str] = Counter(entry["outcome"] for entry in house.ledger()["requests"])
            return outcomes["completed"]

        for worker, share in zip(itertools.cycle(house.stack.workers), (6, 20), strict=False):
            eventually(lambda share=share: done() >= share, f"{share} pictures")  # type: ignore[misc]
            worker.kill()
            worker.start()
        assert {house.ended(job_id)["status"] for job_id in jobs} == {"succeeded"}
        ledger = house.ledger()
        assert Counter(entry["input"]["prompt"] for entry in ledger["requests"]) == dict.fromkeys(prompts, 1)
        assert ledger["counters"]["max_in_system"] <= SLOTS
        print(f"fal's {SLOTS} slots were in use {occupancy(ledger['requests']):.0%} of the time")  # noqa: T201 - a figure


def occupancy(requests: list[dict[str, str]]) -> float:
    """The share of the slots' time that fal was busy, from the first start to the last end."""
    spans = [(datetime.fromisoformat(r["started_at"]), datetime.fromisoformat(r["ended_at"])) for r in requests]
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum((end - start).total_seconds() for start, end in spans) / (SLOTS * whole.total_seconds())
