"""One program that runs as our child: started, found ready, ended; and never left behind."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

# The child's own shell leaves a guard in the child's process group, then becomes the program (same pid). The guard
# reads a pipe that only we hold open: when we are gone, kill -9 included, it reads the end and ends the group. This
# works on Linux and macOS alike, closes the gap between fork and registration, and unlike PR_SET_PDEATHSIG does not
# depend on which of our threads started the child. (Numbers above 9 are no redirections in dash: hence stdin.)
_GUARDED = """
exec 3<&0
(trap '' HUP INT TERM; read -r _ <&3; kill -KILL -$$) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""

_LOG_LIMIT_BYTES = 64 * 1024 * 1024
_TAIL_LINES = 25


class ProgramFailedError(Exception):
    """A program did not come up. The message says how, with the last lines of its log and the log's path."""


class Program(ABC):
    """A child in a process group of its own, its output appended to a log file.

    `start`, `stop`, `kill` and `restart` may be called from any thread. A program that was stopped or killed through
    these methods is left alone by a supervisor until it is started again; one that dies otherwise is not.
    """

    ready_seconds = 60.0
    grace_seconds = 10.0

    def __init__(self, name: str, log: Path, *, inherited: Sequence[int] = ()) -> None:
        self.name = name
        self.log = log
        self.wanted = False
        self._inherited = tuple(inherited)
        self._lock = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: int | None = None
        self._log_start = 0
        log.parent.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments, asked anew at each start."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The program's whole environment, asked anew at each start."""

    @abstractmethod
    def probe(self) -> str | None:
        """Ask the program itself whether it works: None when it does, else what is missing. May raise OSError."""

    @property
    def pid(self) -> int:
        """The program's process id (of the current, or the last, start)."""
        if self._child is None:
            raise ProgramFailedError(f"{self.name} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process exists; a frozen one does."""
        with self._lock:
            return self._child is not None and self._child.poll() is None

    @property
    def ending(self) -> str:
        """How the last process ended, in words."""
        code = self._child.poll() if self._child else None
        if code is None:
            return "has not ended"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def start(self) -> None:
        """Start the process if it does not run; returns at once, before it is ready."""
        with self._lock:
            if self.running:
                return
            self._bury()
            self.rotate_log(limit=_LOG_LIMIT_BYTES // 4)
            end_of_pipe, self._guard = os.pipe()
            try:
                with self.log.open("ab") as log:
                    self._log_start = log.tell()
                    self._child = subprocess.Popen(
                        ["/bin/sh", "-c", _GUARDED, self.name, *self.command()],
                        stdin=end_of_pipe,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=dict(self.environment()),
                        pass_fds=self._inherited,
                        start_new_session=True,
                    )
            finally:
                os.close(end_of_pipe)
            self.wanted = True

    def revive(self) -> None:
        """Start it again, unless its owner stopped it in the meantime."""
        with self._lock:
            if self.wanted:
                self.start()

    def wait_ready(self) -> None:
        """Return when the probe succeeds.

        Raises:
            ProgramFailedError: the process ended, or was not ready within `ready_seconds`.
        """
        give_up_at = time.monotonic() + self.ready_seconds
        while (missing := self._ask()) is not None:
            if not self.running:
                raise ProgramFailedError(f"{self.name} {self.ending} while starting\n{self.tail()}")
            if time.monotonic() > give_up_at:
                raise ProgramFailedError(
                    f"{self.name} was not ready after {self.ready_seconds:.0f} s: {missing}\n{self.tail()}"
                )
            time.sleep(0.02)

    def stop(self, *, grace: float | None = None) -> None:
        """End the process with SIGTERM, and with SIGKILL after `grace` seconds. Returns when it is gone."""
        with self._lock:
            self.wanted = False
            self.terminate()
            if self._child is not None:
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(self.grace_seconds if grace is None else grace)
            self._bury()

    def terminate(self) -> None:
        """Send SIGTERM and return at once; `stop` still has to follow. A frozen process is woken to hear it."""
        with self._lock:
            self.wanted = False
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL, no warning given. Returns when it is gone; it stays down until started."""
        with self._lock:
            self.wanted = False
            self._bury()

    def restart(self) -> None:
        """End what still runs and start anew: same port, same data. Returns when it is ready."""
        with self._lock:
            self.stop()
            self.start()
        self.wait_ready()

    def freeze(self) -> None:
        """SIGSTOP: the process stands still, its sockets stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: a frozen process goes on."""
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """The last lines this start wrote, and where to read the rest."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        shown = "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:]) or "  | (it wrote nothing)"
        return f"{shown}\n  log: {self.log}"

    def rotate_log(self, *, limit: int = _LOG_LIMIT_BYTES) -> None:
        """Move what the log holds to NAME.log.1 when it is over `limit` bytes. Lines written meanwhile can be lost."""
        with self._lock, suppress(FileNotFoundError):
            if self.log.stat().st_size > limit:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
                self._log_start = 0

    def cleanup(self) -> None:  # noqa: B027 -- most programs leave nothing
        """Remove what the program leaves outside its data directory; called after each end."""

    def _ask(self) -> str | None:
        try:
            return self.probe()
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__

    def _signal(self, number: signal.Signals) -> None:
        # Popen sends nothing to a child it has seen end: no other process that got the same id can be hit.
        if self._child is not None:
            self._child.send_signal(number)

    def _bury(self) -> None:
        """End the whole group, the guard included, and forget it. The guard keeps the group's id ours until then."""
        if self._child is None or self._guard is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._guard)
        self._guard = None
        self.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
