"""Figures: how they are read off a running stack and fal's ledger, and the table that they are printed in.

CPU and memory come from /proc: Linux only.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from infra.local.program import Program

_TICKS = os.sysconf("SC_CLK_TCK")

# CPU ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spent:
    """What a stretch of time took: CPU seconds by program (`bench` is this process), and of the machine.

    `idle` is the share of all cores' time in which nothing ran, ours or not; `load` is /proc/loadavg at the end.
    """

    seconds: float
    cpu: Mapping[str, float]
    idle: float
    load: str

    @property
    def machine(self) -> str:
        """How busy the machine was, and how much of that was ours: no figure means anything without it."""
        cores = os.cpu_count() or 1
        ours = sum(self.cpu.values()) / self.seconds / cores
        return f"{cores} cores: {ours:.0%} ours, {self.idle:.0%} idle, load {self.load}"

    def figures(self, jobs: int) -> list[Figure]:
        """CPU per job by program, the machine's state first."""
        each = {name: seconds * 1000 / jobs for name, seconds in self.cpu.items()}
        workers = sum(ms for name, ms in each.items() if name.startswith("worker"))
        return [
            Figure("machine meanwhile", self.machine),
            *(Figure(f"CPU per job: {name}", f"{ms:.1f} ms") for name, ms in each.items()),
            Figure("CPU per job: workers together", f"{workers:.1f} ms"),
            Figure("CPU per job: all of it", f"{sum(each.values()):.1f} ms"),
        ]


class Meter:
    """Reads from its making on. A program that was started anew since then counts from its new start."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = list(programs)
        self._began = time.monotonic()
        self._cpu = _cpu_seconds(self._programs)
        self._machine = _machine_seconds()

    def read(self) -> Spent:
        """What was spent so far."""
        cpu = {
            name: seconds - (self._cpu[name][1] if self._cpu[name][0] == pid else 0.0)
            for name, (pid, seconds) in _cpu_seconds(self._programs).items()
        }
        idle, every = (now - then for now, then in zip(_machine_seconds(), self._machine, strict=True))
        load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
        return Spent(time.monotonic() - self._began, cpu, idle / every, load)


def _cpu_seconds(programs: Iterable[Program]) -> dict[str, tuple[int, float]]:
    """By name: process id, and CPU seconds of all its threads so far."""
    found = {}
    for program in programs:
        fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
        found[program.name] = (program.pid, (int(fields[11]) + int(fields[12])) / _TICKS)
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {**found, "bench": (os.getpid(), own.ru_utime + own.ru_stime)}


def _machine_seconds() -> tuple[float, float]:
    """Idle, and all, seconds of all cores since the start; waiting for a disk is idle."""
    fields = [int(field) / _TICKS for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


# memory -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's resident memory in MB: now, and the most since its start or `forget_peak`."""

    now: float
    peak: float

    @classmethod
    def of(cls, program: Program) -> Self:
        """Read it."""
        lines = Path(f"/proc/{program.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return cls(*(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))


def forget_peak(program: Program) -> None:
    """The peak counts from now on (proc(5): 5 into clear_refs)."""
    Path(f"/proc/{program.pid}/clear_refs").write_text("5")


# fal's ledger -------------------------------------------------------------------------------------------------------

Requests = Sequence[Mapping[str, Any]]
"""Requests as the simulator's ledger has them."""

Span = tuple[float, float]
"""Unix times of a start and an end."""


def seconds_of(moment: str) -> float:
    """Unix time of a moment of the ledger or of the API."""
    return datetime.fromisoformat(moment).timestamp()


def spans(requests: Requests) -> list[Span]:
    """When each ran. One that still runs is left out."""
    return [(seconds_of(r["started_at"]), seconds_of(r["ended_at"])) for r in requests if r["ended_at"]]


def whole(ran: Iterable[Span]) -> Span:
    """From the first start to the last end."""
    starts, ends = zip(*ran, strict=True)
    return min(starts), max(ends)


def fullness(ran: Sequence[Span], slots: int, within: Span | None = None) -> float:
    """How full so many slots were: 1 is always. Without `within`: from the first start to the last end."""
    first, last = within or whole(ran)
    busy = sum(max(0.0, min(end, last) - max(start, first)) for start, end in ran)
    return busy / (slots * (last - first))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of them that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


# the table ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. A missed target is a slow machine or work to do; it breaks no promise."""

    name: str
    value: str
    target: str = ""
    met: bool = True


def report(title: str, figures: Iterable[Figure], broken: Sequence[str] = ()) -> int:
    """Print the table and what promises were broken; the exit code that follows."""
    print(f"\n{title}")
    for figure in figures:
        target = f"   {'ok' if figure.met else 'MISSED'}: {figure.target}" if figure.target else ""
        print(f"  {figure.name:<46} {figure.value}{target}")
    for promise in broken:
        print(f"  BROKEN: {promise}")
    return 1 if broken else 0
