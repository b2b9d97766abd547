"""What comes out of a batch, while it runs and after: results, errors, its files, its contact sheet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api import examples
from api.auth import AccountId, Door
from api.batch_schemas import FileList, OutcomeQuery, SheetQuery
from api.batch_views import find_batch, show_files
from api.compose import Services
from api.openapi import answers, keyed
from darkroom.domain.batch import Batch
from darkroom.domain.batch_rows import is_result, result_row
from darkroom.domain.job import Job
from darkroom.service.contact_sheet import ContactSheet, Links, in_a_download, signed

T = TypeVar("T")

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_JSONL: Final = "application/jsonl"
_TOGETHER: Final = 100


@router.get(
    "/{batch_id}/results",
    response_class=StreamingResponse,
    responses=answers(200, "A line a job that succeeded, in line order.", "", media_type=_JSONL) | keyed("not_found"),
)
async def read_results(
    batch_id: str, services: Door, account_id: AccountId, query: Annotated[OutcomeQuery, Query()]
) -> StreamingResponse:
    """What is there by now. URLs are signed now; to go on, ask for what lies `after` the last row's line.

    In a batch that still runs, lines before that one may follow: begin anew to see them.
    """
    batch = await find_batch(services, account_id, batch_id)
    return StreamingResponse(_result_lines(services, batch, query), media_type=_JSONL)


@router.get(
    "/{batch_id}/errors",
    response_class=StreamingResponse,
    responses=answers(
        200, "A line a job that failed or was cancelled, and a line that was refused.", "", media_type=_JSONL
    )
    | keyed("not_found"),
)
async def read_errors(
    batch_id: str, services: Door, account_id: AccountId, query: Annotated[OutcomeQuery, Query()]
) -> StreamingResponse:
    """What is there by now, in line order."""
    batch = await find_batch(services, account_id, batch_id)
    rows = _at_most(query.limit, services.batch_reader.error_rows(batch, after=query.after))
    return StreamingResponse(_lines(rows), media_type=_JSONL)


@router.get("/{batch_id}/files", responses=answers(200, "The files.", examples.files()) | keyed("not_found"))
async def list_files(batch_id: str, services: Door, account_id: AccountId) -> FileList:
    """The batch's files in the bucket that are there by now: its input, and once it has ended its outcome."""
    return FileList(data=await show_files(services, await find_batch(services, account_id, batch_id)))


@router.get(
    "/{batch_id}/contact-sheet",
    response_class=StreamingResponse,
    responses=answers(200, "A page that needs nothing but its pictures.", "", media_type="text/html")
    | keyed("not_found"),
)
async def read_contact_sheet(
    batch_id: str, services: Door, account_id: AccountId, query: Annotated[SheetQuery, Query()]
) -> StreamingResponse:
    """All that has ended by now on one page, to look at and to search."""
    batch = await find_batch(services, account_id, batch_id)
    pages = _sheet(services, batch, query.links)
    return StreamingResponse(pages, media_type="text/html; charset=utf-8")


async def _result_lines(services: Services, batch: Batch, query: OutcomeQuery) -> AsyncIterator[bytes]:
    """Signing takes CPU, so it does not happen on the event loop."""

    def signed_rows(jobs: list[Job]) -> bytes:
        presign = services.bucket.presign
        rows = (result_row(job, bucket=services.bucket_name, prefix=services.prefix, presign=presign) for job in jobs)
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    done = _at_most(query.limit, _results(services, batch, query.after))
    async for jobs in _in_slices(done):
        yield await asyncio.to_thread(signed_rows, jobs)


async def _results(services: Services, batch: Batch, after: int) -> AsyncIterator[Job]:
    async for jobs in services.batch_reader.jobs(batch, after=after):
        for job in jobs:
            if is_result(job):
                yield job


async def _lines(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for row in rows:
        yield json.dumps(row).encode() + b"\n"


async def _sheet(services: Services, batch: Batch, links: Links) -> AsyncIterator[bytes]:
    presign = services.bucket.presign
    pictures = in_a_download()
    if links is Links.SIGNED:
        _, expires_at = presign(services.prefix)  # the first to expire
        pictures = signed(batch, services.prefix, lambda key: presign(key)[0], expires_at)
    sheet = ContactSheet(batch, pictures, at=datetime.now(UTC))
    yield sheet.begin()
    async for rows in _in_slices(services.batch_reader.rows(batch)):
        yield await asyncio.to_thread(sheet.rows, rows)
    yield sheet.end()


async def _at_most(limit: int | None, items: AsyncIterator[T]) -> AsyncIterator[T]:
    count = 0
    async for item in items:
        yield item
        count += 1
        if count == limit:
            return


async def _in_slices(items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    ready: list[T] = []
    async for item in items:
        ready.append(item)
        if len(ready) == _TOGETHER:
            yield ready
            ready = []
    if ready:
        yield ready
