"""Accepting a job: from what was asked to a stored record that will end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from darkroom.domain.errors import ConflictError, PermanentError, RateLimitedError, UnavailableError
from darkroom.domain.ids import new_id
from darkroom.domain.job import Job, NewJob
from darkroom.domain.krea import MODEL, KreaInput, usd
from darkroom.domain.lifecycle import Lane
from darkroom.ports import Jobs

WAITING_RETRY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class AskedJob:
    """What a caller wants. `as_sent` is the request itself: equal requests are those that were sent equal."""

    account_id: str
    input: KreaInput
    model: str
    lane: Lane
    metadata: dict[str, str]
    webhook_url: str | None
    deadline_seconds: int | None
    idempotency_key: str | None
    as_sent: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """The job; `replayed` when an earlier request with the same idempotency key had made it."""

    job: Job
    replayed: bool


class JobAcceptance:
    """The rules at the door.

    `check_webhook_url` raises PermanentError; `store_is_full` tells whether the store has no room for new jobs;
    `max_waiting` bounds an account's queued and retrying jobs (two requests at once may pass the bound by one).
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        price_per_megapixel: Decimal,
        deadline_seconds: int | None,
        max_waiting: int | None,
        check_webhook_url: Callable[[str], None],
        store_is_full: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._price = price_per_megapixel
        self._deadline_seconds = deadline_seconds
        self._max_waiting = max_waiting
        self._check_webhook_url = check_webhook_url
        self._store_is_full = store_is_full

    async def accept(self, asked: AskedJob) -> AcceptedJob:
        """Store the job, or find the one that the same idempotency key made.

        When this returns the job is stored. Raises PermanentError (`model_unknown`, `invalid_webhook_url`,
        `idempotency_key_reused`), ConflictError (`job_deleted`), RateLimitedError (`too_many_waiting`), and
        UnavailableError: `store_full` when nothing was stored, otherwise it may have been.
        """
        self._check(asked)
        new = self._new_job(asked)
        await self._admit(new)
        created = await self._jobs.create(new)
        if created.conflict:
            raise PermanentError(
                "this Idempotency-Key came with another request before; use a new key for a new request",
                code="idempotency_key_reused",
            )
        job = await self._jobs.get(created.job_id)
        if job is None:
            raise ConflictError("the job that this Idempotency-Key made has been deleted", code="job_deleted")
        return AcceptedJob(job, replayed=created.job_id != new.id)

    def _check(self, asked: AskedJob) -> None:
        if asked.model != MODEL:
            raise PermanentError(f"this deployment renders with {MODEL} only", code="model_unknown")
        if asked.webhook_url is not None:
            self._check_webhook_url(asked.webhook_url)

    def _new_job(self, asked: AskedJob) -> NewJob:
        return NewJob(
            id=new_id("job"),
            account_id=asked.account_id,
            model=asked.model,
            arguments=asked.input.arguments(),
            lane=asked.lane,
            estimate_usd=usd(asked.input.megapixels, self._price),
            metadata=asked.metadata,
            webhook_url=asked.webhook_url,
            deadline_seconds=asked.deadline_seconds or self._deadline_seconds,
            idempotency=None if asked.idempotency_key is None else _digest(asked.idempotency_key),
            fingerprint=fingerprint(asked.as_sent),
        )

    async def _admit(self, new: NewJob) -> None:
        """Refuse what there is no room for; a repeat of what was accepted needs none."""
        full = self._store_is_full()
        if not full and self._max_waiting is None:
            return
        if new.idempotency is not None and await self._jobs.knows(new.account_id, new.idempotency):
            return
        if full:
            raise UnavailableError("the store of records has no room for new jobs now", code="store_full")
        if self._max_waiting is not None and await self._jobs.waiting(new.account_id) >= self._max_waiting:
            raise RateLimitedError(
                f"{self._max_waiting} jobs of this account are waiting already; more are accepted as they are done",
                retry_after=WAITING_RETRY_SECONDS,
                code="too_many_waiting",
            )


def fingerprint(request: Mapping[str, Any]) -> str:
    """What makes two requests the same, whatever the order of their fields. A seed that was drawn has no part in it."""
    return _digest(json.dumps(request, sort_keys=True, separators=(",", ":")))


def _digest(text: str) -> str:
    # 128 bits: a value under 64 bytes keeps the record compact in Redis.
    return hashlib.sha256(text.encode()).hexdigest()[:32]
