"""Jobs: accept, look, list, cancel, replay, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from api import examples
from api.auth import AccountId, Door
from api.cursors import read_cursor, sign_cursor
from api.limits import take_turn
from api.openapi import answers, keyed, request_body
from api.reading import idempotency_key, json_body, preferred_wait
from api.schemas import JobList, JobRequest, JobsQuery, ReplayRequest, WaitQuery
from api.views import find_job, show, show_all
from darkroom.domain.ids import new_id
from darkroom.domain.lifecycle import TERMINAL
from darkroom.domain.representation import JobView
from darkroom.ports import JobQuery
from darkroom.service.accept_job import AskedJob

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KEY_HEADER = Header(
    alias="Idempotency-Key",
    description="1 to 255 printable ASCII characters, quoted or bare. Kept for 7 days, and until the job has ended.",
    json_schema_extra={"pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": 255},
)
_REQUEST_EXAMPLE = {
    "input": {"prompt": "a vintage travel poster for Mars", "image_size": "portrait_4_3"},
    "webhook_url": "https://shop.example/hooks/darkroom",
    "metadata": {"order": "4711"},
}


@router.post(
    "",
    status_code=202,
    openapi_extra=request_body(JobRequest, _REQUEST_EXAMPLE),
    responses=answers(202, "Accepted: it will end in succeeded, failed or cancelled.", examples.job())
    | answers(200, "It ended within `Prefer: wait=N`.", examples.job(), model=JobView)
    | keyed(
        *("invalid_json", "idempotency_key_invalid", "idempotency_key_reused", "model_unknown", "invalid_webhook_url"),
        *("body_too_large", "unsupported_media_type", "job_deleted", "rate_limited", "too_many_waiting", "store_full"),
    ),
)
async def create_job(
    response: Response,
    services: Door,
    account_id: AccountId,
    asked: Annotated[JobRequest, Depends(json_body(JobRequest))],
    key: Annotated[str | None, _KEY_HEADER] = None,
    prefer: Annotated[str | None, Header(description="`wait=N`: answer when the job ended, N ≤ 60 s.")] = None,
) -> JobView:
    """Accept a job. Repeating with the same Idempotency-Key and request gives the same job."""
    wanted = AskedJob(
        account_id=account_id,
        input=asked.input,
        model=asked.model,
        lane=asked.lane,
        metadata=asked.metadata,
        webhook_url=asked.webhook_url,
        deadline_seconds=asked.deadline_seconds,
        idempotency_key=idempotency_key(key),
        as_sent=asked.model_dump(mode="json", exclude_unset=True),
    )
    await take_turn(services.rate, account_id, response)
    accepted = await services.acceptance.accept(wanted)
    job = accepted.job
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if seconds := preferred_wait(prefer):
        job = await services.watch.until_ended(job, seconds)
        response.headers["Preference-Applied"] = f"wait={seconds}"
        response.status_code = 200 if job.status in TERMINAL else 202
    return await show(services, job)


@router.get(
    "",
    responses=answers(200, "A page.", {"data": [examples.job()], "has_more": True, "next_cursor": "q8Zb2yXnT0…"})
    | keyed("invalid_cursor"),
)
async def list_jobs(services: Door, account_id: AccountId, query: Annotated[JobsQuery, Query()]) -> JobList:
    """The account's jobs, newest first."""
    secret = await services.beginning.secret()
    page = await services.jobs.page(
        JobQuery(
            account_id=account_id,
            status=query.status,
            stage=query.stage,
            lane=query.lane,
            batch_id=query.batch_id,
            created_after=_ms(query.created_after),
            created_before=_ms(query.created_before),
            before=read_cursor(secret, account_id, query.cursor) if query.cursor else None,
            limit=query.limit,
        )
    )
    cursor = sign_cursor(secret, account_id, page.next) if page.next else None
    return JobList(data=await show_all(services, page.jobs), has_more=cursor is not None, next_cursor=cursor)


@router.get("/{job_id}", responses=answers(200, "The job.", examples.job()) | keyed("not_found"))
async def get_job(job_id: str, services: Door, account_id: AccountId, query: Annotated[WaitQuery, Query()]) -> JobView:
    """One job. With `wait` the answer comes when it has ended, or as it is after that many seconds."""
    job = await find_job(services, account_id, job_id)
    return await show(services, await services.watch.until_ended(job, query.wait))


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    responses=answers(202, "Cancelled, or it will be as soon as may be.", examples.job()) | keyed("not_found"),
)
async def cancel_job(job_id: str, services: Door, account_id: AccountId) -> JobView:
    """Ask that a job ends; repeatable.

    What fal is working on already may still complete and be billed: its pictures are kept then.
    """
    await find_job(services, account_id, job_id)
    await services.jobs.cancel(job_id)
    return await show(services, await find_job(services, account_id, job_id))


@router.post(
    "/{job_id}/replay",
    status_code=202,
    openapi_extra=request_body(ReplayRequest, {"accept_charge": True}, required=False),
    responses=answers(202, "It is queued again.", examples.job())
    | keyed("not_found", "invalid_json", "job_not_replayable", "charge_not_accepted", "rate_limited"),
)
async def replay_job(
    job_id: str,
    response: Response,
    services: Door,
    account_id: AccountId,
    asked: Annotated[ReplayRequest, Depends(json_body(ReplayRequest, optional=True))],
) -> JobView:
    """Give a failed or cancelled job a new life. What was paid is resumed, not paid again."""
    await find_job(services, account_id, job_id)
    await take_turn(services.rate, account_id, response)
    await services.jobs.replay(job_id, operation=new_id("op"), accept_charge=asked.accept_charge)
    return await show(services, await find_job(services, account_id, job_id))


@router.delete(
    "/{job_id}",
    status_code=204,
    responses=answers(204, "Gone, pictures included.") | keyed("not_found", "job_not_ended", "storage_unavailable"),
)
async def delete_job(job_id: str, services: Door, account_id: AccountId) -> None:
    """Delete an ended job: its pictures and their sidecar first, then its record."""
    await services.removal.remove(await find_job(services, account_id, job_id))


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
