"""Waiting for a job: until it ends, or from change to change, whatever becomes of the connection meanwhile."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from darkroom_client.errors import DarkroomError, UnexpectedAnswerError, WaitTimeoutError
from darkroom_client.models import Job
from darkroom_client.operations import SLACK, events_path, get_job
from darkroom_client.patience import Patience, passing
from darkroom_client.sse import EventReader
from darkroom_client.steps import Answer, Call, Emit, Open, Opened, Plan, Read, Sleep, Step, Stream, fault_of, read

_LOOK_SECONDS: Final = 30
"""One request waits this long: less than proxies commonly bear."""

_PING_SECONDS: Final = 15.0
"""The API sends a comment this often, so that a silent connection is a broken one."""


def wait_for_job(patience: Patience, job_id: str, timeout: float | None = None) -> Plan[Job]:
    """The job once it has ended, well or not: look at its status.

    Bears dropped connections, 429 and 503 for `patience.outage` seconds.

    Args:
        patience: set by the client.
        job_id: the job's.
        timeout: seconds; None waits for as long as it takes.

    Raises:
        WaitTimeoutError: it has not ended in that time. It goes on.
        UnreachableError: the API was away for longer than is borne.
        ApiError: refused, such as NotFoundError.
    """
    give_up_at = patience.clock() + (math.inf if timeout is None else timeout)
    once = replace(patience, retries=0)
    trouble = Trouble(patience)
    job: Job | None = None
    while True:
        began = patience.clock()
        left = give_up_at - began
        look = math.ceil(max(0.0, min(left, _LOOK_SECONDS)))
        try:
            job = yield from get_job(once, job_id, wait=look)
        except DarkroomError as fault:
            pause = trouble.met(fault)
        else:
            if job.ended:
                return job
            # A full service answers at once instead of letting us wait: do not ask in a circle.
            early = patience.clock() - began < look - 1
            trouble.over()
            pause = patience.first_delay if early else 0.0
        left = give_up_at - patience.clock()
        if left <= 0:
            state = "has not been seen" if job is None else f"is {job.stage or job.status}"
            raise WaitTimeoutError(f"{job_id} {state} after {timeout:g} s; it goes on", job)
        if pause:
            yield Sleep(min(pause, left))


def follow_job(patience: Patience, job_id: str) -> Stream[Job]:
    """The job now, and after each change; the last one has ended. Changes in quick succession may come as one.

    Connects again when the stream breaks; bears an outage of `patience.outage` seconds.

    Raises:
        UnreachableError: the API was away for longer than is borne.
        ApiError: refused, such as NotFoundError.
    """
    call = Call("GET", events_path(job_id), headers={"Accept": "text/event-stream"}, timeout=_PING_SECONDS + SLACK)
    trouble = Trouble(patience)
    seen: str | None = None
    while True:
        outcome: Opened | Answer | httpx.RequestError = yield Open(call)
        if isinstance(outcome, Opened):
            heard = yield from _changes(seen)
            if heard.ended:
                return
            outcome = heard.broke
            if heard.version is not None:
                seen = heard.version
                trouble.over()
        yield Sleep(trouble.met(fault_of(outcome) or UnexpectedAnswerError("this is no stream of events")))


@dataclass(frozen=True, slots=True)
class _Heard:
    """What one stream told: the last version of the job, whether it has ended, and why the stream stopped."""

    version: str | None
    ended: bool
    broke: httpx.RequestError


def _changes(seen: str | None) -> Generator[Step | Emit[Job], Any, _Heard]:
    """Emit the jobs of the opened stream until it stops; a new stream begins with what was seen already."""
    reader = EventReader()
    version: str | None = None
    while True:
        data: bytes | httpx.RequestError = yield Read()
        if not data or isinstance(data, httpx.RequestError):
            return _Heard(version, ended=False, broke=data or httpx.ReadError("the stream of events ended early"))
        for event in reader.feed(data):
            if event.name != "job":
                continue
            job = read(Job, event.data.encode())
            version = event.id
            if version != seen:
                yield Emit(job)
            if job.ended:
                return _Heard(version, ended=True, broke=httpx.ReadError(""))
            seen = version


class Trouble:
    """Counts what goes wrong in a row, and says when it is enough."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since: float | None = None
        self._number = 0

    def over(self) -> None:
        """The service was heard."""
        self._since = None
        self._number = 0

    def met(self, fault: DarkroomError) -> float:
        """Seconds to wait before the next try. Raises the fault when it does not pass, or lasts too long."""
        now = self._patience.clock()
        self._since = now if self._since is None else self._since
        delay = max(self._patience.first_delay / 2, self._patience.delay(self._number, fault.retry_after))
        if not passing(fault) or now + delay - self._since > self._patience.outage:
            raise fault
        self._number += 1
        return delay
