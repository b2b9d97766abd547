"""Events, and the deliveries owed for them."""

from __future__ import annotations

import json
from dataclasses import replace

from redis.asyncio import Redis

from darkroom.adapters.redis.batch_records import parse_batch
from darkroom.adapters.redis.records import read_jobs
from darkroom.adapters.redis.scripts import ask, run
from darkroom.domain.job import Delivery, DeliveryAttempt, Event, Job
from darkroom.domain.lifecycle import DeliveryEvent, DeliveryStatus, JobStatus, Place
from darkroom.ports import AttemptReport

_NEWEST = 100


class RedisDeliveries:
    """Implements `ports.Deliveries`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def events(self, account_id: str, *, after: int, limit: int) -> list[Event]:
        """See `ports.Deliveries`."""
        rows = await ask(self._redis.xrange(f"dr:events:{account_id}", f"({after}-0", "+", count=limit))
        jobs = {job.id: job for job in await read_jobs(self._redis, [f["job"] for _, f in rows if "job" in f])}
        return [
            _event(entry_id, fields, jobs.get(fields["job"])) if "job" in fields else _batch_event(entry_id, fields)
            for entry_id, fields in rows
        ]

    async def get(self, delivery_id: str) -> Delivery | None:
        """See `ports.Deliveries`."""
        found = await self._read([delivery_id])
        return found[0] if found else None

    async def newest(self, account_id: str, *, job_id: str | None, status: DeliveryStatus | None) -> list[Delivery]:
        """See `ports.Deliveries`."""
        if job_id is None:
            ids = await ask(self._redis.zrange(f"dr:deliveries:{account_id}", 0, _NEWEST * 10, desc=True))
        else:
            ids = list(reversed(await ask(self._redis.lrange(f"dr:job:{job_id}:deliveries", 0, -1))))
        found = await self._read(ids)
        fitting = [d for d in found if d.account_id == account_id and (status is None or d.status is status)]
        return fitting[:_NEWEST]

    async def _read(self, ids: list[str]) -> list[Delivery]:
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for delivery_id in ids:
                pipe.hgetall(f"dr:delivery:{delivery_id}")
                pipe.lrange(f"dr:delivery:{delivery_id}:attempts", 0, -1)
            answers = await ask(pipe.execute())
        return [
            _delivery(delivery_id, answers[2 * i], answers[2 * i + 1])
            for i, delivery_id in enumerate(ids)
            if answers[2 * i]
        ]

    async def claim(self, delivery_id: str, token: str, seconds: float) -> Delivery | None:
        """See `ports.Deliveries`."""
        if not await run(self._redis, "claim_delivery", delivery_id, token, int(seconds * 1000)):
            return None
        return await self.get(delivery_id)

    async def event_of(self, delivery: Delivery) -> Event | None:
        """See `ports.Deliveries`."""
        found = await self.events(delivery.account_id, after=delivery.event_seq - 1, limit=1)
        return found[0] if found and found[0].seq == delivery.event_seq else None

    async def record(
        self, delivery_id: str, token: str, report: AttemptReport, event: DeliveryEvent, *, delay: float
    ) -> None:
        """See `ports.Deliveries`."""
        attempt = {
            "status_code": report.status_code,
            "error": report.error,
            "latency_ms": report.latency_ms,
            "response_excerpt": report.response_excerpt,
        }
        attempt = {name: value for name, value in attempt.items() if value is not None}
        await run(self._redis, "record_attempt", delivery_id, token, event, json.dumps(attempt), int(delay * 1000))

    async def redeliver(self, delivery_id: str) -> None:
        """See `ports.Deliveries`."""
        await run(self._redis, "redeliver", delivery_id)


def _event(entry_id: str, fields: dict[str, str], job: Job | None) -> Event:
    """The job as it was when the event happened: its record may have moved on since (a replay)."""
    at = int(fields["at"])
    if job is not None and job.life != int(fields["life"]):
        job = replace(
            job,
            status=JobStatus(fields["type"].removeprefix("job.")),
            stage=None,
            place=Place.NONE,
            finished_at=at,
            next_attempt_at=None,
            attempts=int(fields["attempts"]),
            error=json.loads(fields["error"]) if fields["error"] else None,
            artifacts=(),
        )
    return Event(fields["id"], int(entry_id.partition("-")[0]), fields["type"], at, job, fields["job"])


def _batch_event(entry_id: str, fields: dict[str, str]) -> Event:
    """The batch as it was, for the event holds its record."""
    record = {name: str(value) for name, value in json.loads(fields["then"]).items()}
    batch = parse_batch(fields["batch"], record, {})
    seq = int(entry_id.partition("-")[0])
    return Event(fields["id"], seq, fields["type"], int(fields["at"]), None, None, batch, fields["batch"])


def _delivery(delivery_id: str, record: dict[str, str], attempts: list[str]) -> Delivery:
    return Delivery(
        id=delivery_id,
        account_id=record["account"],
        event_id=record["event"],
        event_type=record["type"],
        event_seq=int(record["seq"]),
        job_id=record.get("job"),
        batch_id=record.get("batch"),
        url=record["url"],
        status=DeliveryStatus(record["status"]),
        created_at=int(record["created"]),
        next_attempt_at=int(record["next"]) if record["next"] else None,
        schedule_from=int(record.get("first", 0)),
        attempts=tuple(_attempt(json.loads(text)) for text in attempts),
    )


def _attempt(document: dict[str, object]) -> DeliveryAttempt:
    return DeliveryAttempt(**{"status_code": None, "error": None, **document})  # type: ignore[arg-type]
