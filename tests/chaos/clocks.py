"""Leads the wall clock of single processes astray, by libfaketime. Monotonic clocks stay right, as in life."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.run import Disturbance, Run

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

CLOCKED = ("worker-1", "worker-2", "api", "valkey")
"""SeaweedFS is one static binary, which a preloaded library does not reach; the simulator keeps true time, as fal."""


def missing() -> str | None:
    """Why no clock can be led astray here; None where it can."""
    if sys.platform != "linux" or not _LIBRARIES:
        return "libfaketime is not installed (Debian: apt-get install libfaketime)"
    return None


def clocks(folder: Path, names: Sequence[str] = CLOCKED) -> Mapping[str, Mapping[str, str]]:
    """What these programs find in their environment: each reads its clock's offset from a file, once a second."""
    (folder / "clocks").mkdir(parents=True, exist_ok=True)
    environments = {}
    for name in names:
        set_clock(folder, name, 0)
        environments[name] = {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str((folder / "clocks" / name).absolute()),  # Valkey leaves our directory
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    return environments


def set_clock(folder: Path, name: str, seconds: int) -> None:
    """From the next second on, the program's wall clock differs by so much from the true one."""
    draft = folder / "clocks" / f"{name}.new"
    draft.write_text(f"{seconds:+d}s\n")
    draft.replace(folder / "clocks" / name)


def jump_clocks(*, by: int = 3600, seconds: float = 8.0) -> Disturbance:
    """Each worker's and the API's clock jumps away and comes back, one after the other; then Valkey's, for good."""

    async def disturb(run: Run) -> None:
        for name, offset in (("worker-1", by), ("worker-2", -by), ("api", by)):
            if not await run.pause(run.dice.uniform(1.0, 2.0)):
                return
            run.note(f"{name}'s clock jumps by {offset:+d} s")
            set_clock(run.stack.folder, name, offset)
            await run.pause(seconds)
            set_clock(run.stack.folder, name, 0)
            run.note(f"{name}'s clock is right again")
        if await run.progress(0.4):
            run.note(f"valkey's clock jumps by {by:+d} s and stays there")
            set_clock(run.stack.folder, "valkey", by)

    return disturb
