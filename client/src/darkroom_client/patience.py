"""How often and how long something is tried again."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from darkroom_client.errors import ApiError, DarkroomError, NotFoundError, UnexpectedAnswerError
from darkroom_client.steps import Answer, Call, Plan, Send, Sleep, fault_of

_PASSING: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """Tries again after a full-jitter backoff, never sooner than `Retry-After`. All times are seconds.

    Attributes:
        retries: how often one request is repeated after its first try.
        first_delay: the longest wait before the first repeat; it doubles with each.
        longest_delay: the longest wait. A `Retry-After` beyond it is not waited for: the error is raised, and says it.
        outage: how long waiting for a job (`jobs.wait`, `jobs.events`) bears a service that cannot be reached.
        jitter: a number in [0, 1).
        clock: seconds, monotonic.
    """

    retries: int = 4
    first_delay: float = 0.5
    longest_delay: float = 60.0
    outage: float = 300.0
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def delay(self, number: int, retry_after: float | None = None) -> float:
        """Seconds before repeat `number` (from 0)."""
        backoff = min(self.first_delay * 2.0 ** min(number, 30), self.longest_delay)
        return (retry_after or 0.0) + self.jitter() * backoff


def ask(patience: Patience, call: Call) -> Plan[Answer]:
    """Send a request until it is answered with a 2xx.

    A request that is not repeatable is sent again only where the first try did nothing for sure: the connection was
    never made, or the answer was 429.

    Raises:
        UnreachableError: no answer came.
        ApiError: the API refused, or was away for too long.
    """
    maybe_done = False
    for number in itertools.count():
        outcome: Answer | httpx.RequestError = yield Send(call)
        fault = fault_of(outcome)
        if fault is None:
            assert isinstance(outcome, Answer)
            return outcome
        if maybe_done and call.method == "DELETE" and isinstance(fault, NotFoundError):
            return Answer(204, {}, b"")  # gone by our own hand: only the answer was lost
        maybe_done |= not _undone(outcome)
        worth_it = passing(fault) and (call.repeatable or _undone(outcome))
        if not worth_it or number >= patience.retries or too_long(patience, fault):
            raise fault
        yield Sleep(patience.delay(number, fault.retry_after))
    raise AssertionError("unreachable")


def passing(fault: DarkroomError) -> bool:
    """Whether the same may go well later: no answer at all, 429, 502, 503, 504."""
    if isinstance(fault, ApiError):
        return fault.status in _PASSING
    return not isinstance(fault, UnexpectedAnswerError)


def too_long(patience: Patience, fault: DarkroomError) -> bool:
    """Whether the other side asks for more time than is waited for."""
    return (fault.retry_after or 0.0) > patience.longest_delay


def _undone(outcome: Answer | httpx.RequestError) -> bool:
    """Whether nothing was done for sure. A 503 does not say so: the job may have been created."""
    if isinstance(outcome, httpx.RequestError):
        return isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
    return outcome.status == 429
