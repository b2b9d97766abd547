"""What became of a paid POST whose reply was lost.

fal's callback, when one is configured, settles most doubts by itself. Otherwise this looks in fal's request listing: a
request with our model and our very input (its seed was drawn for this job), sent since the intent, that no other
submission owns, is ours. That it is *absent* needs proof, not silence: a listing read to its last page without a match
after start timeout and longest run have passed, so that nothing of ours can still be queued or running unlisted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from darkroom.domain.errors import DarkroomError
from darkroom.domain.generation import ListedRequest
from darkroom.domain.job import Job, Submission
from darkroom.domain.krea import same_input
from darkroom.domain.lifecycle import SubmissionStatus
from darkroom.domain.policy import reconcile_delay
from darkroom.ports import Acceptance, Generator, Jobs, Schedule, Settlement, Source, Transitions

logger = logging.getLogger(__name__)

_MARGIN: Final = timedelta(minutes=5)
"""fal's clock and ours may differ by so much."""

ON_UNCERTAIN: Final = {"hold": Settlement.HOLD, "resubmit": Settlement.RESUBMIT, "fail": Settlement.FAIL}


@dataclass(frozen=True, slots=True)
class DoubtTerms:
    """Times in seconds: `unknown` is start timeout + longest run, `window` when looking ends; then `on_uncertain`."""

    unknown: float
    window: float
    on_uncertain: Settlement


class Reconciler:
    """Makes the looks that timers ask for."""

    def __init__(
        self, *, jobs: Jobs, schedule: Schedule, transitions: Transitions, generator: Generator, terms: DoubtTerms
    ) -> None:
        self._jobs = jobs
        self._schedule = schedule
        self._transitions = transitions
        self._generator = generator
        self._terms = terms

    async def look(self, job_id: str) -> None:
        """One look for a job in doubt: adopts, disproves, gives up, or asks to be woken again.

        Repeatable at any point: nothing is decided but in the scripts.
        """
        job = await self._jobs.get(job_id)
        submission = job.submission if job else None
        if job is None or submission is None or submission.status is not SubmissionStatus.UNCERTAIN:
            return
        now = await self._schedule.now()
        age = (now - _opened(submission)).total_seconds()
        try:
            listed = await self._generator.list_requests(
                job.model, since=_opened(submission) - _MARGIN, until=now + _MARGIN
            )
        except DarkroomError as error:
            logger.warning("the listing cannot be read (%s): %s waits", error.message, job_id)
            await self._wait(submission, age)
            return
        for candidate in listed:
            if _matches(job, candidate) and await self._adopt(job, submission, candidate):
                return
        if age >= self._terms.unknown and not any(_unreadable(item, submission) for item in listed):
            logger.info("no request of %s exists at fal: it may submit again", submission.id)
            await self._transitions.settle(submission.id, Settlement.ABSENT)
            return
        await self._wait(submission, age)

    async def _adopt(self, job: Job, submission: Submission, found: ListedRequest) -> bool:
        """Take a listed request as this submission's. False when it is another's."""
        ref = self._generator.reference(job.model, found.request_id)
        acceptance = await self._transitions.accept_submission(submission.id, ref, Source.LISTING)
        if acceptance is Acceptance.BUSY:
            await self._transitions.settle(submission.id, Settlement.LATER, delay=5)
            return True
        if acceptance is Acceptance.ACCEPTED:
            logger.info("found %s's request in the listing: %s", job.id, found.request_id)
        return acceptance is not Acceptance.OWNED

    async def _wait(self, submission: Submission, age: float) -> None:
        if age >= self._terms.window:
            logger.warning("%s stays unknown: %s", submission.id, self._terms.on_uncertain)
            await self._transitions.settle(submission.id, self._terms.on_uncertain)
            return
        # The look that can prove absence, and the one that ends the window, come on time.
        marks = [mark - age for mark in (self._terms.unknown, self._terms.window) if mark > age]
        delay = min(reconcile_delay(submission.looks), *marks)
        await self._transitions.settle(submission.id, Settlement.LATER, delay=max(delay, 0.2))


def _opened(submission: Submission) -> datetime:
    return datetime.fromtimestamp(submission.opened_at / 1000, tz=UTC)


def _matches(job: Job, item: ListedRequest) -> bool:
    return item.input is not None and same_input(item.input, job.arguments)


def _unreadable(item: ListedRequest, submission: Submission) -> bool:
    """A request of that time whose input fal does not show may be ours: the listing proves nothing then."""
    return item.input is None and (item.sent_at is None or item.sent_at >= _opened(submission) - _MARGIN)
