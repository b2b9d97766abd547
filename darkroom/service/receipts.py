"""The bill, submission by submission: what was sent, what became of it, what fal charged, and what does not add up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from darkroom.domain.job import Job, Submission
from darkroom.domain.lifecycle import JobStatus, SubmissionStatus
from darkroom.ports import Accounts, JobQuery, Jobs

_PAGE = 200


class Oddity(StrEnum):
    """Why somebody should look at a submission."""

    CHARGED_TWICE = "charged_twice"
    """Another submission of the same job was charged as well."""
    CHARGED_BUT_FAILED = "charged_but_failed"
    """Charged, and the job ended without succeeding."""
    UNKNOWN = "unknown"
    """Its outcome is not known: it may be charged."""
    LATE = "late"
    """fal took it after it was closed here, or took it twice: `late_request_id` may be charged too."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One submission. `outcome` is its status, and once done `ok`, `error` or `lost`. USD and megapixels."""

    at: datetime
    account_id: str
    job_id: str
    submission_id: str
    outcome: str
    fal_request_id: str | None
    billable_units: Decimal | None
    unit_price_usd: Decimal | None
    cost_usd: Decimal | None
    seed: int
    oddities: tuple[Oddity, ...]


@dataclass(slots=True)
class Totals:
    """Sums over receipts."""

    submissions: int = 0
    charged: int = 0
    billable_units: Decimal = Decimal()
    cost_usd: Decimal = Decimal()
    oddities: dict[Oddity, int] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Count one more."""
        self.submissions += 1
        self.charged += bool(receipt.cost_usd)
        self.billable_units += receipt.billable_units or 0
        self.cost_usd += receipt.cost_usd or 0
        for oddity in receipt.oddities:
            self.oddities[oddity] = self.oddities.get(oddity, 0) + 1


async def receipts(jobs: Jobs, accounts: Accounts, *, since: datetime) -> AsyncIterator[Receipt]:
    """Every submission opened since then that is still on record, account by account, newest jobs first."""
    for account in await accounts.all():
        position: tuple[int, str] | None = None
        while True:
            page = await jobs.page(JobQuery(account.id, before=position, limit=_PAGE))
            for job in page.jobs:
                for receipt in receipts_of(job):
                    if receipt.at >= since:
                        yield receipt
            position = page.next
            if position is None:
                break


def receipts_of(job: Job) -> list[Receipt]:
    """A job's submissions, in the order they were opened."""
    return [
        Receipt(
            at=datetime.fromtimestamp(submission.opened_at / 1000, tz=UTC),
            account_id=job.account_id,
            job_id=job.id,
            submission_id=submission.id,
            outcome=submission.outcome or submission.status.value,
            fal_request_id=submission.ref.request_id if submission.ref else None,
            billable_units=submission.billable_units,
            unit_price_usd=_unit_price(submission),
            cost_usd=submission.cost_usd,
            seed=int(job.arguments["seed"]),
            oddities=tuple(_oddities(job, submission)),
        )
        for submission in job.submissions
    ]


def _charged(submission: Submission) -> bool:
    """Billed by fal's own word, or good work whose bill did not say."""
    return bool(submission.cost_usd) or submission.outcome in {"ok", "lost"}


def _oddities(job: Job, submission: Submission) -> list[Oddity]:
    found = []
    charged = _charged(submission)
    if charged and sum(_charged(other) for other in job.submissions) > 1:
        found.append(Oddity.CHARGED_TWICE)
    if charged and job.status in {JobStatus.FAILED, JobStatus.CANCELLED}:
        found.append(Oddity.CHARGED_BUT_FAILED)
    if submission.status in {SubmissionStatus.UNCERTAIN, SubmissionStatus.ABANDONED}:
        found.append(Oddity.UNKNOWN)
    if submission.late_request_id is not None:
        found.append(Oddity.LATE)
    return found


def _unit_price(submission: Submission) -> Decimal | None:
    if submission.cost_usd is None or not submission.billable_units:
        return None
    return submission.cost_usd / submission.billable_units
