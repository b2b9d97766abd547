"""Removing an ended job: its objects in the bucket first, then its record: nothing is left that nobody knows of."""

from __future__ import annotations

from darkroom.domain.batch import batch_key
from darkroom.domain.batch_rows import thumbnail_path
from darkroom.domain.errors import ConflictError
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import TERMINAL
from darkroom.ports import ArtifactStore, Jobs
from darkroom.service.copy_artifacts import artifact_key


class JobRemoval:
    """Removes jobs. `prefix` is the bucket's."""

    def __init__(self, jobs: Jobs, store: ArtifactStore, *, prefix: str) -> None:
        self._jobs = jobs
        self._store = store
        self._prefix = prefix

    async def remove(self, job: Job) -> None:
        """Remove the pictures, their thumbnails and sidecar, and the record.

        Raises TransientError or BlockedError while S3 is away (the record stays, and with it the knowledge of what is
        to be removed), ConflictError (`job_not_ended`), NotFoundError. Repeatable.
        """
        if job.status not in TERMINAL:
            raise ConflictError("only an ended job can be deleted; cancel it first", code="job_not_ended")
        await self._store.delete(self._keys(job))
        await self._jobs.delete(job.id)

    def _keys(self, job: Job) -> list[str]:
        """What the record knows of, and what a worker that died before its checkpoint may have left."""
        known = {artifact.key for artifact in job.artifacts}
        pictures = int(job.arguments.get("num_images", 1))
        possible = {f"{index}.{extension}" for index in range(pictures) for extension in ("png", "jpeg")}
        names = {artifact_key(self._prefix, job, name) for name in possible | {"job.json"}}
        if job.batch_id is None:
            return sorted(known | names)
        small = {
            batch_key(self._prefix, job.account_id, job.batch_id, thumbnail_path(job, index))
            for index in range(pictures)
        }
        return sorted(known | names | small)
