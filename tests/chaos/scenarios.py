"""The rows of the table: what breaks in each, and what it adds to the promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import clocks, schedule
from tests.chaos.audit import Breach, Check, Problem
from tests.chaos.evidence import Evidence
from tests.chaos.receiver import Moods
from tests.chaos.run import Disturbance, Run
from tests.chaos.times import DEFAULT, SHORT, Times


@dataclass(frozen=True, slots=True)
class Fault:
    """One of the simulator's faults: see simulator/faults.py for the catalogue."""

    name: str
    rate: float
    args: Mapping[str, Any] = field(default_factory=dict)


def _always() -> str | None:
    return None


def _as_it_is(_folder: Path) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row. `most` caps its number of jobs; `missing` says why it cannot be run here, `around` prepares the folder.

    `as_batch`: all jobs are the lines of one upload. `failures` are error codes that jobs may fail with,
    `prompt_recovery` whether a dead worker's jobs must be taken up within lease + 15 s (not where Valkey or S3 is away
    as well: then they wait for those).
    """

    name: str
    about: str
    faults: tuple[Fault, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    checks: tuple[Check, ...] = ()
    most: int | None = None
    workers: int = 2
    permits: int = 12
    callbacks: bool = False
    times: Times = SHORT
    environment: Mapping[str, str] = field(default_factory=dict)
    moods: Moods = field(default_factory=Moods)
    failures: frozenset[str] = frozenset()
    held: bool = False
    cancelled: float = 0.0
    hurried: float = 0.0
    prompt_recovery: bool = False
    clocks: bool = False
    missing: Callable[[], str | None] = _always
    around: Callable[[Path], AbstractContextManager[None]] = _as_it_is
    mean_run: float | None = None
    as_batch: bool = False


# promises that one scenario adds ------------------------------------------------------------------------------------


def held_are_the_lost_replies(evidence: Evidence) -> Iterator[Problem]:
    """Without any way to find out, exactly the jobs whose reply was lost are held, and none was submitted again."""
    lost = evidence.fired.get("submit_lost_before", 0) + evidence.fired.get("submit_lost_after", 0)
    held = sum(job["stage"] == "held" for job in evidence.jobs.values())
    if held != lost:
        yield Problem(Breach.SCENARIO, "held", f"{held} jobs are held, {lost} replies were lost")
    if evidence.counters["posts"] != len(evidence.jobs):
        text = f"{evidence.counters['posts']} submissions for {len(evidence.jobs)} jobs"
        yield Problem(Breach.SCENARIO, "submissions", text)


def no_attempt_was_used(evidence: Evidence) -> Iterator[Problem]:
    """Trouble before anything is sent costs no attempt."""
    for job_id, job in evidence.jobs.items():
        if job["attempts"] != 1:
            yield Problem(Breach.SCENARIO, job_id, f"used {job['attempts']} attempts")


def nothing_was_stranded(evidence: Evidence) -> Iterator[Problem]:
    """Workers that were asked to stop gave every job back, and left with exit code 0."""
    if evidence.orphans:
        text = f"{evidence.orphans} jobs of stopped workers had to be rescued"
        yield Problem(Breach.SCENARIO, "workers", text)
    for note in evidence.notes:
        if "SIGTERM" in note and "exit code 0 " not in note:
            yield Problem(Breach.SCENARIO, "workers", note.strip())


# what they need -----------------------------------------------------------------------------------------------------


def no_small_volume() -> str | None:
    """Why a volume of limited size cannot be made here."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "mounting a small tmpfs takes root on Linux"
    return None


@contextmanager
def small_volume(folder: Path) -> Iterator[None]:
    """Valkey's directory is a volume of 24 MB while inside."""
    target = folder / "valkey"
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(target)], check=True)  # noqa: S603 -- ours
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", str(target)], check=True)  # noqa: S603 -- ours


def fill_the_volume(*, at: tuple[float, ...] = (0.2, 0.6), seconds: float = 8.0) -> Disturbance:
    """At each of these shares the volume under Valkey is filled to its last byte, and has room again later."""

    async def disturb(run: Run) -> None:
        filler = run.stack.valkey.directory / "filler"
        for share in at:
            if not await run.progress(share):
                return
            run.note("valkey's volume is full")
            await run.do(lambda: _fill(filler))
            await run.pause(seconds)
            filler.unlink()
            run.note("valkey's volume has room again")

    return disturb


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            return


# the rows -----------------------------------------------------------------------------------------------------------

LOST_REPLIES = (
    Fault("submit_lost_after", 0.08),
    Fault("submit_lost_before", 0.05),
    Fault("submit_malformed", 0.05),
    Fault("submit_reset", 0.05),
)
FAL_TROUBLE = (
    Fault("submit_429", 0.1, {"retry_after": 1}),
    Fault("submit_fal_5xx", 0.1),
    Fault("submit_reset", 0.1),
    Fault("status_5xx", 0.1),
    Fault("status_429", 0.1),
    Fault("status_reset", 0.1),
    Fault("result_5xx", 0.1),
    Fault("result_pending", 0.1),
    Fault("media_5xx", 0.1),
)
PATIENT = {"DARKROOM_MAX_ATTEMPTS": "10"}
"""With one attempt in ten refused, five in a row happen to one job in a hundred thousand; ten never do."""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("calm", "nothing breaks", callbacks=True),
    Scenario(
        "lost-replies",
        "replies to paid POSTs get lost, before and after fal took them",
        faults=LOST_REPLIES,
        disturbances=(schedule.alternate_ingress_errors(0.05),),
    ),
    Scenario(
        "fal-trouble",
        "429 with Retry-After, 5xx and resets on submits; errors on statuses, results and pictures: 10 % each",
        faults=FAL_TROUBLE,
        environment=PATIENT,
    ),
    Scenario(
        "worker-kills",
        "one of three workers is killed (-9) every 2 to 5 s",
        disturbances=(schedule.kill_workers(),),
        workers=3,
        prompt_recovery=True,
    ),
    Scenario("valkey-kills", "Valkey is killed (-9) and restarted three times", disturbances=(schedule.kill_valkey(),)),
    Scenario(
        "api-kills",
        "the API is killed (-9) every 1 to 2 s",
        disturbances=(schedule.kill_api(),),
        callbacks=True,
        most=300,
    ),
    Scenario(
        "s3-outage",
        "S3 gone for 20 s, then frozen for 8 s, then slow for 10 s",
        disturbances=(
            schedule.lose_s3(at=0.2),
            schedule.stall_s3(at=0.5, seconds=8),
            schedule.slow_s3(at=0.7, seconds=10),
        ),
    ),
    Scenario(
        "receiver-fails",
        "20 % of webhooks get a 5xx, 5 % a reset, 5 % no answer in time",
        moods=Moods(error=0.2, reset=0.05, hang=0.05),
    ),
    Scenario(
        "frozen-worker",
        "SIGSTOP past the lease, then SIGCONT; 20 % of submits are answered late",
        faults=(Fault("submit_slow", 0.2, {"seconds": 2}),),
        disturbances=(schedule.freeze_workers(),),
        prompt_recovery=True,
    ),
    Scenario(
        "sigterm",
        "a worker is asked to stop every 2 to 5 s",
        disturbances=(schedule.stop_workers(),),
        checks=(nothing_was_stranded,),
    ),
    Scenario(
        "rolling-upgrade",
        "three times a new generation of workers takes over from the old",
        disturbances=(schedule.upgrade_workers(),),
        checks=(nothing_was_stranded,),
    ),
    Scenario(
        "blind",
        "replies are lost, no callbacks, listing refused: what cannot be known is held",
        faults=(Fault("submit_lost_after", 0.06), Fault("submit_lost_before", 0.04), Fault("listing_403", 1.0)),
        held=True,
        checks=(held_are_the_lost_replies,),
        most=150,
    ),
    Scenario(
        "callbacks",
        "callbacks late, twice, stale, forged, never, and before the reply; replies lost",
        faults=(
            Fault("callback_late", 0.2, {"seconds": 4}),
            Fault("callback_twice", 0.2),
            Fault("callback_stale", 0.1),
            Fault("callback_forged", 0.1),
            Fault("callback_never", 0.1),
            Fault("callback_no_payload", 0.1),
            Fault("submit_slow", 0.15, {"seconds": 3}),
            Fault("submit_lost_after", 0.05),
        ),
        callbacks=True,
    ),
    Scenario(
        "cancel-storm",
        "40 % are cancelled at any stage, 20 % have a deadline; fal ignores some cancellations",
        faults=(Fault("cancel_ignored", 0.3), Fault("cancel_404", 0.1)),
        cancelled=0.4,
        hurried=0.2,
        failures=frozenset({"deadline_exceeded"}),
    ),
    Scenario(
        "clock-jump",
        "the clocks of workers, API and Valkey jump by an hour",
        disturbances=(clocks.jump_clocks(),),
        missing=clocks.missing,
        clocks=True,
        most=150,
    ),
    Scenario(
        "dns",
        "fal's name cannot be resolved for 12 s",
        disturbances=(schedule.start_with_a_wrong_name(seconds=12),),
        checks=(no_attempt_was_used,),
        most=100,
    ),
    Scenario(
        "disk-full",
        "the volume under Valkey is full for 8 s, twice",
        disturbances=(fill_the_volume(),),
        missing=no_small_volume,
        around=small_volume,
        most=200,
    ),
    Scenario(
        "default-times",
        "kill -9 of a worker while fal renders, with the default times",
        disturbances=(schedule.kill_a_worker_while_rendering(),),
        times=DEFAULT,
        prompt_recovery=True,
        most=12,
    ),
    Scenario(
        "batch",
        "one upload; API, workers, Valkey, S3, or all of them, killed (-9): in the upload, the intake, and on",
        disturbances=(schedule.kill_around_a_batch(),),
        as_batch=True,
    ),
    Scenario(
        "all",
        "5 % lost replies; 429, 5xx, resets 10 % each; kills of workers and Valkey; S3 gone 20 s; receiver fails 20 %",
        faults=(
            Fault("submit_lost_after", 0.05),
            Fault("submit_429", 0.1, {"retry_after": 1}),
            Fault("submit_fal_5xx", 0.1),
            Fault("submit_reset", 0.1),
            Fault("status_5xx", 0.1),
            Fault("status_reset", 0.1),
            Fault("result_5xx", 0.1),
        ),
        disturbances=(schedule.kill_workers(), schedule.kill_valkey(), schedule.lose_s3()),
        moods=Moods(error=0.2),
        environment=PATIENT,
        workers=3,
        permits=16,
    ),
)


def by_name(name: str) -> Scenario:
    """Raises KeyError, with the names there are."""
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    raise KeyError(f"no scenario {name!r}; there are: {', '.join(one.name for one in SCENARIOS)}")
