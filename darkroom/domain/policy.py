"""When to try again: backoff, schedules, and the bounds that end a job. Times are in seconds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    NotSentError,
    PermanentError,
    RateLimitedError,
    TransientError,
)


class Fate(StrEnum):
    """What a fault means for the job that met it."""

    FAIL = "fail"
    """It ends: the caller's to mend."""
    RETRY = "retry"
    """Another attempt after a backoff; an attempt is used, unless the breaker says that no job is to blame."""
    SNOOZE = "snooze"
    """Back to the queue; no attempt is used."""


class Stop(StrEnum):
    """What a fault means for everybody's submissions."""

    NOTHING = "nothing"
    COOLDOWN = "cooldown"
    """Nobody submits for the time that fal named, or a growing one."""
    GATE = "gate"
    """Nobody submits but a single probe now and then, until one passes or the operator opens."""
    BREAKER = "breaker"
    """The gate, once several such faults came in a row with no success in between."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows from a class of faults."""

    fate: Fate
    stop: Stop


ON_REJECTION: Final[Mapping[type[DarkroomError], Reaction]] = {
    PermanentError: Reaction(Fate.FAIL, Stop.NOTHING),
    RateLimitedError: Reaction(Fate.SNOOZE, Stop.COOLDOWN),
    BlockedError: Reaction(Fate.SNOOZE, Stop.GATE),
    NotSentError: Reaction(Fate.SNOOZE, Stop.BREAKER),
    TransientError: Reaction(Fate.RETRY, Stop.BREAKER),
}
"""The error policy for a submission that fal did not take, and for a generation that fal could not make.

What is not here never ends a job by itself: an UncertainError is reconciled (docs/adr/0001), and after payment only
fal's verdict, a cancellation or the grace count. The nearest class in the tree of darkroom/domain/errors.py wins.
"""

TROUBLE_MAX: Final = 5
"""So many faults of one kind in a row, over all jobs and workers, and the breaker closes the gate."""


def reaction_to(error: DarkroomError) -> Reaction:
    """The policy's answer to a fault."""
    for kind in type(error).__mro__:
        if kind in ON_REJECTION:
            return ON_REJECTION[kind]
    return ON_REJECTION[TransientError]


RESCUES_MAX: Final = 10
"""A job whose worker died this often without progress in between is what kills them."""

COPY_TRIES_MAX: Final = 5
"""How often unreadable media is fetched again before the job fails: the bytes are fal's, and they do not mend."""

GRACE_SECONDS: Final = 24 * 3600
"""How long a paid job is carried on for its result and its copies."""

RECONCILE_LOOKS: Final = (0, 2, 5, 5, 10, 10, 15, 30, 30, 60)
"""Seconds between looks for a request whose reply was lost; the last one repeats."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter: uniformly between 0 and min(cap, base * 2**(n-1)), never below `floor`."""

    base: float
    cap: float
    floor: float = 0.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after the n-th failure in a row (n from 1)."""
        ceiling = min(self.cap, self.base * 2 ** min(failures - 1, 32))
        return max(self.floor, random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret


ATTEMPTS: Final = Backoff(base=4, cap=300, floor=1)
"""Between errored attempts. fal has already retried on its side, so ours are few and far between."""

COPIES: Final = Backoff(base=1, cap=60, floor=0.5)
"""Between tries to fetch and store a paid picture."""

LOOKS: Final = Backoff(base=1, cap=30, floor=0.5)
"""Between status reads that could not be made."""


def reconcile_delay(look: int) -> float:
    """Seconds until the look after the n-th (n from 0)."""
    return RECONCILE_LOOKS[min(look + 1, len(RECONCILE_LOOKS) - 1)]


class Pace:
    """When to look at a request: learned from how long requests took lately. Seconds throughout.

    The first look comes when the model usually finishes; those after it close together at first, then ever wider, so
    that a usual request costs two or three reads and a slow one does not cost hundreds. With callbacks, looking is only
    the safety net, and rare.
    """

    def __init__(self, *, typical: float = 2.0, callbacks: bool = False) -> None:
        self._typical = typical
        self._callbacks = callbacks
        self._learned = 0
        self._setbacks = 0

    def learn(self, took: float) -> None:
        """How long a request ran, by fal's own word."""
        self._learned += 1
        self._typical += max(0.1, 1 / self._learned) * (min(took, 60.0) - self._typical)

    def first_look(self, *, resumed: bool) -> float:
        """Until the first look; at once when the watch is taken over from an earlier hold."""
        if resumed:
            return 0.0
        return 2 * self._typical + 5 if self._callbacks else max(0.2, self._typical)

    def next_look(self, looks: int, *, queued: bool) -> float:
        """Until the look after the n-th (n from 1)."""
        if self._callbacks:
            return min(30.0, 5.0 * 1.5 ** min(looks, 10))
        step = self._typical * (0.5 if queued else 0.15)
        return min(10.0, max(0.15, step * 1.3 ** min(looks - 1, 30)))

    def slow_down(self) -> float:
        """A cooldown for a refusal that named no time: 2 s, doubling with each one in a row up to 60."""
        self._setbacks = min(self._setbacks + 1, 6)
        return min(60.0, 2.0**self._setbacks)

    def recovered(self) -> None:
        """A submission was taken."""
        self._setbacks = 0
