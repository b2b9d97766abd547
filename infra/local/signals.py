"""Ctrl-C, SIGTERM and a closed terminal, as one exception."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AskedToStop(BaseException):
    """A signal asked us to stop. Raised once, in the main thread; later signals find us already stopping."""


def stop_on_signals() -> None:
    """From now on the first of these signals raises AskedToStop in the main thread, and the others do nothing."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise AskedToStop

    for number in _SIGNALS:
        signal.signal(number, ask)
