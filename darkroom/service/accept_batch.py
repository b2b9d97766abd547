"""Accepting a batch: its upload goes to the bucket as lines of JSON, then its record is made. And the dry run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from darkroom.domain.batch import Batch, NewBatch, OnInvalid, Pace, batch_key, finish_at
from darkroom.domain.batch_line import Judge
from darkroom.domain.errors import ConflictError, PermanentError, RateLimitedError, UnavailableError
from darkroom.domain.ids import new_id
from darkroom.domain.krea import usd
from darkroom.domain.uploads import Normaliser, TooMuchError
from darkroom.ports import Batches, BatchFiles, Known
from darkroom.service.accept_job import WAITING_RETRY_SECONDS
from darkroom.service.batch_lines import numbered_lines

logger = logging.getLogger(__name__)

_UPLOAD_SECONDS: Final = 60.0
"""An upload that says nothing for so long is over, and its idempotency key free again."""

_SLICE: Final = 200


@dataclass(frozen=True, slots=True)
class AskedBatch:
    """What a caller wants of a batch. `as_sent` and the lines are what makes two requests the same."""

    account_id: str
    name: str
    on_invalid: OnInvalid
    budget_usd: Decimal | None
    not_before: int | None
    finish_by: int | None
    webhook_url: str | None
    job_events: bool
    canary: int | None
    canary_max_failures: float | None
    idempotency_key: str | None
    as_sent: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """The batch; `replayed` when an earlier request with the same idempotency key had made it."""

    batch: Batch
    replayed: bool


@dataclass(frozen=True, slots=True)
class DryRun:
    """What an upload would come to."""

    judge: Judge
    min_usd: Decimal
    expected_usd: Decimal
    max_usd: Decimal
    finish_at: int
    meets_finish_by: bool | None


class BatchAcceptance:
    """The rules at the door.

    `check_webhook_url` raises PermanentError; `store_is_full`: no room for new jobs; `max_waiting` bounds an account's
    queued and retrying jobs (uploads at the same moment may pass it together).
    """

    def __init__(
        self,
        batches: Batches,
        files: BatchFiles,
        *,
        prefix: str,
        price_per_megapixel: Decimal,
        max_waiting: int | None,
        check_webhook_url: Callable[[str], None],
        store_is_full: Callable[[], bool],
    ) -> None:
        self._batches = batches
        self._files = files
        self._prefix = prefix
        self._price = price_per_megapixel
        self._max_waiting = max_waiting
        self._check_webhook_url = check_webhook_url
        self._store_is_full = store_is_full

    async def accept(self, asked: AskedBatch, normaliser: Normaliser, pieces: AsyncIterator[bytes]) -> AcceptedBatch:
        """Store the upload and make its batch, or find the one that the same idempotency key made.

        When this returns the batch will end. A crash before leaves nothing but parts that the bucket does not show.
        Raises UploadError, PermanentError (`invalid_webhook_url`, `idempotency_key_reused`), ConflictError
        (`upload_in_progress`), RateLimitedError (`too_many_waiting`), UnavailableError, TransientError and BlockedError
        (S3).
        """
        if asked.webhook_url is not None:
            self._check_webhook_url(asked.webhook_url)
        token = new_id("up")
        idempotency = None if asked.idempotency_key is None else _digest(asked.idempotency_key.encode())
        if idempotency is not None:
            known = await self._batches.begin_upload(asked.account_id, idempotency, token, _UPLOAD_SECONDS)
            _refuse_busy(known)
            if known.batch_id is not None:
                return await self._earlier(asked, known, normaliser, pieces)
        try:
            await self._check_room(asked.account_id, lines=1)
            return await self._store(asked, idempotency, token, normaliser, pieces)
        except BaseException:
            if idempotency is not None:
                await self._give_up(asked.account_id, idempotency, token)
            raise

    async def _check_room(self, account_id: str, *, lines: int) -> None:
        """Looked at when an upload begins, for a full store need not read it; and once it is known how long it is."""
        if self._store_is_full():
            raise UnavailableError("the store of records has no room for new jobs now", code="store_full")
        if self._max_waiting is None:
            return
        if lines > self._max_waiting:
            raise TooMuchError(f"at most {self._max_waiting} jobs of this account may wait, and these are {lines}")
        waiting = await self._batches.waiting(account_id)
        if waiting + lines > self._max_waiting:
            raise RateLimitedError(
                f"{waiting} jobs of this account are waiting, and at most {self._max_waiting} may; more are accepted as"
                " they are done",
                retry_after=WAITING_RETRY_SECONDS,
                code="too_many_waiting",
            )

    async def _store(
        self,
        asked: AskedBatch,
        idempotency: str | None,
        token: str,
        normaliser: Normaliser,
        pieces: AsyncIterator[bytes],
    ) -> AcceptedBatch:
        batch_id = new_id("batch")
        key = batch_key(self._prefix, asked.account_id, batch_id, "input.jsonl")
        content = hashlib.sha256()
        size = 0
        hold_again_at = time.monotonic() + _UPLOAD_SECONDS / 3
        async with self._files.upload(key, "application/jsonl") as upload:
            async for lines in _normalised(normaliser, pieces):
                content.update(lines)
                size += len(lines)
                await upload.write(lines)
                if idempotency is not None and time.monotonic() >= hold_again_at:
                    await self._batches.begin_upload(asked.account_id, idempotency, token, _UPLOAD_SECONDS)
                    hold_again_at = time.monotonic() + _UPLOAD_SECONDS / 3
            await self._check_room(asked.account_id, lines=normaliser.items)
        new = NewBatch(
            id=batch_id,
            account_id=asked.account_id,
            name=asked.name,
            on_invalid=asked.on_invalid,
            budget_usd=asked.budget_usd,
            not_before=asked.not_before,
            finish_by=asked.finish_by,
            webhook_url=asked.webhook_url,
            job_events=asked.job_events,
            canary=asked.canary,
            canary_max_failures=asked.canary_max_failures,
            lines=normaliser.items,
            bytes=size,
            idempotency=idempotency,
            fingerprint=_fingerprint(asked, content.hexdigest()),
        )
        known = await self._batches.create(new, token)
        if known.busy or known.batch_id is not None:  # this upload took longer than its right to the key
            await self._files.delete([key])
            _refuse_busy(known)
            return await self._found(new.fingerprint, known)
        batch = await self._batches.get(batch_id)
        assert batch is not None
        logger.info("%s: %d lines stored", batch_id, new.lines, extra={"batch_id": batch_id})
        return AcceptedBatch(batch, replayed=False)

    async def _earlier(
        self, asked: AskedBatch, known: Known, normaliser: Normaliser, pieces: AsyncIterator[bytes]
    ) -> AcceptedBatch:
        """The same key came before: the same upload gives the same batch, and nothing is stored."""
        content = hashlib.sha256()
        async for lines in _normalised(normaliser, pieces):
            content.update(lines)
        return await self._found(_fingerprint(asked, content.hexdigest()), known)

    async def _found(self, fingerprint: str, known: Known) -> AcceptedBatch:
        if known.fingerprint != fingerprint:
            raise PermanentError(
                "this Idempotency-Key came with another request before; use a new key for a new request",
                code="idempotency_key_reused",
            )
        batch = await self._batches.get(known.batch_id or "")
        if batch is None:
            raise ConflictError("the batch that this Idempotency-Key made has been removed", code="batch_removed")
        return AcceptedBatch(batch, replayed=True)

    async def _give_up(self, account_id: str, idempotency: str, token: str) -> None:
        try:
            await asyncio.shield(self._batches.end_upload(account_id, idempotency, token))
        except UnavailableError:
            logger.info("an upload's key stays taken for a minute: the store is away")

    # -- dry run -------------------------------------------------------------------------------------------------------

    async def try_out(self, asked: AskedBatch, normaliser: Normaliser, pieces: AsyncIterator[bytes]) -> DryRun:
        """Judge every line as an intake would, and store nothing. Raises as `accept` does."""
        if asked.webhook_url is not None:
            self._check_webhook_url(asked.webhook_url)
        judge = Judge(count_repeated=True)
        async for lines in numbered_lines(_normalised(normaliser, pieces), _SLICE):
            for _ in judge.judge(lines):
                pass
            await asyncio.sleep(0)
        expected = usd(judge.megapixels, self._price)
        starts = judge.valid > 0 and (judge.invalid == 0 or asked.on_invalid is OnInvalid.SKIP)
        dearest = expected if asked.budget_usd is None else min(expected, asked.budget_usd)
        pace: Pace = await self._batches.pace()
        now = await self._batches.now()
        ends = finish_at(now, judge.valid if starts else 0, pace, not_before=asked.not_before)
        return DryRun(
            judge=judge,
            min_usd=Decimal(),
            expected_usd=dearest if starts else Decimal(),
            max_usd=dearest if starts else Decimal(),
            finish_at=ends,
            meets_finish_by=None if asked.finish_by is None else ends <= asked.finish_by,
        )


async def _normalised(normaliser: Normaliser, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if lines := normaliser.feed(piece):
            yield lines
    if lines := normaliser.close():
        yield lines


def _refuse_busy(known: Known) -> None:
    if known.busy:
        raise ConflictError("an upload with this Idempotency-Key is still in progress", code="upload_in_progress")


def _fingerprint(asked: AskedBatch, content: str) -> str:
    text = json.dumps([content, asked.as_sent], sort_keys=True, separators=(",", ":"), default=str)
    return _digest(text.encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
