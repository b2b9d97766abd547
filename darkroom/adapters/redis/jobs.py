"""The door's side of the records: accept, look, list, and the owner's wishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from darkroom.adapters.redis.records import read_jobs
from darkroom.adapters.redis.scripts import AWAY, ask, run
from darkroom.domain.batch import Feeds, batch_job_id, line_of, waits_for
from darkroom.domain.errors import ConflictError, NotFoundError
from darkroom.domain.job import Job, NewJob
from darkroom.domain.lifecycle import TERMINAL, BatchStatus, JobStatus, Stage
from darkroom.ports import Created, JobPage, JobQuery

_SCAN = 200
"""Records read at a time while a listing looks for those that fit its filters."""

_SCAN_PAGES = 10
"""After so many looks a page ends early; its cursor goes on from there."""


class RedisChanges:
    """Signals of one job's changes."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    async def wait(self, seconds: float) -> bool:
        """True as soon as the job changed; a broken connection counts as no change."""
        try:
            return await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds) is not None
        except AWAY:
            await asyncio.sleep(min(seconds, 1))
            return False


@dataclass(frozen=True, slots=True)
class _BatchLines:
    """A batch's jobs need no index: their ids are made of its id and their lines."""

    batch_id: str
    last_line: int

    def before(self, position: tuple[int, str] | None) -> tuple[list[str], bool]:
        """The next ids, newest first, and whether there may be more."""
        begin = line_of(position[1]) - 1 if position else self.last_line
        lines = range(begin, max(0, begin - _SCAN), -1)
        return [batch_job_id(self.batch_id, line) for line in lines], begin > _SCAN


class RedisJobs:
    """Implements `ports.Jobs`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(self, job: NewJob) -> Created:
        """See `ports.Jobs`."""
        record: dict[str, str | int] = {
            "id": job.id,
            "account": job.account_id,
            "lane": job.lane,
            "model": job.model,
            "est": str(job.estimate_usd),
            "idem": job.idempotency or "",
            "fingerprint": job.fingerprint,
            "webhook": "1" if job.webhook_url else "",
        }
        if job.deadline_seconds is not None:
            record["deadline_seconds"] = job.deadline_seconds
        request: dict[str, Any] = {"arguments": job.arguments}
        if job.metadata:
            request["metadata"] = job.metadata
        if job.webhook_url:
            request["webhook_url"] = job.webhook_url
        answer = json.loads(await run(self._redis, "create_job", json.dumps(record), json.dumps(request)))
        return Created(answer["id"], created=answer["created"], conflict=answer.get("conflict", False))

    async def get(self, job_id: str) -> Job | None:
        """See `ports.Jobs`."""
        found = await self._read([job_id])
        return found[0] if found else None

    async def _read(self, ids: Sequence[str]) -> list[Job]:
        """Records as they are now, each with what it really waits for: see `ports.Jobs.get`."""
        jobs = await read_jobs(self._redis, ids)
        waiting = [job for job in jobs if _wants_permit(job)]
        if not waiting:
            return jobs
        batch_ids = sorted({job.batch_id for job in waiting if job.batch_id})
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.exists("dr:gate:fal", "dr:gate:s3")
            for batch_id in batch_ids:
                pipe.hmget(f"dr:batch:{batch_id}", "feeds", "status", "reason")
            gates, *rows = await ask(pipe.execute())
        batches = {name: row for name, row in zip(batch_ids, rows, strict=True) if row[0]}
        return [
            replace(job, stage=_stage(job, batches, gated=bool(gates))) if _wants_permit(job) else job for job in jobs
        ]

    async def knows(self, account_id: str, idempotency: str) -> bool:
        """See `ports.Jobs`."""
        return bool(await ask(self._redis.exists(f"dr:idem:{account_id}:{idempotency}")))

    async def waiting(self, account_id: str) -> int:
        """See `ports.Jobs`."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(f"dr:jobs:{account_id}:{JobStatus.QUEUED}")
            pipe.zcard(f"dr:jobs:{account_id}:{JobStatus.RETRYING}")
            return sum(await ask(pipe.execute()))

    async def job_of(self, submission_id: str) -> str | None:
        """The id of the job that a submission belongs to: the operator names submissions."""
        job_id: str | None = await ask(self._redis.hget(f"dr:sub:{submission_id}", "job"))
        return job_id

    async def page(self, query: JobQuery) -> JobPage:
        """See `ports.Jobs`. A page may hold fewer jobs than asked for and still have a next one."""
        batch = await self._batch_of(query) if query.batch_id else None
        if query.batch_id and batch is None:
            return JobPage((), None)
        found: list[Job] = []
        position = query.before
        for _ in range(_SCAN_PAGES):
            ids, more = await self._ids_after(query, position) if batch is None else batch.before(position)
            if batch is not None and ids:
                position = (position[0] if position else 0, ids[-1])
            for job in await self._read(ids):
                position = (job.created_at, job.id)
                if _fits(job, query):
                    found.append(job)
                    if len(found) > query.limit:
                        last = found[query.limit - 1]
                        return JobPage(tuple(found[: query.limit]), (last.created_at, last.id))
            if not more:
                return JobPage(tuple(found), None)
        return JobPage(tuple(found), position)

    async def _batch_of(self, query: JobQuery) -> _BatchLines | None:
        account, last = await ask(self._redis.hmget(f"dr:batch:{query.batch_id}", "account", "last_line"))
        return _BatchLines(str(query.batch_id), int(last)) if account == query.account_id else None

    async def _ids_after(self, query: JobQuery, position: tuple[int, str] | None) -> tuple[list[str], bool]:
        """The next ids of the index, newest first, and whether there may be more. Ids order jobs of one millisecond."""
        index = f"dr:jobs:{query.account_id}" + (f":{query.status}" if query.status else "")
        low = "-inf" if query.created_after is None else f"({query.created_after}"
        high = "+inf" if query.created_before is None else f"({query.created_before}"
        if position is not None:
            high = str(position[0])
        ids: list[str] = []
        offset, more = 0, True
        while more and not ids:
            rows = await ask(
                self._redis.zrange(index, high, low, desc=True, byscore=True, offset=offset, num=_SCAN, withscores=True)
            )
            ids = [job_id for job_id, score in rows if position is None or (int(score), job_id) < position]
            offset += len(rows)
            more = len(rows) == _SCAN
        return ids, more

    async def cancel(self, job_id: str) -> JobStatus:
        """See `ports.Jobs`."""
        answer = await run(self._redis, "cancel_job", job_id)
        if answer == "missing":
            raise NotFoundError("no such job")
        return JobStatus(answer)

    async def replay(self, job_id: str, *, operation: str, accept_charge: bool) -> None:
        """See `ports.Jobs`."""
        answer = await run(self._redis, "replay_job", job_id, operation, int(accept_charge))
        if answer == "missing":
            raise NotFoundError("no such job")
        if answer == "state":
            raise ConflictError("only a failed or cancelled job can be replayed", code="job_not_replayable")
        if answer == "charge":
            raise ConflictError(
                "a submission of this job was or may have been charged; replaying submits again: send"
                ' {"accept_charge": true} to allow that',
                code="charge_not_accepted",
            )

    async def delete(self, job_id: str) -> None:
        """See `ports.Jobs`."""
        answer = await run(self._redis, "delete_job", job_id)
        if answer == "missing":
            raise NotFoundError("no such job")
        if answer == "state":
            raise ConflictError("only an ended job can be deleted; cancel it first", code="job_not_ended")

    @asynccontextmanager
    async def changes(self, job_id: str) -> AsyncIterator[RedisChanges]:
        """See `ports.Jobs`."""
        pubsub = self._redis.pubsub()
        try:
            await ask(pubsub.subscribe(f"dr:changed:{job_id}"))
            await ask(pubsub.get_message(timeout=5))
            yield RedisChanges(pubsub)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]


def _wants_permit(job: Job) -> bool:
    return job.stage is Stage.WAITING_FOR_SLOT and job.status not in TERMINAL


def _stage(job: Job, batches: Mapping[str, Sequence[str]], *, gated: bool) -> Stage:
    """What a job waits for that wants a permit; the batches' rows are feeds, status and reason."""
    row = batches.get(job.batch_id or "")
    stage = Stage.WAITING_FOR_SLOT
    if row:
        stage = waits_for(Feeds(row[0]), BatchStatus(row[1]), row[2], canary=job.canary)
    return Stage.BLOCKED if gated and stage is Stage.WAITING_FOR_SLOT else stage


def _fits(job: Job, query: JobQuery) -> bool:
    return (
        (query.status is None or job.status is query.status)
        and (query.stage is None or job.stage is query.stage)
        and (query.lane is None or job.lane is query.lane)
        and (query.batch_id is None or job.batch_id == query.batch_id)
        and (query.created_after is None or job.created_at > query.created_after)
        and (query.created_before is None or job.created_at < query.created_before)
    )
