"""Batches, from the upload's key to the end. Their jobs are named by batch and line, so they need no index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from redis.asyncio import Redis

from darkroom.adapters.redis.batch_records import parse_batch
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.records import NANO, read_jobs
from darkroom.adapters.redis.scripts import ask, run
from darkroom.domain.batch import Batch, NewBatch, Pace
from darkroom.domain.errors import ConflictError, NotFoundError
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import BatchStatus, JobStatus
from darkroom.ports import BatchJob, BatchPage, BatchTimer, Known

_TYPICAL_SECONDS: Final = 4.0
"""What a job takes where none was seen yet."""

_PURGED_AT_ONCE: Final = 4

_INTAKES: Final = 50
"""An account has no more intakes than that at a time: each takes seconds."""


def _nano(usd: Decimal | None) -> str:
    return "" if usd is None else str(int(usd * NANO))


def _text(value: object) -> str:
    return "" if value is None else str(value)


class RedisBatches:
    """Implements `ports.Batches`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    # -- the door ------------------------------------------------------------------------------------------------------

    async def begin_upload(self, account_id: str, idempotency: str, token: str, seconds: float) -> Known:
        """See `ports.Batches`."""
        return _known(await run(self._redis, "begin_upload", account_id, idempotency, token, int(seconds * 1000)))

    async def end_upload(self, account_id: str, idempotency: str, token: str) -> None:
        """See `ports.Batches`."""
        await run(self._redis, "end_upload", account_id, idempotency, token)

    async def create(self, batch: NewBatch, token: str) -> Known:
        """See `ports.Batches`."""
        record = {
            "id": batch.id,
            "account": batch.account_id,
            "name": batch.name,
            "on_invalid": batch.on_invalid,
            "budget": _nano(batch.budget_usd),
            "not_before": _text(batch.not_before),
            "finish_by": _text(batch.finish_by),
            "canary": _text(batch.canary),
            "canary_max": _text(batch.canary_max_failures),
            "webhook": batch.webhook_url or "",
            "job_events": "1" if batch.job_events else "",
            "lines": batch.lines,
            "bytes": batch.bytes,
            "idem": batch.idempotency or "",
            "fingerprint": batch.fingerprint,
        }
        return _known(await run(self._redis, "create_batch", json.dumps(record), token))

    async def get(self, batch_id: str) -> Batch | None:
        """See `ports.Batches`."""
        found = await self._read([batch_id])
        return found[0] if found else None

    async def page(self, account_id: str, *, before: tuple[int, str] | None, limit: int) -> BatchPage:
        """See `ports.Batches`."""
        high = "+inf" if before is None else str(before[0])
        ids: list[str] = []
        offset = 0
        while len(ids) <= limit:
            rows = await ask(
                self._redis.zrange(
                    f"dr:batches:{account_id}",
                    high,
                    "-inf",
                    desc=True,
                    byscore=True,
                    offset=offset,
                    num=limit + 1,
                    withscores=True,
                )
            )
            ids += [batch_id for batch_id, score in rows if before is None or (int(score), batch_id) < before]
            offset += len(rows)
            if len(rows) <= limit:
                break
        found = await self._read(ids[:limit])
        more = len(ids) > limit and found
        return BatchPage(tuple(found), (found[-1].created_at, found[-1].id) if more else None)

    async def waiting(self, account_id: str) -> int:
        """See `ports.Batches`."""
        newest = await self.page(account_id, before=None, limit=_INTAKES)
        unmade = sum(b.lines - b.counts.total for b in newest.batches if b.status is BatchStatus.VALIDATING)
        return unmade + await RedisJobs(self._redis).waiting(account_id)

    async def mistakes(self, batch_id: str) -> list[dict[str, Any]]:
        """See `ports.Batches`."""
        return list(json.loads(await ask(self._redis.get(f"dr:batch:{batch_id}:mistakes")) or "[]"))

    async def pause(self, batch_id: str) -> None:
        """See `ports.Batches`."""
        _check(await run(self._redis, "pause_batch", batch_id), "only a queued or running batch can be paused")

    async def resume(self, batch_id: str, budget_usd: Decimal | None) -> None:
        """See `ports.Batches`."""
        answer = await run(self._redis, "resume_batch", batch_id, _nano(budget_usd))
        if answer == "budget":
            raise ConflictError("the budget is used up: resume with a higher `budget_usd`", code="budget_used_up")
        _check(answer, "only a paused batch can be resumed")

    async def cancel(self, batch_id: str) -> None:
        """See `ports.Batches`."""
        _check(await run(self._redis, "cancel_batch", batch_id), "")

    async def retry_failed(self, batch_id: str, *, operation: str, code: str | None, accept_charge: bool) -> None:
        """See `ports.Batches`."""
        answer = await run(self._redis, "retry_batch", batch_id, operation, code or "", int(accept_charge))
        _check(answer, "jobs can be retried once the batch has started, and while it is not being cancelled")

    # -- the worker ----------------------------------------------------------------------------------------------------

    async def hold(self, batch_id: str, timer: BatchTimer) -> BatchStatus | None:
        """See `ports.Batches`."""
        return _status(await run(self._redis, "hold_batch", batch_id, timer))

    async def judge(
        self,
        batch_id: str,
        *,
        good: bool,
        valid: int,
        invalid: int,
        estimate_usd: Decimal,
        pictures: int,
        last_line: int,
        mistakes: Sequence[Mapping[str, Any]],
    ) -> BatchStatus | None:
        """See `ports.Batches`."""
        facts = (int(good), valid, invalid, _nano(estimate_usd), pictures, last_line)
        return _status(await run(self._redis, "judge_batch", batch_id, *facts, json.dumps(mistakes)))

    async def add_jobs(self, batch_id: str, model: str, jobs: Sequence[BatchJob], *, up_to_line: int) -> bool:
        """See `ports.Batches`."""
        flat: list[str | int] = []
        for job in jobs:
            request: dict[str, Any] = {"arguments": job.arguments}
            if job.metadata:
                request["metadata"] = job.metadata
            text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
            flat += (job.id, job.line, job.custom_id or "", str(job.estimate_usd), int(job.canary), text)
        return bool(await run(self._redis, "add_batch_jobs", batch_id, model, up_to_line, *flat))

    async def start(self, batch_id: str) -> BatchStatus | None:
        """See `ports.Batches`."""
        return _status(await run(self._redis, "start_batch", batch_id))

    async def drain(self, batch_id: str, job_ids: Sequence[str], *, up_to_line: int, last: bool) -> bool:
        """See `ports.Batches`."""
        return bool(await run(self._redis, "drain_batch", batch_id, up_to_line, int(last), *job_ids))

    async def replay(self, batch_id: str, job_ids: Sequence[str], *, up_to_line: int, last: bool) -> bool:
        """See `ports.Batches`."""
        return bool(await run(self._redis, "replay_batch", batch_id, up_to_line, int(last), *job_ids))

    async def finish(self, batch_id: str) -> BatchStatus | None:
        """See `ports.Batches`."""
        return _status(await run(self._redis, "finish_batch", batch_id))

    async def sweep(self, retention_days: int) -> None:
        """See `ports.Batches`."""
        now = await self.now()
        before = now - retention_days * 86_400_000
        ids = await ask(
            self._redis.zrange("dr:ended_batches", "-inf", before, byscore=True, offset=0, num=_PURGED_AT_ONCE)
        )
        if ids:
            await ask(
                self._redis.zadd("dr:timers", {f"{BatchTimer.PURGE}:{batch_id}": now for batch_id in ids}, nx=True)
            )

    async def delete(self, batch_id: str) -> None:
        """See `ports.Batches`."""
        await run(self._redis, "delete_batch", batch_id)

    async def jobs(self, job_ids: Sequence[str]) -> list[Job]:
        """See `ports.Batches`."""
        return await read_jobs(self._redis, job_ids)

    async def pace(self) -> Pace:
        """See `ports.Batches`."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget("dr:limits", "permits")
            pipe.get("dr:pace")
            pipe.hmget("dr:counts", JobStatus.QUEUED, JobStatus.RETRYING)
            permits, milliseconds, waiting = await ask(pipe.execute())
        seconds = float(milliseconds) / 1000 if milliseconds else _TYPICAL_SECONDS
        return Pace(int(permits or 1), seconds, sum(int(n or 0) for n in waiting))

    async def now(self) -> int:
        """See `ports.Batches`."""
        seconds, micros = await ask(self._redis.time())
        return int(seconds) * 1000 + int(micros) // 1000

    async def _read(self, ids: Sequence[str]) -> list[Batch]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for batch_id in ids:
                pipe.hgetall(f"dr:batch:{batch_id}")
                pipe.hgetall(f"dr:batch:{batch_id}:causes")
            answers = await ask(pipe.execute())
        return [
            parse_batch(batch_id, answers[2 * i], answers[2 * i + 1])
            for i, batch_id in enumerate(ids)
            if answers[2 * i]
        ]


def _known(answer: Sequence[str]) -> Known:
    if answer[0] == "known":
        return Known(answer[1], answer[2])
    return Known(busy=answer[0] == "busy")


def _status(answer: str) -> BatchStatus | None:
    return BatchStatus(answer) if answer else None


def _check(answer: str, rule: str) -> None:
    if answer == "missing":
        raise NotFoundError("no such batch")
    if answer == "state":
        raise ConflictError(rule, code="batch_state")
