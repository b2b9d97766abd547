"""Words for a person: quiet colours and one moving line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from typing import TextIO

_ERASE_LINE = "\r\x1b[2K"


class Terminal:
    """Prints lines; on a terminal the last one may be a status that is overwritten. Any thread may print."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._moving = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._coloured = self._moving and not os.environ.get("NO_COLOR")
        self._status = ""
        self._lock = threading.Lock()

    def line(self, text: str = "") -> None:
        """Print a line, above the status if there is one."""
        with self._lock:
            self._write((_ERASE_LINE if self._status else "") + text + "\n" + self._status)

    def done(self, name: str, text: str) -> None:
        """Something came true: it takes the status's place."""
        self.clear()
        self.line(f"  {self.paint('✓', 32)} {name:<10} {text}")

    def failed(self, name: str, text: str) -> None:
        """Something did not come true."""
        self.clear()
        self.line(f"  {self.paint('✗', 31)} {name:<10} {text}")

    def fact(self, name: str, text: str) -> None:
        """A fact of the summary."""
        self.line(f"    {self.paint(f'{name:<10}', 2)} {text}")

    def progress(self, name: str, text: str, seconds: float) -> None:
        """What goes on now. Overwrites itself on a terminal; elsewhere only a change of name or text makes a line."""
        if self._moving:
            width = shutil.get_terminal_size().columns - 1
            with self._lock:
                self._status = f"  … {name:<10} {text}  {seconds:.1f} s"[:width]
                self._write(_ERASE_LINE + self._status)
        elif self._status != (status := f"  … {name:<10} {text}"):
            self._status = status
            self._write(status + "\n")

    def clear(self) -> None:
        """Take the status away."""
        with self._lock:
            if self._status and self._moving:
                self._write(_ERASE_LINE)
            self._status = ""

    def strong(self, text: str) -> str:
        """The text, bold where that shows."""
        return self.paint(text, 1)

    def paint(self, text: str, code: int) -> str:
        """The text in an ANSI style where colours show (a terminal, and no NO_COLOR)."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
