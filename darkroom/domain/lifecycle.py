"""The lives of a job, a batch, a submission and a delivery: states, events and the tables of transitions, on one page.

The tables here are the only ones. The Lua scripts that apply transitions receive them as data, the diagrams in
ARCHITECTURE.md are drawn from them, and the state machine test compares what the store did with what they allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    """Waits: for a slot, for its message to be claimed, for a doubt to be reconciled, or (held) for an operator."""
    RUNNING = "running"
    """A worker holds the job's lease. Progress within is a checkpoint on the record, not a state."""
    RETRYING = "retrying"
    """An attempt errored; a timer brings the job back to the queue."""
    SUCCEEDED = "succeeded"
    """Every picture lies in the bucket."""
    FAILED = "failed"
    """Ended without its pictures, for the reason in `error`. Can be replayed."""
    CANCELLED = "cancelled"
    """Ended at its owner's wish. Pictures that fal finished anyway are kept. Can be replayed."""


class JobEvent(StrEnum):
    """What happens to a job. The name of the script's transition and the edge in the diagram."""

    DISPATCHED = "dispatched"
    """Got a permit (or needs none); its message is on its way to a worker."""
    CLAIMED = "claimed"
    """A worker took the lease."""
    SNOOZED = "snoozed"
    """The worker put it back without using an attempt: gate, cooldown, shutdown."""
    RESCUED = "rescued"
    """Its lease expired: the worker that held it is gone or frozen."""
    DOUBTED = "doubted"
    """Its submission's outcome is unknown; reconciling begins."""
    HELD = "held"
    """Reconciling could not settle it; an operator, a late callback or the deadline ends it."""
    SETTLED = "settled"
    """The doubt is over: the job resumes the adopted request, or may submit anew."""
    ERRORED = "errored"
    """An attempt met a fault that is worth another attempt."""
    DUE = "due"
    """The wait for the next attempt is over."""
    COMPLETED = "completed"
    """Every picture is stored."""
    REJECTED = "rejected"
    """fal refused the input: the caller's to mend."""
    EXHAUSTED = "exhausted"
    """Attempts, rescues, copies or the grace for a paid job are used up; or the outcome stays unknown."""
    EXPIRED = "expired"
    """The deadline passed while nothing was paid."""
    CANCELLED = "cancelled"
    """The owner's cancellation took effect."""
    REPLAYED = "replayed"
    """An ended job starts a new life."""


class SubmissionStatus(StrEnum):
    """Where one paid POST of ours is in its life."""

    INTENDED = "intended"
    """The intent is written; the POST may or may not have left."""
    ACCEPTED = "accepted"
    """fal took it: its request_id is known."""
    DONE = "done"
    """fal's verdict is recorded, with its bill."""
    REJECTED = "rejected"
    """Nothing was sent, or fal said no. Nothing is running, nothing is billed."""
    UNCERTAIN = "uncertain"
    """The POST may have been taken; reconciling looks for it."""
    ABSENT = "absent"
    """Proven not to exist at fal."""
    ABANDONED = "abandoned"
    """Unknown for good: nobody looks any more. A later acceptance is recorded as a charge."""


class SubmissionEvent(StrEnum):
    """What happens to a submission.

    `accepted`, `rejected` and `finished` are facts: set once, not fenced by a lease.
    """

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DOUBTED = "doubted"
    DISPROVED = "disproved"
    ABANDONED = "abandoned"
    FINISHED = "finished"


class DeliveryStatus(StrEnum):
    """Where one event owed to one receiver is in its life."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """The receiver said that it will never take it (410)."""
    DEAD = "dead"
    """Every attempt of the schedule was used; an operator may redeliver."""


class DeliveryEvent(StrEnum):
    """What happens to a delivery."""

    ACKNOWLEDGED = "acknowledged"
    MISSED = "missed"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    REDELIVERED = "redelivered"


class BatchStatus(StrEnum):
    """Where a batch is in its life."""

    VALIDATING = "validating"
    """Its upload lies in the bucket; its lines are being checked, and its jobs made. None of them may run."""
    QUEUED = "queued"
    """All its jobs are there, and wait for their first turn or for `not_before`."""
    RUNNING = "running"
    """At least one of its jobs got a turn."""
    PAUSED = "paused"
    """No submission opens until it is resumed: its owner's wish, its budget, or its canary. What runs finishes."""
    CANCELLING = "cancelling"
    """What is not paid is being ended (a cancellation, or `finish_by` has passed); what runs finishes."""
    COMPLETED = "completed"
    """Every job ended, and the outcome lies in the bucket."""
    CANCELLED = "cancelled"
    """Ended at its owner's wish, the outcome of what had run in the bucket."""
    FAILED = "failed"
    """Nothing was started: the upload has mistakes, which its error file names."""
    EXPIRED = "expired"
    """`finish_by` passed; the outcome of what had run lies in the bucket."""


class BatchEvent(StrEnum):
    """What happens to a batch."""

    REJECTED = "rejected"
    """Its lines have mistakes, or there are none."""
    STARTED = "started"
    """The whole intake is in."""
    BEGAN = "began"
    """The first of its jobs got a turn."""
    PAUSED = "paused"
    RESUMED = "resumed"
    ENDING = "ending"
    """It is to be cancelled, or has expired: what is not paid is being ended."""
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REOPENED = "reopened"
    """Jobs of it started a new life after it had ended."""


_Q, _R, _T = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.RETRYING
_S, _F, _C = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED

JOB: Final[Mapping[JobStatus, Mapping[JobEvent, JobStatus]]] = {
    _Q: {
        JobEvent.DISPATCHED: _Q,
        JobEvent.CLAIMED: _R,
        JobEvent.HELD: _Q,
        JobEvent.SETTLED: _Q,
        JobEvent.EXPIRED: _F,
        JobEvent.EXHAUSTED: _F,
        JobEvent.CANCELLED: _C,
    },
    _R: {
        JobEvent.SNOOZED: _Q,
        JobEvent.RESCUED: _Q,
        JobEvent.DOUBTED: _Q,
        JobEvent.ERRORED: _T,
        JobEvent.COMPLETED: _S,
        JobEvent.REJECTED: _F,
        JobEvent.EXHAUSTED: _F,
        JobEvent.EXPIRED: _F,
        JobEvent.CANCELLED: _C,
    },
    _T: {
        JobEvent.DUE: _Q,
        JobEvent.EXPIRED: _F,
        JobEvent.EXHAUSTED: _F,
        JobEvent.CANCELLED: _C,
    },
    _S: {},
    _F: {JobEvent.REPLAYED: _Q},
    _C: {JobEvent.REPLAYED: _Q},
}

SUBMISSION: Final[Mapping[SubmissionStatus, Mapping[SubmissionEvent, SubmissionStatus]]] = {
    SubmissionStatus.INTENDED: {
        SubmissionEvent.ACCEPTED: SubmissionStatus.ACCEPTED,
        SubmissionEvent.REJECTED: SubmissionStatus.REJECTED,
        SubmissionEvent.DOUBTED: SubmissionStatus.UNCERTAIN,
    },
    SubmissionStatus.UNCERTAIN: {
        SubmissionEvent.ACCEPTED: SubmissionStatus.ACCEPTED,
        SubmissionEvent.REJECTED: SubmissionStatus.REJECTED,
        SubmissionEvent.DISPROVED: SubmissionStatus.ABSENT,
        SubmissionEvent.ABANDONED: SubmissionStatus.ABANDONED,
    },
    SubmissionStatus.ACCEPTED: {SubmissionEvent.FINISHED: SubmissionStatus.DONE},
    SubmissionStatus.DONE: {},
    SubmissionStatus.REJECTED: {},
    SubmissionStatus.ABSENT: {},
    SubmissionStatus.ABANDONED: {},
}

DELIVERY: Final[Mapping[DeliveryStatus, Mapping[DeliveryEvent, DeliveryStatus]]] = {
    DeliveryStatus.PENDING: {
        DeliveryEvent.ACKNOWLEDGED: DeliveryStatus.DELIVERED,
        DeliveryEvent.MISSED: DeliveryStatus.PENDING,
        DeliveryEvent.REFUSED: DeliveryStatus.FAILED,
        DeliveryEvent.EXHAUSTED: DeliveryStatus.DEAD,
        DeliveryEvent.REDELIVERED: DeliveryStatus.PENDING,
    },
    DeliveryStatus.DELIVERED: {DeliveryEvent.REDELIVERED: DeliveryStatus.PENDING},
    DeliveryStatus.FAILED: {DeliveryEvent.REDELIVERED: DeliveryStatus.PENDING},
    DeliveryStatus.DEAD: {DeliveryEvent.REDELIVERED: DeliveryStatus.PENDING},
}

_REOPENS: Final = {BatchEvent.REOPENED: BatchStatus.QUEUED}

BATCH: Final[Mapping[BatchStatus, Mapping[BatchEvent, BatchStatus]]] = {
    BatchStatus.VALIDATING: {
        BatchEvent.REJECTED: BatchStatus.FAILED,
        BatchEvent.STARTED: BatchStatus.QUEUED,
        BatchEvent.ENDING: BatchStatus.CANCELLING,
    },
    BatchStatus.QUEUED: {
        BatchEvent.BEGAN: BatchStatus.RUNNING,
        BatchEvent.PAUSED: BatchStatus.PAUSED,
        BatchEvent.ENDING: BatchStatus.CANCELLING,
        BatchEvent.COMPLETED: BatchStatus.COMPLETED,
    },
    BatchStatus.RUNNING: {
        BatchEvent.PAUSED: BatchStatus.PAUSED,
        BatchEvent.ENDING: BatchStatus.CANCELLING,
        BatchEvent.COMPLETED: BatchStatus.COMPLETED,
    },
    BatchStatus.PAUSED: {
        BatchEvent.RESUMED: BatchStatus.QUEUED,
        BatchEvent.ENDING: BatchStatus.CANCELLING,
        BatchEvent.COMPLETED: BatchStatus.COMPLETED,
    },
    BatchStatus.CANCELLING: {
        BatchEvent.CANCELLED: BatchStatus.CANCELLED,
        BatchEvent.EXPIRED: BatchStatus.EXPIRED,
    },
    BatchStatus.COMPLETED: _REOPENS,
    BatchStatus.CANCELLED: _REOPENS,
    BatchStatus.EXPIRED: _REOPENS,
    BatchStatus.FAILED: {},
}

TERMINAL_BATCH: Final = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.CANCELLED, BatchStatus.FAILED, BatchStatus.EXPIRED}
)

FEEDING: Final = frozenset({BatchStatus.QUEUED, BatchStatus.RUNNING})
"""While a batch is in one of these, its jobs get turns and submissions for them may open."""

TERMINAL: Final = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

OPEN_SUBMISSION: Final = frozenset({SubmissionStatus.INTENDED, SubmissionStatus.UNCERTAIN, SubmissionStatus.ACCEPTED})
"""While a job's submission is in one of these, no other may open: something may be running and billed for it."""


class Place(StrEnum):
    """Where a non-terminal job waits or is worked: it is always in exactly one. `none` is for ended jobs."""

    READY = "ready"
    """Wants a permit."""
    RESUME = "resume"
    """Its submission is accepted or its result known: needs no permit, is dispatched first."""
    REPUBLISH = "republish"
    """Timer: dispatched; its message is sent again until a worker claims it."""
    RETRY = "retry"
    """Timer: the next attempt."""
    RECONCILE = "reconcile"
    """Timer: the next look for a request whose reply was lost."""
    LEASE = "lease"
    """A worker holds it."""
    HELD = "held"
    """Waits for an operator, a late callback or its deadline."""
    NONE = "none"


class Stage(StrEnum):
    """What a non-terminal job is doing or waiting for, for people."""

    WAITING_FOR_SLOT = "waiting_for_slot"
    SUBMITTING = "submitting"
    RECONCILING = "reconciling"
    HELD = "held"
    GENERATING = "generating"
    COPYING = "copying"
    SCHEDULED = "scheduled"
    PAUSED = "paused"
    BLOCKED = "blocked"


class Lane(StrEnum):
    """How urgent a job is: an interactive one always goes before the bulk ones."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
