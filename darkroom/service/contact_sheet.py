"""A batch's contact sheet: one page of HTML that needs nothing but its pictures, written as the batch is read.

The page itself is contact_sheet.html; this fills its holes. What callers wrote (prompts, names) is data inside it, and
its Content-Security-Policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

from darkroom.domain.batch import Batch, batch_key
from darkroom.domain.batch_rows import picture_path, thumbnail_path
from darkroom.domain.batch_view import moment
from darkroom.domain.job import Artifact, Job
from darkroom.domain.lifecycle import TERMINAL, BatchStatus, JobStatus
from darkroom.domain.representation import cost_of, warnings_of

_TEMPLATE: Final = resources.files("darkroom.service").joinpath("contact_sheet.html").read_text()
_HOLES: Final = re.compile(r"\{\{(title|script_hash|batch|rows)\}\}")
_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Links(StrEnum):
    """Where the page's pictures are."""

    BUCKET = "bucket"
    """Relative to the batch's folder of the bucket: for a bucket that is public, or a copy of all of it."""
    DOWNLOAD = "download"
    """Relative to a directory that the batch was downloaded to."""
    SIGNED = "signed"
    """URLs that open the bucket for a while."""


Address = Callable[[Job, Artifact], tuple[str | None, str]]
"""Where the page finds a picture's thumbnail (None: it has none) and the picture itself."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """How a page's pictures are found; `expires_at` is when that ends."""

    links: Links
    address: Address
    expires_at: datetime | None = None


def in_the_bucket(batch: Batch, prefix: str) -> Pictures:
    """For the page that lies in the bucket, in the batch's folder."""
    # {prefix}{account}/batches/{batch}/: two up is the account's folder, where the days are.
    account = f"{prefix}{batch.account_id}/"

    def address(job: Job, artifact: Artifact) -> tuple[str | None, str]:
        small = quote(thumbnail_path(job, artifact.index)) if artifact.thumbnail else None
        return small, "../../" + quote(artifact.key.removeprefix(account))

    return Pictures(Links.BUCKET, address)


def in_a_download() -> Pictures:
    """For the page beside the pictures that a download of the batch wrote."""

    def address(job: Job, artifact: Artifact) -> tuple[str | None, str]:
        small = quote(thumbnail_path(job, artifact.index)) if artifact.thumbnail else None
        return small, quote(picture_path(job, artifact))

    return Pictures(Links.DOWNLOAD, address)


def signed(batch: Batch, prefix: str, presign: Callable[[str], str], expires_at: datetime) -> Pictures:
    """For a page that is looked at now, from anywhere."""

    def address(job: Job, artifact: Artifact) -> tuple[str | None, str]:
        key = batch_key(prefix, batch.account_id, batch.id, thumbnail_path(job, artifact.index))
        return presign(key) if artifact.thumbnail else None, presign(artifact.key)

    return Pictures(Links.SIGNED, address, expires_at)


class ContactSheet:
    """One page: `begin`, then `rows` any number of times, then `end`; all of it together is the document."""

    def __init__(self, batch: Batch, pictures: Pictures, *, at: datetime, status: BatchStatus | None = None) -> None:
        """`status`: what to say where the batch is about to become it."""
        self._pictures = pictures
        facts = _facts(batch, pictures, at, status or batch.status)
        fill = {
            "title": html.escape(f"{batch.name or batch.id}: contact sheet"),
            "script_hash": _script_hash(),
            "batch": _json(facts),
        }
        parts = _TEMPLATE.split("{{rows}}", maxsplit=1)
        self._begin, self._end = (_HOLES.sub(lambda hole: fill[hole[1]], part) for part in parts)

    def begin(self) -> bytes:
        """The page up to its first row."""
        return _bytes(self._begin)

    def rows(self, rows: Iterable[Job | dict[str, Any]]) -> bytes:
        """What has ended of these: jobs, and the error file's rows for lines that are none."""
        shown = (self._job(row) if isinstance(row, Job) else _line(row) for row in rows if _is_shown(row))
        return b"".join(_bytes(_json(row)) + b"\n" for row in shown)

    def end(self) -> bytes:
        """The page after its last row."""
        return _bytes(self._end)

    def _job(self, job: Job) -> dict[str, Any]:
        error = job.error if job.status is not JobStatus.SUCCEEDED else None
        return {
            "line": job.line,
            "custom_id": job.custom_id,
            "job_id": job.id,
            "status": job.status,
            "prompt": job.arguments.get("prompt", ""),
            "size": _size(job),
            "cost_usd": cost_of(job).actual_usd,
            "error": error and {"code": error.get("code"), "message": error.get("message")},
            "warnings": warnings_of(job.artifacts),
            "images": [self._image(job, artifact) for artifact in job.artifacts],
        }

    def _image(self, job: Job, artifact: Artifact) -> dict[str, Any]:
        small, full = self._pictures.address(job, artifact)
        return {
            "thumb": small,
            "full": full,
            "name": picture_path(job, artifact).removeprefix("images/"),
            "width": artifact.width,
            "height": artifact.height,
            "bytes": artifact.bytes,
            "seed": artifact.seed,
            "unsafe": artifact.has_nsfw_concepts,
            "blank": artifact.blank,
        }


def _facts(batch: Batch, pictures: Pictures, at: datetime, status: BatchStatus) -> dict[str, Any]:
    return {
        "id": batch.id,
        "name": batch.name,
        "status": status,
        "status_reason": batch.status_reason,
        "created_at": _text(moment(batch.created_at)),
        "finished_at": _text(moment(batch.finished_at)),
        "generated_at": _text(at),
        "links": pictures.links,
        "links_expire_at": _text(pictures.expires_at),
        "counts": {name: getattr(batch.counts, name) for name in batch.counts.__slots__},
        "invalid": batch.invalid or 0,
        "cost": {
            "spent_usd": float(batch.spent_usd),
            "budget_usd": None if batch.budget_usd is None else float(batch.budget_usd),
        },
        "failures": [{"code": c.code, "count": c.count, "example_job_id": c.example} for c in batch.causes],
    }


def _is_shown(row: Job | dict[str, Any]) -> bool:
    return not isinstance(row, Job) or row.status in TERMINAL


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the upload that could not become a job."""
    return {
        "line": row["line"],
        "custom_id": row["custom_id"],
        "job_id": None,
        "status": "invalid",
        "prompt": "",
        "size": None,
        "cost_usd": None,
        "error": row["error"],
        "warnings": [],
        "images": [],
    }


def _size(job: Job) -> str | None:
    if job.artifacts:
        return f"{job.artifacts[0].width}x{job.artifacts[0].height}"
    size = job.arguments.get("image_size")
    return f"{size['width']}x{size['height']}" if isinstance(size, dict) else size


def _script_hash() -> str:
    """The CSP's name for the page's one script."""
    script = _SCRIPT.search(_TEMPLATE)
    assert script is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()


def _json(value: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _bytes(text: str) -> bytes:
    """UTF-8. Half a character, which fal's words may hold, becomes the escape that JSON has for it."""
    return text.encode(errors="backslashreplace")


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
