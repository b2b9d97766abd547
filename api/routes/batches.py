"""Batches: take in, look, pause, resume, cancel, retry. What comes out of them: batch_outcome.py."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api import examples
from api.auth import AccountId, Door
from api.batch_schemas import BatchList, BatchPageQuery, BatchQuery, DryRunView, ResumeQuery, RetryQuery
from api.batch_views import find_batch, show_batch, show_batches, show_dry_run
from api.cursors import read_cursor, sign_cursor
from api.limits import take_turn
from api.openapi import answers, keyed
from api.reading import idempotency_key
from api.uploads import Arriving
from darkroom.domain.batch_view import BatchView
from darkroom.domain.ids import new_id
from darkroom.domain.uploads import UploadError
from darkroom.service.accept_batch import AskedBatch

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_LINES = '{"custom_id":"mars-1","input":{"prompt":"a vintage travel poster for Mars"}}\n'
_JSONL = "application/jsonl"
_BODY = {
    "requestBody": {
        "required": True,
        "description": "At most 100,000 lines and 256 MB, unpacked; may be sent with `Content-Encoding: gzip`.",
        "content": {
            _JSONL: {"schema": {"type": "string"}, "example": _LINES},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINES},
            "text/csv": {
                "schema": {"type": "string"},
                "example": "custom_id,prompt,image_size\nmars-1,a poster for Mars,square_hd\n",
            },
            "application/json": {
                "schema": {"type": "object", "properties": {"items": {"type": "array", "items": {"type": "object"}}}},
                "example": {"items": [json.loads(_LINES)]},
            },
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


@router.post(
    "",
    status_code=202,
    openapi_extra=_BODY,
    responses=answers(202, "Stored: it is validated next, then queued or failed.", examples.batch())
    | answers(200, "`dry_run`: what it would come to; nothing was stored.", examples.dry_run(), model=DryRunView)
    | keyed(
        *("invalid_upload", "idempotency_key_invalid", "idempotency_key_reused", "invalid_webhook_url"),
        *("batch_too_large", "body_too_large", "unsupported_media_type", "upload_in_progress", "batch_removed"),
        *("rate_limited", "too_many_waiting", "store_full", "storage_unavailable"),
    ),
)
async def create_batch(
    request: Request,
    response: Response,
    services: Door,
    account_id: AccountId,
    query: Annotated[BatchQuery, Query()],
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="1 to 255 printable ASCII characters.")
    ] = None,
) -> BatchView | DryRunView:
    """Take a file of jobs. A line is `{"custom_id"?, "input": {…}, "metadata"?}`; nothing starts before all are in."""
    asked = AskedBatch(
        account_id=account_id,
        name=query.name,
        on_invalid=query.on_invalid,
        budget_usd=query.budget_usd,
        not_before=_ms(query.not_before),
        finish_by=_ms(query.finish_by),
        webhook_url=query.webhook_url,
        job_events=query.job_events,
        canary=query.canary,
        canary_max_failures=query.canary_max_failures,
        idempotency_key=idempotency_key(key),
        as_sent=query.model_dump(mode="json", exclude_unset=True),
    )
    await take_turn(services.rate, account_id, response)
    arriving = Arriving(request)
    try:
        pieces = await arriving.open()
        if query.dry_run:
            tried = await services.batch_acceptance.try_out(asked, arriving.normaliser, pieces)
            response.status_code = 200
            return show_dry_run(tried)
        accepted = await services.batch_acceptance.accept(asked, arriving.normaliser, pieces)
    except UploadError:
        await arriving.drain()
        raise
    response.headers["Location"] = f"/v1/batches/{accepted.batch.id}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return await show_batch(services, accepted.batch)


@router.get(
    "",
    responses=answers(200, "A page.", {"data": [examples.batch()], "has_more": False, "next_cursor": None})
    | keyed("invalid_cursor"),
)
async def list_batches(services: Door, account_id: AccountId, query: Annotated[BatchPageQuery, Query()]) -> BatchList:
    """The account's batches, newest first."""
    secret = await services.beginning.secret()
    before = read_cursor(secret, account_id, query.cursor, kind="batch") if query.cursor else None
    page = await services.batches.page(account_id, before=before, limit=query.limit)
    cursor = sign_cursor(secret, account_id, page.next) if page.next else None
    return BatchList(data=await show_batches(services, page.batches), has_more=cursor is not None, next_cursor=cursor)


@router.get("/{batch_id}", responses=answers(200, "The batch.", examples.batch()) | keyed("not_found"))
async def get_batch(batch_id: str, services: Door, account_id: AccountId) -> BatchView:
    """One batch: how far, how fast, how much."""
    return await show_batch(services, await find_batch(services, account_id, batch_id))


@router.post(
    "/{batch_id}/pause",
    status_code=202,
    responses=answers(202, "Nothing more of it is submitted.", examples.batch()) | keyed("not_found", "batch_state"),
)
async def pause_batch(batch_id: str, services: Door, account_id: AccountId) -> BatchView:
    """Submit nothing more until it is resumed; what runs finishes. Repeatable."""
    await find_batch(services, account_id, batch_id)
    await services.batches.pause(batch_id)
    return await get_batch(batch_id, services, account_id)


@router.post(
    "/{batch_id}/resume",
    status_code=202,
    responses=answers(202, "It goes on.", examples.batch()) | keyed("not_found", "batch_state", "budget_used_up"),
)
async def resume_batch(
    batch_id: str, services: Door, account_id: AccountId, query: Annotated[ResumeQuery, Query()]
) -> BatchView:
    """Go on, with a new budget where one is given; this also approves a canary. Repeatable."""
    await find_batch(services, account_id, batch_id)
    await services.batches.resume(batch_id, query.budget_usd)
    return await get_batch(batch_id, services, account_id)


@router.post(
    "/{batch_id}/cancel",
    status_code=202,
    responses=answers(202, "What is not paid is being ended.", examples.batch()) | keyed("not_found"),
)
async def cancel_batch(batch_id: str, services: Door, account_id: AccountId) -> BatchView:
    """Submit nothing more, and end what is not paid; what runs finishes. An ended batch stays as it is. Repeatable."""
    await find_batch(services, account_id, batch_id)
    await services.batches.cancel(batch_id)
    return await get_batch(batch_id, services, account_id)


@router.post(
    "/{batch_id}/retry-failed",
    status_code=202,
    responses=answers(202, "Failed jobs are being queued again.", examples.batch())
    | keyed("not_found", "batch_state", "rate_limited"),
)
async def retry_failed(
    batch_id: str,
    response: Response,
    services: Door,
    account_id: AccountId,
    query: Annotated[RetryQuery, Query()],
) -> BatchView:
    """Give its failed jobs a new life, or those with one error code.

    What was or may have been charged is left, unless that is accepted.
    """
    await find_batch(services, account_id, batch_id)
    await take_turn(services.rate, account_id, response)
    await services.batches.retry_failed(
        batch_id, operation=new_id("op"), code=query.code, accept_charge=query.accept_charge
    )
    return await get_batch(batch_id, services, account_id)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
