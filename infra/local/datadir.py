"""What a data directory remembers between two starts of the stack: its ports, its secrets, and who runs on it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.local.ports import free_ports, is_free

# A killed process holds its locks for a moment longer, and so do its children.
_KILLED_SECONDS = 1.0
_DYING_SECONDS = 15.0


class StackRunsError(Exception):
    """Another stack runs on the same data directory. The message names the directory and the other process."""


class DataDirectory:
    """A directory that belongs to one stack at a time, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs = self.path / "logs"
        self.logs.mkdir(exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[int]:
        """Own the directory while inside; yields the lock's file descriptor.

        Two locks, so that after a kill -9 nothing has to be guessed from process ids: one that this process alone
        holds, and one (the yielded descriptor) that children inherit and keep alive. The directory is free exactly
        when the last child is gone; a start in those moments waits for that.

        Raises:
            StackRunsError: the owner is alive, or the children of a killed one did not end in time.
        """
        with (
            self._locked("owner", patience=_KILLED_SECONDS) as owner,
            self._locked("lock", patience=_DYING_SECONDS) as lock,
        ):
            os.pwrite(owner, str(os.getpid()).encode(), 0)
            yield lock

    @contextmanager
    def _locked(self, name: str, patience: float) -> Iterator[int]:
        descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)
        give_up_at = time.monotonic() + patience
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= give_up_at:
                    pid = os.pread(descriptor, 32, 0).decode() or "unknown"
                    raise StackRunsError(f"another stack (pid {pid}) already runs on {self.path}; stop that one first")
                time.sleep(0.02)
            os.ftruncate(descriptor, 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def ports(self, names: list[str]) -> dict[str, int]:
        """A port for each name: the same as last time wherever that one is still free, else a new one, remembered."""
        file = self.path / "ports.json"
        known: dict[str, int] = {}
        with suppress(FileNotFoundError, ValueError):
            known = json.loads(file.read_text())
        fresh = iter(free_ports(len(names)))
        chosen = {name: known[name] if name in known and is_free(known[name]) else next(fresh) for name in names}
        if chosen.items() - known.items():
            write_atomically(file, json.dumps(known | chosen, indent=1))
        return chosen

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret kept under that name (mode 0600), made on the first call."""
        return keep(self.path / name, make)


def keep(file: Path, make: Callable[[], str]) -> str:
    """The file's text, made and written (mode 0600) if there is none. A crash leaves the whole file or none."""
    if not file.exists():
        write_atomically(file, make() + "\n")
    return file.read_text().strip()


def write_atomically(file: Path, text: str) -> None:
    """Replace the file's text (mode 0600). A crash leaves the old text or the new one, never a part."""
    draft = file.with_suffix(file.suffix + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
