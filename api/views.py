"""Records as callers see them: with URLs signed now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.compose import Services
from darkroom.domain.errors import NotFoundError
from darkroom.domain.ids import is_id
from darkroom.domain.job import Delivery, Event, Job
from darkroom.domain.representation import EventView, JobView, represent_event, represent_job


async def show(services: Services, job: Job) -> JobView:
    """One job. Raises UnavailableError, BlockedError when URLs cannot be signed."""
    return (await show_all(services, [job]))[0]


async def show_all(services: Services, jobs: Sequence[Job]) -> list[JobView]:
    """Many jobs. Signing takes CPU, so it does not happen on the event loop."""

    def views() -> list[JobView]:
        return [represent_job(job, bucket=services.bucket_name, presign=services.bucket.presign) for job in jobs]

    return await asyncio.to_thread(views) if any(job.artifacts for job in jobs) else views()


async def show_events(services: Services, events: Sequence[Event]) -> list[EventView]:
    """Events with their jobs as they were then."""

    def views() -> list[EventView]:
        return [represent_event(e, bucket=services.bucket_name, presign=services.bucket.presign) for e in events]

    return await asyncio.to_thread(views)


async def find_job(services: Services, account_id: str, job_id: str) -> Job:
    """The account's job. Raises NotFoundError for another's, and for what cannot be a job's id."""
    job = await services.jobs.get(job_id) if is_id(job_id, "job") else None
    if job is None or job.account_id != account_id:
        raise NotFoundError(f"there is no job {job_id}" if is_id(job_id, "job") else "there is no such job")
    return job


async def find_delivery(services: Services, account_id: str, delivery_id: str) -> Delivery:
    """The account's delivery. Its id is the job's and the number of the job's life: `dlv_…_0`. Raises NotFoundError."""
    name, _, life = delivery_id.rpartition("_")
    possible = is_id(name, "dlv") and life.isascii() and life.isdigit()
    delivery = await services.deliveries.get(delivery_id) if possible else None
    if delivery is None or delivery.account_id != account_id:
        raise NotFoundError("there is no such delivery")
    return delivery
