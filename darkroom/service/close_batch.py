"""A batch's outcome in the bucket: results, errors, checksums, contact sheet, and last the manifest; then it ends.

Made by whichever worker has the timer. After a crash it is made again from the records, under the same names.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from darkroom.domain.batch import Batch, batch_key
from darkroom.domain.batch_rows import error_row, is_result, picture_path, result_row
from darkroom.domain.batch_view import moment
from darkroom.domain.errors import ConflictError
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import TERMINAL_BATCH, BatchStatus
from darkroom.ports import Batches, BatchFiles, BatchTimer, Upload
from darkroom.service.batch_lines import Alive
from darkroom.service.contact_sheet import ContactSheet, in_the_bucket
from darkroom.service.read_batch import BatchReader

logger = logging.getLogger(__name__)

_TOGETHER: Final = 64 * 1024


@dataclass(slots=True)
class _File:
    """One file of the outcome as it is written, and what the manifest says of it."""

    upload: Upload
    size: int = 0
    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    waiting: bytearray = field(default_factory=bytearray)

    async def add(self, row: bytes) -> None:
        self.rows += 1
        self.size += len(row)
        self.digest.update(row)
        self.waiting += row
        if len(self.waiting) >= _TOGETHER:
            await self.flush()

    async def flush(self) -> None:
        await self.upload.write(bytes(self.waiting))
        self.waiting.clear()

    def document(self) -> dict[str, Any]:
        return {"lines": self.rows, "bytes": self.size, "sha256": self.digest.hexdigest()}


class BatchCloser:
    """Writes outcomes. `bucket` is its name, `prefix` the part of every key."""

    def __init__(self, batches: Batches, files: BatchFiles, reader: BatchReader, *, bucket: str, prefix: str) -> None:
        self._batches = batches
        self._files = files
        self._reader = reader
        self._bucket = bucket
        self._prefix = prefix

    async def close(self, batch_id: str) -> None:
        """Write the outcome and end the batch, or find that it has ended.

        Raises DarkroomError: its timer brings it again.
        """
        batch = await self._batches.get(batch_id)
        if batch is None:
            return
        if batch.status not in TERMINAL_BATCH and batch.counts.left == 0:
            written = await self._write(batch)
            manifest = json.dumps(_manifest(batch, written), indent=2).encode() + b"\n"
            await self._files.put_bytes(self._key(batch, "manifest.json"), manifest, "application/json")
        status = await self._batches.finish(batch_id)
        logger.info("%s: %s", batch_id, status, extra={"batch_id": batch_id})

    async def _write(self, batch: Batch) -> dict[str, Any]:
        """All files but the manifest. Raises ConflictError when jobs of the batch live again."""
        alive = Alive(lambda: self._is_wanted(batch.id))
        sheet = ContactSheet(batch, in_the_bucket(batch, self._prefix), at=datetime.now(UTC), status=_ends_as(batch))
        async with AsyncExitStack() as stack:
            results, errors, sums, page = [
                _File(await stack.enter_async_context(self._files.upload(self._key(batch, name), kind)))
                for name, kind in (
                    ("results.jsonl", "application/jsonl"),
                    ("errors.jsonl", "application/jsonl"),
                    ("SHA256SUMS", "text/plain"),
                    ("index.html", "text/html; charset=utf-8"),
                )
            ]
            pictures = 0
            await page.add(sheet.begin())
            async for row in self._reader.rows(batch):
                if not await alive.still_wanted():
                    raise ConflictError("the batch goes on")  # leaves no half-written file
                await page.add(sheet.rows([row]))
                if isinstance(row, Job) and is_result(row):
                    await results.add(_json_line(result_row(row, bucket=self._bucket, prefix=self._prefix)))
                    for artifact in row.artifacts:
                        pictures += 1
                        await sums.add(f"{artifact.sha256}  {picture_path(row, artifact)}\n".encode())
                else:
                    await errors.add(_json_line(error_row(row) if isinstance(row, Job) else row))
            await page.add(sheet.end())
            for file in (results, errors, sums, page):
                await file.flush()
        return {
            "pictures": pictures,
            "files": {
                "results.jsonl": results.document(),
                "errors.jsonl": errors.document(),
                "SHA256SUMS": sums.document(),
            },
        }

    async def _is_wanted(self, batch_id: str) -> bool:
        status = await self._batches.hold(batch_id, BatchTimer.OUTCOME)
        return status is not None and status not in TERMINAL_BATCH

    def _key(self, batch: Batch, name: str) -> str:
        return batch_key(self._prefix, batch.account_id, batch.id, name)


def _ends_as(batch: Batch) -> BatchStatus:
    if batch.status is not BatchStatus.CANCELLING:
        return BatchStatus.COMPLETED
    return BatchStatus.EXPIRED if batch.status_reason == "finish_by" else BatchStatus.CANCELLED


def _json_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _manifest(batch: Batch, written: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "id": batch.id,
        "account_id": batch.account_id,
        "name": batch.name,
        "status_reason": batch.status_reason,
        "created_at": _at(batch.created_at),
        "started_at": _at(batch.started_at),
        "lines": batch.lines,
        "invalid_lines": batch.invalid,
        "counts": {name: getattr(batch.counts, name) for name in batch.counts.__slots__},
        "cost": {"spent_usd": float(batch.spent_usd), "unknown_usd": float(batch.reserved_usd)},
        "failures": [{"code": c.code, "count": c.count, "example_job_id": c.example} for c in batch.causes],
        **written,
    }


def _at(ms: int | None) -> str | None:
    at = moment(ms)
    return at.isoformat() if at else None
