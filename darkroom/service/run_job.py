"""One job, from the claim to its end. Reads top to bottom as the story; leases, heartbeats and rescue are around it.

What may happen in between, and what is true then:

- The process dies before the intent is written: nothing was sent; the job is rescued and starts anew.
- It dies between the intent and the saved reply: nobody knows; the rescue turns the intent into a doubt.
- It dies after the acceptance is saved: a later hold finds the submission accepted and watches on.
- It dies after the verdict is saved: a later hold finds the result and copies what is not yet in the bucket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from darkroom.domain.errors import (
    DarkroomError,
    NotSentError,
    RateLimitedError,
    ResultGoneError,
    TransientError,
    UncertainError,
)
from darkroom.domain.generation import Completed, Generated, GenerationFailed, InQueue, RequestRef, Verdict
from darkroom.domain.ids import new_id
from darkroom.domain.job import Job, Submission
from darkroom.domain.krea import usd
from darkroom.domain.lifecycle import JobEvent, SubmissionStatus
from darkroom.domain.outcome import Cancelled, Doubted, Failed, Outcome, RetryAt, Snooze, Succeeded, Superseded
from darkroom.domain.policy import ATTEMPTS, LOOKS, Fate, Pace, Stop, reaction_to
from darkroom.ports import Acceptance, Generator, Opening, Schedule, Source, Transitions, Trouble
from darkroom.service.copy_artifacts import ArtifactCopier
from darkroom.service.persist import persist

logger = logging.getLogger(__name__)

_GONE_LOOKS = 4
"""So many 404s in a row, over some seconds, before fal is believed to have forgotten an accepted request."""

_LISTING_MARGIN = timedelta(minutes=5)


@dataclass(slots=True)
class Hold:
    """What the engine tells a running job: the lease's state, wishes, and that it should look now."""

    cancelling: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until there is something to look at."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return
        self.wake.clear()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a deployment decides about submissions.

    Times in seconds; `callback_url` gives fal's webhook.
    """

    start_timeout: int
    send_within: float
    price_per_megapixel: Decimal
    callback_url: Callable[[str], str | None]
    callbacks: bool = False


class JobRunner:
    """Carries claimed jobs on. One for all jobs of a process; it keeps nothing of a job."""

    def __init__(
        self,
        *,
        transitions: Transitions,
        schedule: Schedule,
        generator: Generator,
        copier: ArtifactCopier,
        terms: Terms,
    ) -> None:
        self._transitions = transitions
        self._schedule = schedule
        self._generator = generator
        self._copier = copier
        self._terms = terms
        self._pace = Pace(callbacks=terms.callbacks)
        self._saving: set[asyncio.Task[Submission | Outcome]] = set()

    async def run(self, job: Job, hold: Hold) -> None:
        """Carry a claimed job on until its hold ends, and record how it ended."""
        try:
            outcome = await self._carry(job, hold)
        except TransientError as error:
            outcome = RetryAt(ATTEMPTS.delay(1), error, counts=False)
        await self._record(job, outcome)

    async def _carry(self, job: Job, hold: Hold) -> Outcome:
        submission = _to_resume(job)
        if submission is None:
            if hold.cancelling:
                return Cancelled()
            submitted = await self._submit(job)
            if not isinstance(submitted, Submission):
                return submitted
            submission = submitted
        verdict = submission.result or await self._watch(job, submission, hold)
        if isinstance(verdict, ResultGoneError):
            return Cancelled() if hold.cancelling else Failed(JobEvent.EXHAUSTED, verdict)
        if isinstance(verdict, GenerationFailed):
            return Cancelled() if hold.cancelling else await self._after_rejection(job, verdict.error, Trouble.RUN)
        copied = await self._copier.copy(job, submission, verdict)
        return Cancelled() if hold.cancelling and isinstance(copied, Succeeded) else copied

    # -- submit once ---------------------------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> Submission | Outcome:
        """Intent, POST, reply.

        Once begun, neither a lost lease nor a shutdown interrupts it before the reply is saved.
        """
        task = asyncio.create_task(self._submit_and_save(job))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # More of them follow, one with each heartbeat of a lost lease: none may reach the task.
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            outcome = task.result()
            if not isinstance(outcome, Submission):
                await self._record(job, outcome)
            raise

    @property
    def saving(self) -> bool:
        """Whether a submission of this process is between its intent and its saved reply."""
        return bool(self._saving)

    async def saved(self) -> None:
        """Wait until no submission of this process is between its intent and its saved reply."""
        while self._saving:
            await asyncio.wait(self._saving)

    async def _submit_and_save(self, job: Job) -> Submission | Outcome:
        # Taken before the intent: a process that was frozen in between sends nothing, and that is known for certain.
        send_by = time.monotonic() + self._terms.send_within
        submission_id = new_id("sub")
        opening = await persist(
            lambda: self._transitions.open_submission(job, submission_id), "an intent", submission_id=submission_id
        )
        if opening in {Opening.UNREPLICATED, Opening.LEASE}:
            # The intent may be written; that nothing was sent for it is certain, and only this process knows.
            await self._reject(submission_id, NotSentError("nothing was sent", code="not_sent"))
        if opening is Opening.UNREPLICATED:
            await self._cool_down(2)
        if opening is not Opening.OPENED:
            return _not_opened(opening, job)
        try:
            ref = await self._generator.submit(
                job.model,
                job.arguments,
                start_timeout=self._terms.start_timeout,
                callback_url=self._terms.callback_url(submission_id),
                send_by=send_by,
            )
        except UncertainError as error:
            logger.warning("submission %s of %s: the reply was lost (%s)", submission_id, job.id, error.message)
            return Doubted(submission_id, error)
        except DarkroomError as error:
            await self._reject(submission_id, error)
            return await self._after_rejection(job, error, Trouble.SUBMIT)
        return await self._accept(job, submission_id, ref)

    async def _accept(self, job: Job, submission_id: str, ref: RequestRef) -> Submission | Outcome:
        names = {"job_id": job.id, "submission_id": submission_id, "fal_request_id": ref.request_id}
        logger.info("fal took %s as %s", job.id, ref.request_id, extra=names)
        acceptance = await persist(
            lambda: self._transitions.accept_submission(submission_id, ref, Source.REPLY),
            "fal took a submission",
            **names,
        )
        if acceptance is Acceptance.ACCEPTED:
            now = time.time_ns() // 1_000_000
            return Submission(submission_id, job.id, SubmissionStatus.ACCEPTED, now, ref=ref, accepted_at=now)
        if acceptance is Acceptance.OWNED:
            # Another submission of the same input was matched to our request: reconciling finds the one that is over.
            return Doubted(submission_id, UncertainError("the request was taken for another submission's"))
        logger.error("submission %s: acceptance recorded as %s", submission_id, acceptance, extra=names)
        return Superseded()

    async def _reject(self, submission_id: str, error: DarkroomError) -> None:
        await persist(
            lambda: self._transitions.reject_submission(submission_id, error),
            "fal did not take a submission",
            submission_id=submission_id,
        )

    async def _after_rejection(self, job: Job, error: DarkroomError, trouble: Trouble) -> Outcome:
        """Nothing is running for this job. The policy's table decides what follows, for it and for everybody."""
        reaction = reaction_to(error)
        stopped = False
        if reaction.stop is Stop.COOLDOWN:
            named = error.retry_after if isinstance(error, RateLimitedError) else None
            await self._cool_down(named or self._pace.slow_down())
        elif reaction.stop is Stop.GATE:
            logger.error("fal refuses submissions: %s", error.message)
            await persist(lambda: self._schedule.close_gate(job.id, error), "the gate is closed")
        elif reaction.stop is Stop.BREAKER:
            stopped = await persist(lambda: self._schedule.trip(job.id, error, trouble), "trouble with fal")
        match reaction.fate:
            case Fate.FAIL:
                return Failed(JobEvent.REJECTED, error)
            case Fate.SNOOZE:
                return Snooze(error.code)
            case Fate.RETRY:
                # With the breaker open the trouble is fal's, and no job's attempt.
                return RetryAt(ATTEMPTS.delay(job.errored + 1), error, counts=not stopped)

    async def _cool_down(self, seconds: float) -> None:
        logger.warning("nobody submits for %.1f s", seconds)
        await persist(lambda: self._schedule.cool_down(seconds), "a cooldown")

    # -- watch ---------------------------------------------------------------------------------------------------------

    async def _watch(self, job: Job, submission: Submission, hold: Hold) -> Verdict | ResultGoneError:
        """Look until fal has a verdict, with few requests; a wish or a callback makes the next look come now."""
        ref = _ref(submission)
        told = False
        failures = gone = looks = 0
        self._pace.recovered()
        delay = self._pace.first_look(resumed=job.submission is not None)
        while True:
            await hold.pause(delay)
            if hold.cancelling and not told:
                told = await self._tell_fal(ref)
            try:
                status = await self._generator.status(ref)
                if isinstance(status, Completed):
                    verdict = await self._generator.result(ref, status)
                    if status.inference_seconds is not None:
                        self._pace.learn(status.inference_seconds)
                    return await self._save_verdict(submission, verdict)
            except ResultGoneError as error:
                gone += 1
                if gone >= _GONE_LOOKS or told:
                    return await self._save_verdict(submission, await self._look_elsewhere(job, submission, error))
                delay = LOOKS.delay(gone + 2)
            except DarkroomError:
                failures += 1
                delay = LOOKS.delay(failures)
            else:
                failures = gone = 0
                looks += 1
                delay = self._pace.next_look(looks, queued=isinstance(status, InQueue))

    async def _tell_fal(self, ref: RequestRef) -> bool:
        try:
            await self._generator.cancel(ref)
        except DarkroomError as error:
            logger.info("fal could not be told of a cancellation: %s", error.message)
            return False
        return True

    async def _look_elsewhere(
        self, job: Job, submission: Submission, error: ResultGoneError
    ) -> Generated | ResultGoneError:
        """Where fal forgot the request, its listing may still have the output."""
        opened = datetime.fromtimestamp(submission.opened_at / 1000, tz=UTC)
        try:
            listed = await self._generator.list_requests(
                job.model, since=opened - _LISTING_MARGIN, until=datetime.now(UTC) + _LISTING_MARGIN
            )
        except DarkroomError as fault:
            logger.warning("the listing cannot be read for a lost result: %s", fault.message)
            return error
        for item in listed:
            if item.request_id == _ref(submission).request_id and item.output:
                verdict = self._generator.parse_output(item.output)
                if isinstance(verdict, Generated):
                    return verdict
        return error

    async def _save_verdict(
        self, submission: Submission, verdict: Verdict | ResultGoneError
    ) -> Verdict | ResultGoneError:
        cost = None
        if not isinstance(verdict, ResultGoneError) and verdict.billable_units is not None:
            cost = usd(verdict.billable_units, self._terms.price_per_megapixel)
        await persist(
            lambda: self._transitions.finish_submission(submission.id, verdict, cost),
            "fal's verdict",
            submission_id=submission.id,
        )
        return verdict

    # -- record --------------------------------------------------------------------------------------------------------

    async def _record(self, job: Job, outcome: Outcome) -> None:
        """Write how the hold ended. Fenced: when the lease was lost in between, nothing is written."""
        lease = job.lease or ""
        names = {"job_id": job.id, "outcome": type(outcome).__name__.lower()}
        logger.info("%s: %s", job.id, names["outcome"], extra=names)
        write = self._transitions
        match outcome:
            case Succeeded():
                await persist(lambda: write.finish(job.id, lease, JobEvent.COMPLETED), "a job succeeded", **names)
            case Failed(event, error):
                await persist(lambda: write.finish(job.id, lease, event, error), "a job failed", **names)
            case Cancelled():
                await persist(lambda: write.finish(job.id, lease, JobEvent.CANCELLED), "a job was cancelled", **names)
            case RetryAt(delay, error, counts):
                await persist(
                    lambda: write.retry(job.id, lease, delay=delay, error=error, counts=counts), "a retry", **names
                )
            case Snooze():
                await persist(lambda: write.snooze(job.id, lease), "a snooze", **names)
            case Doubted(submission_id, error):
                await persist(lambda: write.doubt(job.id, lease, submission_id, error), "a doubt", **names)
            case Superseded():
                pass


def _to_resume(job: Job) -> Submission | None:
    """The submission whose work is under way or done; None when a new one is needed."""
    submission = job.submission
    if submission is None:
        return None
    good = submission.status is SubmissionStatus.DONE and submission.outcome == "ok"
    return submission if good or submission.status is SubmissionStatus.ACCEPTED else None


def _ref(submission: Submission) -> RequestRef:
    if submission.ref is None:
        raise ValueError(f"submission {submission.id} has no request id to watch")
    return submission.ref


def _not_opened(opening: Opening, job: Job) -> Outcome:
    match opening:
        case Opening.OPEN if job.submission is not None and job.submission.outcome == "lost":
            # An earlier hold found that fal no longer has the result, and died before it could end the job.
            kept = job.submission.error or {}
            return Failed(JobEvent.EXHAUSTED, ResultGoneError(kept.get("message", "fal no longer has the result")))
        case Opening.LEASE:
            return Superseded()
        case Opening.CANCEL:
            return Cancelled()
        case Opening.DEADLINE:
            return Failed(
                JobEvent.EXPIRED,
                DarkroomError("the deadline passed before anything was submitted", code="deadline_exceeded"),
            )
        case _:
            return Snooze(opening.value)
