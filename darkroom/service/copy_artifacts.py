"""From fal's media host into the bucket: every picture once, the sidecar last; each copied picture is a checkpoint.

A batch's pictures leave a thumbnail in its folder, made here, while the picture is on this machine anyway.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from darkroom.domain.batch import batch_key
from darkroom.domain.batch_rows import thumbnail_path
from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    ResultGoneError,
    TransientError,
    UnavailableError,
    UnreadableMediaError,
)
from darkroom.domain.generation import Generated, MediaRef
from darkroom.domain.job import Artifact, Job, Submission
from darkroom.domain.krea import usd
from darkroom.domain.lifecycle import JobEvent
from darkroom.domain.outcome import Failed, Outcome, RetryAt, Succeeded, Superseded
from darkroom.domain.policy import COPIES, COPY_TRIES_MAX
from darkroom.ports import ArtifactStore, MediaFetcher, Picture, Schedule, Thumbnails, Transitions
from darkroom.service.persist import persist

logger = logging.getLogger(__name__)

_TRIES_HERE = 3
"""How often a passing fault is waited out in place before the job gives its room to another."""

_COME_BACK_SECONDS = 30.0

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


class ArtifactCopier:
    """Copies results into the bucket. `at_once` bounds how many pictures this process holds at a time."""

    def __init__(
        self,
        *,
        transitions: Transitions,
        schedule: Schedule,
        media: MediaFetcher,
        thumbnails: Thumbnails,
        store: ArtifactStore,
        prefix: str,
        price_per_megapixel: Decimal,
        at_once: int = 8,
    ) -> None:
        self._transitions = transitions
        self._schedule = schedule
        self._media = media
        self._thumbnails = thumbnails
        self._store = store
        self._prefix = prefix
        self._price = price_per_megapixel
        self._room = asyncio.Semaphore(at_once)

    async def copy(self, job: Job, submission: Submission, result: Generated) -> Outcome:
        """Store what is not yet stored, then the sidecar. A paid job is not ended by a fault that can pass."""
        there = {artifact.index: artifact for artifact in job.artifacts}
        unreadable = passing = 0
        while True:
            try:
                for index, media in enumerate(result.media):
                    if index not in there:
                        there[index] = await self._copy_one(job, submission, result, index, media)
                        if not await self._checkpoint(job, there[index]):
                            return Superseded()
                artifacts = [there[index] for index in sorted(there)]
                document = sidecar(job, submission, artifacts, result.billable_units, self._price)
                await self._store.put_json(self._key(job, "job.json"), document)
            except (UnreadableMediaError, ResultGoneError) as error:
                unreadable += 1
                if unreadable >= COPY_TRIES_MAX:
                    return Failed(JobEvent.EXHAUSTED, error)
            except (TransientError, BlockedError, PermanentError) as error:
                passing += 1
                if passing >= _TRIES_HERE:
                    return RetryAt(_COME_BACK_SECONDS, error, counts=False)
            else:
                return Succeeded()
            await asyncio.sleep(COPIES.delay(unreadable + passing))

    async def _copy_one(
        self, job: Job, submission: Submission, result: Generated, index: int, media: MediaRef
    ) -> Artifact:
        async with self._room, self._media.fetch(media.url) as picture:
            _check_size(media, picture)
            key = self._key(job, f"{index}.{_EXTENSIONS[picture.content_type]}")
            unsafe = index < len(result.has_nsfw_concepts) and result.has_nsfw_concepts[index]
            seed = (result.seed if result.seed is not None else int(job.arguments["seed"])) + index
            metadata = {"job-id": job.id, "submission-id": submission.id, "seed": str(seed)}
            if submission.ref is not None:
                metadata["fal-request-id"] = submission.ref.request_id
            try:
                thumbnail = await self._leave_thumbnail(job, index, picture)
                await self._store.put_picture(key, picture, metadata)
            except (TransientError, BlockedError) as error:
                await self._close_storage(error)
                raise
            return Artifact(
                index=index,
                key=key,
                content_type=picture.content_type,
                width=picture.width,
                height=picture.height,
                bytes=picture.size,
                sha256=picture.sha256,
                seed=seed,
                has_nsfw_concepts=unsafe,
                blank=picture.blank,
                thumbnail=thumbnail,
            )

    async def _leave_thumbnail(self, job: Job, index: int, picture: Picture) -> bool:
        """Before the picture's checkpoint: a picture that is on record has its thumbnail, where there can be one."""
        if job.batch_id is None:
            return False
        small = await self._thumbnails.make(picture)
        if small is None:
            return False
        key = batch_key(self._prefix, job.account_id, job.batch_id, thumbnail_path(job, index))
        await self._store.put_bytes(key, small, "image/jpeg")
        return True

    async def _close_storage(self, error: DarkroomError) -> None:
        """While pictures cannot be stored, none is paid for."""
        logger.warning("a picture could not be stored: %s", error.message)
        # The tickers look at the bucket every few seconds too: this only says it sooner.
        with suppress(UnavailableError):
            await self._schedule.set_storage(error)

    async def _checkpoint(self, job: Job, artifact: Artifact) -> bool:
        return await persist(
            lambda: self._transitions.keep_artifact(job.id, job.lease or "", artifact),
            "a stored picture",
            job_id=job.id,
        )

    def _key(self, job: Job, name: str) -> str:
        return artifact_key(self._prefix, job, name)


def artifact_key(prefix: str, job: Job, name: str) -> str:
    """Where a job's object lies.

    `{prefix}{account}/{yyyy}/{mm}/{dd}/{job}/{name}`, by the day the job was accepted (UTC).
    """
    day = datetime.fromtimestamp(job.created_at / 1000, tz=UTC)
    return f"{prefix}{job.account_id}/{day:%Y/%m/%d}/{job.id}/{name}"


def sidecar(
    job: Job, submission: Submission, artifacts: list[Artifact], units: Decimal | None, price_per_megapixel: Decimal
) -> dict[str, Any]:
    """What `job.json` says: the bucket alone tells what was rendered, from what, by which request, at what price."""
    ref = submission.ref
    return {
        "version": 1,
        "id": job.id,
        "account_id": job.account_id,
        "model": job.model,
        "input": job.arguments,
        "metadata": job.metadata,
        "batch_id": job.batch_id,
        "custom_id": job.custom_id,
        "created_at": datetime.fromtimestamp(job.created_at / 1000, tz=UTC).isoformat(),
        "submission_id": submission.id,
        "fal_request_id": ref.request_id if ref else None,
        "billable_units": None if units is None else float(units),
        "price_per_megapixel_usd": float(price_per_megapixel),
        "cost_usd": None if units is None else float(usd(units, price_per_megapixel)),
        "images": [
            {name: getattr(artifact, name) for name in Artifact.__slots__ if name not in {"blank", "thumbnail"}}
            for artifact in artifacts
        ],
    }


def _check_size(media: MediaRef, picture: Picture) -> None:
    said = (media.width, media.height)
    if None not in said and said != (picture.width, picture.height):
        raise UnreadableMediaError(
            f"the picture is {picture.width}x{picture.height} pixels where fal said {media.width}x{media.height}"
        )
