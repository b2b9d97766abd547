"""The lines of a batch's outcome: what a download and the API's results say of each job."""

from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from darkroom.domain.batch import batch_key, file_name
from darkroom.domain.batch_view import moment
from darkroom.domain.job import Artifact, Job
from darkroom.domain.lifecycle import JobStatus
from darkroom.domain.representation import Presign, cost_of, warnings_of


def result_row(job: Job, *, bucket: str, prefix: str, presign: Presign | None = None) -> dict[str, Any]:
    """A job that succeeded. With `presign` its pictures have URLs; what is kept in the bucket has keys only."""
    return {
        **_names(job),
        "input": job.arguments,
        "metadata": job.metadata,
        "images": [_image(job, artifact, bucket, prefix, presign) for artifact in job.artifacts],
        "warnings": warnings_of(job.artifacts),
        "cost_usd": cost_of(job).actual_usd,
        "fal_request_id": _request_id(job),
        "finished_at": _at(job.finished_at),
    }


def error_row(job: Job) -> dict[str, Any]:
    """A job that failed or was cancelled."""
    error = job.error or {"code": "cancelled", "message": "the job was cancelled"}
    return {
        **_names(job),
        "error": error,
        "input": job.arguments,
        "metadata": job.metadata,
        "cost_usd": cost_of(job).actual_usd,
        "fal_request_id": _request_id(job),
        "finished_at": _at(job.finished_at),
    }


def picture_path(job: Job, artifact: Artifact) -> str:
    """Where a download of the batch puts this picture."""
    extension = PurePosixPath(artifact.key).suffix
    return f"images/{file_name(job.custom_id, job.line or 0)}-{artifact.index}{extension}"


def thumbnail_path(job: Job, index: int) -> str:
    """Where the small copy of this picture lies: in its batch's folder of the bucket, and in a download."""
    return f"thumbs/{file_name(job.custom_id, job.line or 0)}-{index}.jpg"


def spent_on(job: Job) -> Decimal:
    """What fal billed for it."""
    return sum((s.cost_usd for s in job.submissions if s.cost_usd is not None), Decimal())


def is_result(job: Job) -> bool:
    """Whether it stands in the results."""
    return job.status is JobStatus.SUCCEEDED


def is_error(job: Job) -> bool:
    """Whether it stands in the errors."""
    return job.status in {JobStatus.FAILED, JobStatus.CANCELLED}


def _names(job: Job) -> dict[str, Any]:
    return {"line": job.line, "custom_id": job.custom_id, "job_id": job.id, "status": job.status.value}


def _image(job: Job, artifact: Artifact, bucket: str, prefix: str, presign: Presign | None) -> dict[str, Any]:
    image: dict[str, Any] = {
        "index": artifact.index,
        "path": picture_path(job, artifact),
        "bucket": bucket,
        "key": artifact.key,
        "content_type": artifact.content_type,
        "width": artifact.width,
        "height": artifact.height,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "seed": artifact.seed,
        "has_nsfw_concepts": artifact.has_nsfw_concepts,
        "thumbnail": None,
    }
    image |= _signed(artifact.key, presign)
    if artifact.thumbnail:
        path = thumbnail_path(job, artifact.index)
        key = batch_key(prefix, job.account_id, job.batch_id or "", path)
        image["thumbnail"] = {"path": path, "key": key, **_signed(key, presign)}
    return image


def _signed(key: str, presign: Presign | None) -> dict[str, str]:
    if presign is None:
        return {}
    url, expires = presign(key)
    return {"url": url, "url_expires_at": expires.isoformat()}


def _request_id(job: Job) -> str | None:
    return job.submission.ref.request_id if job.submission and job.submission.ref else None


def _at(ms: int | None) -> str | None:
    at = moment(ms)
    return at.isoformat() if at else None
