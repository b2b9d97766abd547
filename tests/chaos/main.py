"""`make chaos`: every scenario, audited, in one table. Exit status 0 only if every promise was kept."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from infra.local.signals import AskedToStop, stop_on_signals
from tests.chaos.conduct import conduct
from tests.chaos.scenarios import SCENARIOS, by_name
from tests.chaos.table import LEGEND, complaints, heading, row
from tests.chaos.times import DEFAULT, SHORT

FOLDER = Path(".darkroom/chaos")


def main() -> int:
    """Returns the exit code: 0 all promises kept, 1 one is broken, 2 a question that cannot be answered."""
    options = _options()
    try:
        wanted = [by_name(name) for name in options.scenario.split(",")] if options.scenario else list(SCENARIOS)
    except KeyError as error:
        _say(str(error.args[0]))
        return 2
    stop_on_signals()
    _say(f"jobs {options.jobs} (a scenario may take fewer), seed {options.seed}, {os.cpu_count()} cores")
    _say(f"short times: {SHORT}")
    _say(f"default times (row default-times): {DEFAULT}\n")
    verdicts = []
    try:
        for scenario in wanted:
            _say(f"  {scenario.name}: {scenario.about}")
            folder = FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{scenario.name}"
            verdict = asyncio.run(
                conduct(
                    scenario, jobs=options.jobs, seed=options.seed, folder=folder, say=_say_detail, keep=options.keep
                )
            )
            verdicts.append(verdict)
            _say(f"  {row(verdict)}")
    except AskedToStop:
        _say("stopped before the end: the table has no verdict")
        return 1
    _say("\n" + "\n".join([heading(), *(row(verdict) for verdict in verdicts), "", LEGEND]))
    for verdict in verdicts:
        if verdict.problems:
            _say("\n".join([f"\n{verdict.scenario.name}: promises broken", *complaints(verdict)]))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--scenario", default="", help="one or more, with commas: " + ", ".join(s.name for s in SCENARIOS)
    )
    parser.add_argument("--keep", action="store_true", help="keep logs, records and ledger even when all is well")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say_detail(text: str) -> None:
    if sys.stdout.isatty() or "starting it again" in text:
        _say(text)


if __name__ == "__main__":
    sys.exit(main())
