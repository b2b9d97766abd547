"""What services need from the outside world.

Adapters provide these; tests may provide stand-ins that pass the same suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, BinaryIO, Protocol

from darkroom.domain.batch import Batch, NewBatch, Pace
from darkroom.domain.errors import DarkroomError, ResultGoneError
from darkroom.domain.generation import Completed, GenerationStatus, ListedRequest, RequestRef, Verdict
from darkroom.domain.job import Account, ApiKey, Artifact, Delivery, Event, Job, NewJob
from darkroom.domain.lifecycle import BatchStatus, DeliveryEvent, DeliveryStatus, JobEvent, JobStatus, Lane, Stage


class Generator(Protocol):
    """fal's queue, for one model at a time. Every method has its own time limit and follows no redirects."""

    async def submit(
        self, model: str, arguments: Mapping[str, Any], *, start_timeout: int, callback_url: str | None, send_by: float
    ) -> RequestRef:
        """Send the paid POST, once, on a fresh connection.

        `send_by` is a `time.monotonic()` value: past it nothing is sent (the process was frozen), and NotSentError
        with code `not_sent` is raised. Returns the reference when fal took the request. Raises, when fal certainly did
        not take it: PermanentError, RateLimitedError, BlockedError, TransientError (NotSentError where nothing left
        this machine). Raises UncertainError in every other case: the request may be running and billed.
        """

    async def status(self, ref: RequestRef) -> GenerationStatus:
        """Look once.

        Raises TransientError for anything unreadable (401, 403, 429 and 5xx included), ResultGoneError on 404/410.
        """

    async def result(self, ref: RequestRef, completed: Completed) -> Verdict:
        """Fetch the verdict of a completed request, billing header included.

        Raises ResultPendingError when fal says it is not there yet, TransientError for anything that is not fal's own
        word about the generation, ResultGoneError when it has expired.
        """

    async def cancel(self, ref: RequestRef) -> bool:
        """Ask fal to stop.

        True when fal took the wish (it may still complete and be billed), False when it was too late.
        """

    async def list_requests(self, model: str, *, since: datetime, until: datetime) -> list[ListedRequest]:
        """The account's requests of that time, read to the last page.

        Raises TransientError or BlockedError when any page fails.
        """

    def reference(self, model: str, request_id: str) -> RequestRef:
        """The reference of a request known by its id alone: the only case in which its URLs are built."""

    def parse_output(self, output: Mapping[str, Any]) -> Verdict | None:
        """Read the output payload of a listed request; None when it holds no usable pictures."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A verified picture on this machine.

    `file` is open and at its start; `sha256` is in hex; sizes in bytes and pixels.
    """

    file: BinaryIO
    size: int
    sha256: str
    content_type: str
    width: int
    height: int
    blank: bool


class MediaFetcher(Protocol):
    """Downloads pictures from fal's media hosts, without the API key."""

    def fetch(self, url: str) -> AbstractAsyncContextManager[Picture]:
        """Stream one picture to this machine and verify it.

        Raises TransientError (network, 5xx, 429), ResultGoneError (404, 410), UnreadableMediaError (truncated, too
        large, not an image, unreadable), PermanentError with code `media_host_refused` (host not on the allow-list, a
        private address behind it, a redirect).
        """


class Thumbnails(Protocol):
    """Small copies of pictures, so that a person can look at thousands."""

    async def make(self, picture: Picture) -> bytes | None:
        """A JPEG of at most 256 pixels a side. None for a picture that is too large to be decoded, or cannot be."""


class ArtifactStore(Protocol):
    """The deployment's bucket."""

    async def put_picture(self, key: str, picture: Picture, metadata: Mapping[str, str]) -> None:
        """Upload; a repeat overwrites itself.

        After return the object is durable. Raises TransientError or BlockedError.
        """

    async def put_json(self, key: str, document: Mapping[str, Any]) -> None:
        """Upload a JSON document. Raises TransientError or BlockedError."""

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> None:
        """Upload a few bytes. Raises TransientError or BlockedError."""

    async def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are no error. Raises TransientError or BlockedError."""

    async def check(self) -> None:
        """One cheap look at the bucket. Raises TransientError or BlockedError when pictures could not be stored now."""

    def presign(self, key: str) -> tuple[str, datetime]:
        """A URL that reads the object without credentials (SigV4), and when it expires (UTC). No network."""


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What one delivery attempt met.

    `error` is set exactly when no HTTP status was received; latency in milliseconds.
    """

    status_code: int | None
    error: str | None
    latency_ms: int
    response_excerpt: str
    retry_after: float | None


class WebhookSender(Protocol):
    """Sends one signed webhook. Never raises for what the receiver does: that is the report."""

    async def send(self, url: str, *, secret: str, webhook_id: str, timestamp: datetime, body: bytes) -> AttemptReport:
        """POST once, signed (Standard Webhooks), to an address checked at the moment of connecting; no redirects."""


@dataclass(frozen=True, slots=True)
class Created:
    """What became of a wish to create.

    `created` is False when the key was known, `conflict` when for another request.
    """

    job_id: str
    created: bool
    conflict: bool


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of an account's jobs. `before` is where the last page ended: (created ms, job id)."""

    account_id: str
    status: JobStatus | None = None
    stage: Stage | None = None
    lane: Lane | None = None
    batch_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first, and where the next page begins; None when this was the last."""

    jobs: tuple[Job, ...]
    next: tuple[int, str] | None


class Hold(StrEnum):
    """What a heartbeat found."""

    LOST = "lost"
    HELD = "held"
    CANCELLING = "cancelling"


class Opening(StrEnum):
    """Whether a paid POST may go, or why not."""

    OPENED = "opened"
    LEASE = "lease"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    GATE = "gate"
    COOLDOWN = "cooldown"
    STORAGE = "s3"
    PERMIT = "permit"
    OPEN = "open"
    BATCH = "batch"
    BUDGET = "budget"
    UNREPLICATED = "unreplicated"


class Source(StrEnum):
    """How a request id became known."""

    REPLY = "reply"
    CALLBACK = "callback"
    LISTING = "listing"
    OPERATOR = "operator"


class Acceptance(StrEnum):
    """What recording an acceptance found.

    ACCEPTED and the first of a kind are safe; DOUBLE and LATE are charges on record.
    """

    ACCEPTED = "accepted"
    OWNED = "owned"
    DOUBLE = "double"
    LATE = "late"
    BUSY = "busy"
    UNKNOWN = "unknown"


class Trouble(StrEnum):
    """Where fal fails: taking submissions, or generating. A success of the same kind ends a row of faults."""

    SUBMIT = "submit"
    RUN = "run"


class Settlement(StrEnum):
    """What a look for a lost reply ended with."""

    LATER = "later"
    ABSENT = "absent"
    HOLD = "hold"
    RESUBMIT = "resubmit"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Limits:
    """What dispatch keeps to, the same for every worker.

    `rate_interval` is milliseconds between submissions, 0 for none.
    """

    permits: int
    reserve: int
    copying: int
    rate_interval: float


@dataclass(frozen=True, slots=True)
class Message:
    """A hint for a worker: `run` a job of that lane, or `deliver` a delivery (no lane)."""

    kind: str
    lane: Lane | None
    id: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A running job is to be looked at now: fal has called back, or (`cancel`) its owner wants it to end."""

    job_id: str
    cancel: bool


class Jobs(Protocol):
    """The door's side of the records: accept, look, and the owner's wishes. Every method may raise UnavailableError."""

    async def create(self, job: NewJob) -> Created:
        """Accept a job.

        When this returns it is stored, and will end. Repeatable by the job's id and the idempotency key.
        """

    async def get(self, job_id: str) -> Job | None:
        """The record as it is now.

        The stage of a job that wants a permit says what keeps it from one: `blocked` by a gate or its batch's budget,
        `paused` or `scheduled` with its batch, else `waiting_for_slot`.
        """

    async def knows(self, account_id: str, idempotency: str) -> bool:
        """Whether a job was made with that idempotency key (given as its hash)."""

    async def waiting(self, account_id: str) -> int:
        """How many of the account's jobs are queued or retrying."""

    async def page(self, query: JobQuery) -> JobPage:
        """One page of an account's jobs, newest first."""

    async def cancel(self, job_id: str) -> JobStatus:
        """Ask that the job ends.

        Returns the status right after: cancelled, or the one it has until the wish takes effect.
        """

    async def replay(self, job_id: str, *, operation: str, accept_charge: bool) -> None:
        """Give an ended job a new life.

        Raises NotFoundError, or ConflictError (`job_not_replayable`, `charge_not_accepted`).
        """

    async def delete(self, job_id: str) -> None:
        """Remove an ended job's record. Raises NotFoundError, or ConflictError (`job_not_ended`)."""

    def changes(self, job_id: str) -> AbstractAsyncContextManager[Changes]:
        """Listen for changes of one job. What changed before entering is not told: read the record after entering."""


class Changes(Protocol):
    """A job's change signals; they may get lost, so a waiter also looks by itself now and then."""

    async def wait(self, seconds: float) -> bool:
        """True as soon as the job changed, False when that did not happen in time."""


class Transitions(Protocol):
    """The worker's side of the records: one method a transition, each repeatable. All may raise UnavailableError.

    Those that take a `lease` are fenced by it and return False when it was lost. Facts about a submission are not.
    """

    async def claim(self, job_id: str, lease: str) -> Job | None:
        """Take the lease of a dispatched job. None when the message was stale."""

    async def heartbeat(self, leases: Sequence[tuple[str, str]]) -> list[Hold]:
        """Renew leases, given as (job id, lease)."""

    async def rescue(self, job_id: str, lease: str) -> bool:
        """Take a job back from a worker that is gone. The caller saw the lease unchanged for its whole length."""

    async def open_submission(self, job: Job, submission_id: str) -> Opening:
        """Decide whether a paid POST may go, and write its intent durably before returning OPENED."""

    async def accept_submission(self, submission_id: str, ref: RequestRef, source: Source) -> Acceptance:
        """Record that fal took it."""

    async def reject_submission(self, submission_id: str, error: DarkroomError) -> None:
        """Record that nothing was sent, or fal said no."""

    async def finish_submission(
        self, submission_id: str, verdict: Verdict | ResultGoneError, cost_usd: Decimal | None
    ) -> None:
        """Record fal's verdict and bill; the permit is free."""

    async def keep_artifact(self, job_id: str, lease: str, artifact: Artifact) -> bool:
        """Checkpoint: this picture lies in the bucket."""

    async def snooze(self, job_id: str, lease: str) -> bool:
        """Put back without using an attempt."""

    async def retry(self, job_id: str, lease: str, *, delay: float, error: DarkroomError, counts: bool) -> bool:
        """Try again after `delay` seconds; with `counts` an attempt is used, and the last one ends the job."""

    async def doubt(self, job_id: str, lease: str, submission_id: str, error: DarkroomError) -> bool:
        """The POST's outcome is unknown: reconciling begins."""

    async def settle(self, submission_id: str, settlement: Settlement, *, delay: float = 0) -> bool:
        """Record what a look for a lost reply ended with; `delay` is for Settlement.LATER, in seconds."""

    async def finish(self, job_id: str, lease: str, event: JobEvent, error: DarkroomError | None = None) -> bool:
        """End a running job by COMPLETED, REJECTED, EXHAUSTED, EXPIRED or CANCELLED."""

    async def expire(self, job_id: str) -> None:
        """Its deadline, or a paid job's grace, has passed: end it if that may be."""


class Schedule(Protocol):
    """What is to happen next, for whom, and what stops it. All may raise UnavailableError."""

    async def now(self) -> datetime:
        """The store's clock: the only one that ages of records are measured by."""

    async def seen(self, worker_id: str) -> None:
        """This worker is alive."""

    async def announce_limits(self, limits: Limits) -> None:
        """Publish this deployment's limits for every dispatcher."""

    async def dispatch(self) -> float | None:
        """Hand out free permits. Seconds until it is worth trying again, None when only an event can tell."""

    async def tick(self) -> list[str]:
        """Apply due timers.

        Returns those that need more than the store: `reconcile:JOB`, `deadline:JOB`, `intake:BATCH` (see BatchTimer).
        """

    async def leases(self) -> list[tuple[str, str, int]]:
        """All running jobs: (job id, lease, expiry in ms)."""

    async def take_outbox(self, wait: float) -> list[Message]:
        """Messages to publish; waits up to `wait` seconds for the first.

        One that is lost is sent again by its timer.
        """

    async def cool_down(self, seconds: float) -> None:
        """Nobody submits for so long."""

    async def trip(self, job_id: str, error: DarkroomError, trouble: Trouble) -> bool:
        """One more fault of a kind in a row; after TROUBLE_MAX of them the gate closes. True when it is closed."""

    async def close_gate(self, job_id: str, error: DarkroomError) -> None:
        """Our key or balance is refused by fal: one probe at a time from now on."""

    async def set_storage(self, fault: DarkroomError | None) -> None:
        """Whether pictures can be stored: while they cannot, nothing is submitted. Holds for 20 seconds."""

    async def sweep(self, retention_days: int) -> list[str]:
        """Ended jobs whose retention is over."""

    def wishes(self) -> AbstractAsyncContextManager[AsyncIterator[Wish]]:
        """What is wanted of running jobs now. It may get lost: whoever holds them looks by itself too."""


class Deliveries(Protocol):
    """Events and what is owed for them. All may raise UnavailableError."""

    async def events(self, account_id: str, *, after: int, limit: int) -> list[Event]:
        """The account's log from seq `after` + 1 on."""

    async def get(self, delivery_id: str) -> Delivery | None:
        """One delivery with its attempts."""

    async def newest(self, account_id: str, *, job_id: str | None, status: DeliveryStatus | None) -> list[Delivery]:
        """The newest deliveries, at most 100."""

    async def claim(self, delivery_id: str, token: str, seconds: float) -> Delivery | None:
        """The right to make the next attempt, for so long. None when it is not due or another has it."""

    async def event_of(self, delivery: Delivery) -> Event | None:
        """The event it is owed for."""

    async def record(
        self, delivery_id: str, token: str, report: AttemptReport, event: DeliveryEvent, *, delay: float
    ) -> None:
        """Record one attempt and what follows from it."""

    async def redeliver(self, delivery_id: str) -> None:
        """Owe it again from now on."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an upload's idempotency key: a batch of an earlier request, or `busy`, or neither."""

    batch_id: str | None = None
    fingerprint: str = ""
    busy: bool = False


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Batches, newest first, and where the next page begins; None when this was the last."""

    batches: tuple[Batch, ...]
    next: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job of a batch, as its intake makes it. `estimate_usd` is exact."""

    id: str
    line: int
    custom_id: str | None
    arguments: dict[str, Any]
    metadata: dict[str, str]
    estimate_usd: Decimal
    canary: bool


class BatchTimer(StrEnum):
    """What a worker has to do for a batch: the kinds of its timers that need more than the store."""

    INTAKE = "intake"
    DRAIN = "drain"
    REPLAY = "replay"
    OUTCOME = "outcome"
    PURGE = "purge"


class Batches(Protocol):
    """Batches and what moves them. Every method is repeatable, and may raise UnavailableError."""

    async def begin_upload(self, account_id: str, idempotency: str, token: str, seconds: float) -> Known:
        """The right to upload under this key, for so long; ask again with the same token to keep it."""

    async def end_upload(self, account_id: str, idempotency: str, token: str) -> None:
        """The upload came to nothing: the key is free at once."""

    async def create(self, batch: NewBatch, token: str) -> Known:
        """The upload is stored: from here on the batch will end."""

    async def get(self, batch_id: str) -> Batch | None:
        """The record as it is now."""

    async def page(self, account_id: str, *, before: tuple[int, str] | None, limit: int) -> BatchPage:
        """The account's batches, newest first; `before` is where the last page ended: (created ms, id)."""

    async def waiting(self, account_id: str) -> int:
        """How many of the account's jobs are queued or retrying, those included that an intake is about to make."""

    async def mistakes(self, batch_id: str) -> list[dict[str, Any]]:
        """The first lines with mistakes."""

    async def hold(self, batch_id: str, timer: BatchTimer) -> BatchStatus | None:
        """Whoever works on this is alive. The status, None when the batch is gone."""

    async def judge(
        self,
        batch_id: str,
        *,
        good: bool,
        valid: int,
        invalid: int,
        estimate_usd: Decimal,
        pictures: int,
        last_line: int,
        mistakes: Sequence[Mapping[str, Any]],
    ) -> BatchStatus | None:
        """What validating found: where it is not good, the batch ends with nothing started."""

    async def add_jobs(self, batch_id: str, model: str, jobs: Sequence[BatchJob], *, up_to_line: int) -> bool:
        """One slice of an intake; none of them gets a turn before `start`. False when the intake is over."""

    async def start(self, batch_id: str) -> BatchStatus | None:
        """The whole intake is in."""

    async def pause(self, batch_id: str) -> None:
        """Open no submission. Raises NotFoundError, ConflictError (`batch_state`)."""

    async def resume(self, batch_id: str, budget_usd: Decimal | None) -> None:
        """Go on. Raises NotFoundError, ConflictError (`batch_state`, `budget_used_up`)."""

    async def cancel(self, batch_id: str) -> None:
        """Open no submission, and end what is not paid. Raises NotFoundError."""

    async def retry_failed(self, batch_id: str, *, operation: str, code: str | None, accept_charge: bool) -> None:
        """Give its failed jobs a new life. Raises NotFoundError, ConflictError (`batch_state`)."""

    async def drain(self, batch_id: str, job_ids: Sequence[str], *, up_to_line: int, last: bool) -> bool:
        """End what is not paid of these jobs. False when there is nothing to end any more."""

    async def replay(self, batch_id: str, job_ids: Sequence[str], *, up_to_line: int, last: bool) -> bool:
        """Give the failed ones of these jobs a new life. False when that is no longer wanted."""

    async def finish(self, batch_id: str) -> BatchStatus | None:
        """Its outcome lies in the bucket: it ends, unless jobs of it live again."""

    async def sweep(self, retention_days: int) -> None:
        """Have the records of batches purged whose retention is over."""

    async def delete(self, batch_id: str) -> None:
        """Remove an ended batch's record."""

    async def jobs(self, job_ids: Sequence[str]) -> list[Job]:
        """Those of these jobs that there are, in order."""

    async def pace(self) -> Pace:
        """What the deployment does now, for forecasts."""

    async def now(self) -> int:
        """The store's clock (ms)."""


class Upload(Protocol):
    """An object on its way to the bucket."""

    async def write(self, data: bytes) -> None:
        """Append. Raises TransientError or BlockedError."""


class BatchFiles(Protocol):
    """The bucket, for files that are larger than memory. All may raise TransientError or BlockedError."""

    def upload(self, key: str, content_type: str) -> AbstractAsyncContextManager[Upload]:
        """Write an object in parts: on leaving it is there as a whole; on an exception nothing is."""

    def chunks(self, key: str) -> AsyncIterator[bytes]:
        """Read an object in pieces. Raises NotFoundError too."""

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> None:
        """Upload a few bytes."""

    async def delete(self, keys: list[str]) -> None:
        """Remove objects."""


class Accounts(Protocol):
    """Who may ask. All may raise UnavailableError."""

    async def create(self, account_id: str, name: str, webhook_secret: str) -> None:
        """A new account; repeatable."""

    async def all(self) -> list[Account]:
        """Every account, oldest first."""

    async def account(self, account_id: str) -> Account | None:
        """One account."""

    async def webhook_secret(self, account_id: str) -> str:
        """What the account's webhooks are signed with (`whsec_…`). Raises NotFoundError."""

    async def create_key(self, account_id: str, key: str) -> ApiKey:
        """Store a key's hash. Raises NotFoundError when there is no such account."""

    async def keys(self, account_id: str) -> list[ApiKey]:
        """The account's keys, revoked ones included."""

    async def revoke_key(self, key_id: str) -> None:
        """It opens nothing from now on. Raises NotFoundError."""

    async def authenticate(self, key: str) -> str | None:
        """The account that a key opens, None for an unknown or revoked one."""

    async def usage(self, account_id: str, *, first_day: date, last_day: date) -> dict[date, dict[str, int]]:
        """Counters a UTC day: created, succeeded, failed, cancelled, pictures, spend_nano_usd."""


class Publisher(Protocol):
    """Carries messages to the workers. Losing or doubling one changes nothing."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Hand messages to the broker. Raises UnavailableError."""
