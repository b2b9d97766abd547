"""Watches over programs: what dies is started again, after a moment that grows, and said so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from infra.local.program import Program

_LOOK_SECONDS = 0.1
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_LOG_LOOK_SECONDS = 10.0


class Supervisor:
    """Entered, it looks after the programs from a thread of its own; left, it lets go of them (and stops none).

    A wanted program that is not running is started again after half a second, then twice as long each time up to
    30 s; a minute without a death begins anew. A program that its owner stopped or killed on purpose is left alone.
    """

    def __init__(self, programs: Sequence[Program], say: Callable[[str], None]) -> None:
        """`say` is called from the supervisor's thread with one line per death."""
        self._watched = [_Watched(program) for program in programs]
        self._say = say
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._thread.join()

    def _watch(self) -> None:
        next_log_look = 0.0
        while not self._enough.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for watched in self._watched:
                watched.look(now, self._say)
            if now >= next_log_look:
                next_log_look = now + _LOG_LOOK_SECONDS
                for watched in self._watched:
                    watched.program.rotate_log()


class _Watched:
    """One program, and how patient we are with it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._wait = _FIRST_WAIT_SECONDS
        self._start_at: float | None = None
        self._started_at = 0.0

    def look(self, now: float, say: Callable[[str], None]) -> None:
        if not self.program.wanted or self.program.running:
            self._start_at = None
        elif self._start_at is None:
            if now - self._started_at > _STABLE_SECONDS:
                self._wait = _FIRST_WAIT_SECONDS
            self._start_at = now + self._wait
            say(
                f"{self.program.name} {self.program.ending}; starting it again in {self._wait:g} s "
                f"(log: {self.program.log})"
            )
            self._wait = min(self._wait * 2, _LONGEST_WAIT_SECONDS)
        elif now >= self._start_at:
            self._start_at = None
            self._started_at = now
            self.program.revive()
