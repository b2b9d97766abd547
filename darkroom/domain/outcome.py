"""How a worker's hold on a job ends. Outcomes are values; exceptions are faults."""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.domain.errors import DarkroomError
from darkroom.domain.lifecycle import JobEvent


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Every picture lies in the bucket."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ends, for this reason. `event` is REJECTED, EXHAUSTED or EXPIRED."""

    event: JobEvent
    error: DarkroomError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The owner's cancellation took effect."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Another attempt after `delay` seconds; it costs one of the allowed attempts only where `counts`."""

    delay: float
    error: DarkroomError
    counts: bool


@dataclass(frozen=True, slots=True)
class Snooze:
    """Put back without using an attempt."""

    why: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The POST's outcome is unknown: reconciling takes over."""

    submission_id: str
    error: DarkroomError


@dataclass(frozen=True, slots=True)
class Superseded:
    """The lease is another's: nothing here may be written any more."""


Outcome = Succeeded | Failed | Cancelled | RetryAt | Snooze | Doubted | Superseded
"""Everything that can end a hold."""
