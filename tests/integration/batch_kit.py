"""A batch in the store without a bucket: what an intake writes, in short words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from redis.asyncio import Redis

from darkroom.adapters.redis.batches import RedisBatches
from darkroom.domain.batch import Batch, NewBatch, OnInvalid, batch_job_id
from darkroom.domain.ids import new_id
from darkroom.domain.krea import MODEL
from darkroom.domain.lifecycle import JobEvent
from darkroom.ports import BatchJob
from tests.integration.store_kit import FAULT, PICTURE, Kit, Worked
from tests.integration.store_view import assert_batches

PRICE = Decimal("0.008")


class BatchKit(Kit):
    """`Kit`, and batches of jobs that each cost $0.008."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.batches = RedisBatches(redis)

    async def upload(self, jobs: int, *, made: int | None = None, **fields: Any) -> str:  # noqa: ANN401 - NewBatch's own
        """A batch that is judged, with `made` of its jobs in."""
        values: dict[str, Any] = {
            "id": new_id("batch"),
            "account_id": "acct_a",
            "name": "",
            "on_invalid": OnInvalid.REJECT,
            "budget_usd": None,
            "not_before": None,
            "finish_by": None,
            "webhook_url": None,
            "canary": None,
            "canary_max_failures": None,
            "lines": jobs,
            "bytes": 0,
        }
        new = NewBatch(**{**values, **fields})
        await self.batches.create(new, "token")
        await self.batches.judge(
            new.id,
            good=True,
            valid=jobs,
            invalid=0,
            estimate_usd=jobs * PRICE,
            pictures=jobs,
            last_line=jobs,
            mistakes=[],
        )
        await self.make(new.id, range(1, (jobs if made is None else made) + 1), canary=new.canary or 0)
        return new.id

    async def make(self, batch_id: str, lines: range, *, canary: int = 0) -> bool:
        jobs = [
            BatchJob(
                batch_job_id(batch_id, n), n, f"c{n}", {"prompt": f"p{n}", "seed": n}, {}, PRICE, canary=n <= canary
            )
            for n in lines
        ]
        return await self.batches.add_jobs(batch_id, MODEL, jobs, up_to_line=lines[-1])

    async def batch(self, jobs: int, **fields: Any) -> str:  # noqa: ANN401 - NewBatch's own
        """A batch that is taken in."""
        batch_id = await self.upload(jobs, **fields)
        await self.batches.start(batch_id)
        return batch_id

    async def see(self, batch_id: str) -> Batch:
        assert_batches(await self.look())
        batch = await self.batches.get(batch_id)
        assert batch is not None
        return batch

    async def succeed(self, name: str, cost: Decimal | None = PRICE) -> Worked:
        worked = await self.accepted(name)
        await self.store.finish_submission(worked.submission, PICTURE, cost)
        assert await self.store.finish(worked.id, worked.lease, JobEvent.COMPLETED)
        return worked

    async def ended_badly(self, batch_id: str) -> None:
        """A batch of one job, which fails."""
        job, lease = await self.claim(batch_job_id(batch_id, 1))
        assert await self.store.finish(job.id, lease, JobEvent.EXHAUSTED, FAULT)
        await self.batches.finish(batch_id)

    async def drained(self, batch_id: str) -> None:
        """End what is not paid, as a worker does."""
        batch = await self.see(batch_id)
        ids = [batch_job_id(batch_id, line) for line in range(1, batch.added + 1)]
        await self.batches.drain(batch_id, ids, up_to_line=batch.added, last=True)

    async def due(self) -> list[str]:
        return await self.schedule.tick()
