"""The store as tests use it: real scripts on a real Valkey, and short words for what callers do."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from redis.asyncio import Redis

from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.domain.errors import TransientError
from darkroom.domain.generation import Generated, MediaRef, RequestRef
from darkroom.domain.job import Job, NewJob
from darkroom.domain.lifecycle import Lane
from darkroom.ports import Acceptance, Limits, Opening, Source
from tests.integration.store_view import View, assert_no_stray_keys, travel

FAULT = TransientError("a runner fell over")
PICTURE = Generated((MediaRef("https://v3.fal.media/0.png", "image/png", 64, 64),), 7, (False,), Decimal("0.004"))
LEASE_SECONDS = 30
UNKNOWN_SECONDS = 100
"""Start timeout and longest run together."""


def ref(name: str) -> RequestRef:
    return RequestRef(name, f"https://q/{name}/status", f"https://q/{name}", f"https://q/{name}/cancel")


@dataclass(frozen=True)
class Worked:
    """A claimed job, its lease, and the submission that was opened for it."""

    job: Job
    lease: str
    submission: str

    @property
    def id(self) -> str:
        return self.job.id


class Kit:
    """`serial` makes names that sort in the order they were made."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = RedisTransitions(
            redis, lease_seconds=LEASE_SECONDS, unknown_seconds=UNKNOWN_SECONDS, max_attempts=2
        )
        self.schedule = RedisSchedule(redis)
        self.jobs = RedisJobs(redis)
        self.serial = 0

    def name(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}_{self.serial:026d}"

    async def limit(self, permits: int, *, reserve: int = 0, copying: int = 10, rate_interval: float = 0) -> None:
        await self.schedule.announce_limits(Limits(permits, reserve, copying, rate_interval))

    async def create(self, account: str = "acct_a", lane: Lane = Lane.INTERACTIVE, **fields: Any) -> str:  # noqa: ANN401 - NewJob's own fields
        name = self.name("job")
        values: dict[str, Any] = {
            "id": name,
            "account_id": account,
            "model": "fal-ai/krea-2/turbo",
            "arguments": {"prompt": name, "seed": 7},
            "lane": lane,
            "estimate_usd": Decimal("0.008"),
            "metadata": {},
        }
        await self.jobs.create(NewJob(**{**values, **fields}))
        return name

    async def claim(self, name: str) -> tuple[Job, str]:
        lease = self.name("lse")
        job = await self.store.claim(name, lease)
        assert job is not None, f"{name} was not dispatched"
        return job, lease

    async def open(self, name: str) -> Worked:
        """Claim a dispatched job and write the intent of its POST."""
        job, lease = await self.claim(name)
        submission = self.name("sub")
        assert await self.store.open_submission(job, submission) is Opening.OPENED
        return Worked(job, lease, submission)

    async def accept(self, worked: Worked, request: str, source: Source = Source.REPLY) -> Acceptance:
        return await self.store.accept_submission(worked.submission, ref(request), source)

    async def accepted(self, name: str) -> Worked:
        worked = await self.open(name)
        await self.accept(worked, "req_" + worked.submission)
        return worked

    async def generated(self, name: str) -> Worked:
        worked = await self.accepted(name)
        await self.store.finish_submission(worked.submission, PICTURE, Decimal("0.000032"))
        return worked

    async def doubted(self, name: str) -> Worked:
        worked = await self.open(name)
        assert await self.store.doubt(worked.id, worked.lease, worked.submission, FAULT)
        return worked

    async def get(self, name: str) -> Job:
        job = await self.jobs.get(name)
        assert job is not None
        return job

    async def dispatched(self) -> list[str]:
        """Which jobs' messages went out since the last look, in order."""
        messages = [str(message) for message in await self.redis.lrange("dr:outbox", 0, -1)]
        await self.redis.delete("dr:outbox")
        return [message.rpartition(":")[2] for message in messages if message.startswith("run:")]

    async def look(self) -> View:
        view = await View.take(self.redis)
        assert_no_stray_keys(view)
        return view

    async def travel(self, seconds: float) -> None:
        await travel(self.redis, seconds)

    async def permits(self) -> set[str]:
        return set((await self.look()).table("dr:permits"))
