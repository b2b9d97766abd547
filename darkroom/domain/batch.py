"""A batch as the store hands it out, and how its jobs are named. Times are Unix milliseconds by the store's clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from darkroom.domain.ids import decode, encode
from darkroom.domain.lifecycle import TERMINAL_BATCH, BatchStatus, Stage

LINES_MAX: Final = 100_000
BYTES_MAX: Final = 256 * 1024 * 1024


class OnInvalid(StrEnum):
    """What an upload with mistakes leads to."""

    REJECT = "reject"
    """Nothing starts."""
    SKIP = "skip"
    """The lines without mistakes start."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch whose upload is stored.

    `canary_max_failures` is a share of 1; `job_events`: its receiver hears of each job too; `fingerprint` is of the
    whole request.
    """

    id: str
    account_id: str
    name: str
    on_invalid: OnInvalid
    budget_usd: Decimal | None
    not_before: int | None
    finish_by: int | None
    webhook_url: str | None
    canary: int | None
    canary_max_failures: float | None
    lines: int
    bytes: int
    job_events: bool = False
    idempotency: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of its jobs are where; `held` ones are not counted as queued."""

    total: int = 0
    queued: int = 0
    running: int = 0
    retrying: int = 0
    held: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def left(self) -> int:
        """Those that have not ended."""
        return self.queued + self.running + self.retrying + self.held


@dataclass(frozen=True, slots=True)
class Cause:
    """Failed jobs of one error code, and one of them to look at."""

    code: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs submitted together.

    `valid`, `invalid` and `estimate_usd` are known once it is judged; `rate` is ended jobs a second, as it was at
    `rate_at`; `added` is the last line whose job is made; `cursor` is how far ending or retrying its jobs has come.
    """

    id: str
    account_id: str
    name: str
    status: BatchStatus
    status_reason: str | None
    on_invalid: OnInvalid
    created_at: int
    started_at: int | None
    finished_at: int | None
    not_before: int | None
    finish_by: int | None
    webhook_url: str | None
    canary: int | None
    canary_max_failures: float | None
    budget_usd: Decimal | None
    spent_usd: Decimal
    reserved_usd: Decimal
    estimate_usd: Decimal
    pictures: int
    lines: int
    bytes: int
    judged: bool
    valid: int | None
    invalid: int | None
    last_line: int
    added: int
    cursor: int
    counts: Counts
    rate: float
    rate_at: int | None
    version: int
    job_events: bool = False
    causes: tuple[Cause, ...] = ()


# names --------------------------------------------------------------------------------------------------------------


def batch_job_id(batch_id: str, line: int) -> str:
    """The id of the job of a line: the same whenever it is asked for, sorted by batch and line.

    It has the time part of its batch's id, the line in 32 bits, and 48 bits of the batch's hash.
    """
    time_part = batch_id.removeprefix("batch_")[:10]
    return f"job_{time_part}{encode((line << 48) | _hash(batch_id, 48), 16)}"


def line_of(job_id: str) -> int:
    """The line of a batch's job."""
    return decode(job_id.removeprefix("job_")[10:]) >> 48


def batch_seed(batch_id: str, line: int) -> int:
    """The seed of a line that names none: the same whenever its job is made again."""
    return _hash(f"{batch_id}:{line}", 31)


def file_name(custom_id: str | None, line: int) -> str:
    """What a job's pictures are called in a download: its custom id, percent-encoded, or its line."""
    return quote(custom_id, safe="") if custom_id else str(line)


def slices(first: int, last: int, size: int) -> Iterator[range]:
    """Lines from `first` to `last`, in order, in ranges of that size."""
    for start in range(first, last + 1, size):
        yield range(start, min(start + size, last + 1))


def batch_key(prefix: str, account_id: str, batch_id: str, name: str) -> str:
    """Where a batch's object lies in the bucket."""
    return f"{prefix}{account_id}/batches/{batch_id}/{name}"


def files_of(batch: Batch) -> list[str]:
    """Its files that lie in the bucket by now, so that they can be fetched. Those of an earlier end do not count."""
    names = ["input.jsonl"]
    if batch.status in TERMINAL_BATCH or batch.invalid:
        names.append("errors.jsonl")
    if batch.status in TERMINAL_BATCH - {BatchStatus.FAILED}:
        names += ["results.jsonl", "SHA256SUMS", "index.html", "manifest.json"]
    return names


def _hash(text: str, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - bits)


# waiting --------------------------------------------------------------------------------------------------------------


class Feeds(StrEnum):
    """Which of a batch's jobs get turns now."""

    NONE = "none"
    CANARY = "canary"
    ALL = "all"


def waits_for(feeds: Feeds, status: BatchStatus, reason: str | None, *, canary: bool) -> Stage:
    """What a job waits for that wants a permit, by its batch; `canary`: it belongs to the batch's."""
    if feeds is Feeds.ALL or (feeds is Feeds.CANARY and canary):
        return Stage.WAITING_FOR_SLOT
    if reason == "budget":
        return Stage.BLOCKED
    if reason == "not_before" or status is BatchStatus.VALIDATING:
        return Stage.SCHEDULED
    return Stage.PAUSED


# forecast -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """What the deployment does now: requests at fal at a time, seconds that one takes, jobs that wait already."""

    permits: int
    seconds_a_job: float
    waiting: int


def finish_at(now_ms: int, jobs: int, pace: Pace, *, rate: float = 0.0, not_before: int | None = None) -> int:
    """When so many jobs will probably have ended (ms): by the speed seen lately, else by what the deployment can do."""
    begin = max(now_ms, not_before or 0)
    if jobs == 0:
        return now_ms
    seconds = jobs / rate if rate > 0 else (jobs + pace.waiting) * pace.seconds_a_job / max(1, pace.permits)
    return begin + int(seconds * 1000)


def counts_of(record: Mapping[str, str]) -> Counts:
    """Counts from a record's `n_…` fields."""
    return Counts(**{name: int(record.get(f"n_{name}", 0)) for name in Counts.__slots__})
