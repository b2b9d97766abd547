"""Changes as they come: one job's, and the account's log for catching up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from api import examples
from api.auth import AccountId, Door
from api.compose import Services
from api.openapi import answers, keyed
from api.schemas import EventList, EventsQuery
from api.views import find_job, show, show_events
from darkroom.domain.errors import UnavailableError
from darkroom.domain.job import Job

router = APIRouter(prefix="/v1", tags=["events"])

_PING_SECONDS: Final = 15
_RECONNECT_MS: Final = 3000


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=answers(
        200,
        "Server-sent events `job`, each with the job as JSON; the stream ends after the one in which it has ended.",
        'event: job\nid: 7\ndata: {"id":"job_…","status":"succeeded",…}\n\n',
        media_type="text/event-stream",
    )
    | keyed("not_found"),
)
async def follow_job(job_id: str, services: Door, account_id: AccountId) -> EventSourceResponse:
    """The job now and after each change. An early end means: connect again."""
    job = await find_job(services, account_id, job_id)
    return EventSourceResponse(_changes(services, job), ping=_PING_SECONDS)


async def _changes(services: Services, job: Job) -> AsyncIterator[ServerSentEvent]:
    try:
        async for seen in services.watch.follow(job):
            view = await show(services, seen)
            yield ServerSentEvent(
                view.model_dump_json(), event="job", id=str(seen.version), retry=_RECONNECT_MS, sep="\n"
            )
    except UnavailableError:
        return


@router.get(
    "/events",
    responses=answers(200, "A page.", {"data": [examples.event()], "has_more": False, "next_cursor": "1"}) | keyed(),
)
async def list_events(services: Door, account_id: AccountId, query: Annotated[EventsQuery, Query()]) -> EventList:
    """The account's log, oldest first, after the cursor. Events are kept as long as ended jobs are."""
    after = int(query.cursor or 0)
    found = await services.deliveries.events(account_id, after=after, limit=query.limit + 1)
    page = found[: query.limit]
    return EventList(
        data=await show_events(services, page),
        has_more=len(found) > query.limit,
        next_cursor=str(page[-1].seq if page else after),
    )
