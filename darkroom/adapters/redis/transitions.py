"""The worker's side of the records: one method a transition."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from redis.asyncio import Redis

from darkroom.adapters.redis.records import NANO, dump_result, parse_job
from darkroom.adapters.redis.scripts import ask, run
from darkroom.domain.errors import DarkroomError, PermanentError, ResultGoneError
from darkroom.domain.generation import Generated, RequestRef, Verdict
from darkroom.domain.job import Artifact, Job
from darkroom.domain.lifecycle import JobEvent
from darkroom.domain.policy import GRACE_SECONDS, RESCUES_MAX
from darkroom.ports import Acceptance, Hold, Opening, Settlement, Source

_HOLDS: Final = {0: Hold.LOST, 1: Hold.HELD, 2: Hold.CANCELLING}

WORKER_CRASHED: Final = DarkroomError(
    f"{RESCUES_MAX} workers died in a row while they held this job", code="worker_crashed"
)
DEADLINE_EXCEEDED: Final = DarkroomError("the deadline passed before anything was submitted", code="deadline_exceeded")
OUTCOME_UNKNOWN: Final = DarkroomError(
    "the reply to a submission was lost and its outcome stayed unknown; it may have been charged",
    code="outcome_unknown",
)
GRACE_EXCEEDED: Final = DarkroomError(
    "fal took the request, and its pictures could not be had within a day; it may have been charged", code="result_lost"
)


def dump_error(error: DarkroomError) -> str:
    """An error as it is kept on a record: readable, without anything secret."""
    document: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.upstream:
        document["upstream"] = error.upstream
    return json.dumps(document)


def input_fingerprint(model: str, arguments: dict[str, Any]) -> str:
    """What makes two requests the same to fal: model and input, whatever the order of the fields."""
    text = json.dumps([model, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class RedisTransitions:
    """Implements `ports.Transitions`. `unknown_seconds` is start timeout + longest run.

    `replicas` is how many replicas must have an intent before a POST may go (0: the server has none).
    """

    def __init__(
        self, redis: Redis, *, lease_seconds: int, unknown_seconds: int, max_attempts: int, replicas: int = 0
    ) -> None:
        self._redis = redis
        self._lease_ms = lease_seconds * 1000
        self._unknown_ms = unknown_seconds * 1000
        self._max_attempts = max_attempts
        self._replicas = replicas

    async def claim(self, job_id: str, lease: str) -> Job | None:
        """See `ports.Transitions`."""
        row = await run(self._redis, "claim_job", job_id, lease, self._lease_ms)
        return parse_job(job_id, row) if row else None

    async def heartbeat(self, leases: Sequence[tuple[str, str]]) -> list[Hold]:
        """See `ports.Transitions`."""
        if not leases:
            return []
        flat = [part for pair in leases for part in pair]
        return [_HOLDS[answer] for answer in await run(self._redis, "heartbeat", self._lease_ms, *flat)]

    async def rescue(self, job_id: str, lease: str) -> bool:
        """See `ports.Transitions`."""
        return bool(await run(self._redis, "rescue_job", job_id, lease, RESCUES_MAX, dump_error(WORKER_CRASHED)))

    async def open_submission(self, job: Job, submission_id: str) -> Opening:
        """See `ports.Transitions`. With replicas, OPENED means that one of them has the intent too (WAIT 1)."""
        arguments = (
            *(job.id, job.lease or "", submission_id),
            *(input_fingerprint(job.model, job.arguments), self._unknown_ms),
        )
        if not self._replicas:
            return Opening(await run(self._redis, "open_submission", *arguments))
        # WAIT speaks of the writes of its own connection, so both go over one.
        async with self._redis.client() as connection:
            opening = Opening(await run(connection, "open_submission", *arguments))
            if opening is Opening.OPENED and await ask(connection.wait(1, 2000)) < 1:
                return Opening.UNREPLICATED
        return opening

    async def accept_submission(self, submission_id: str, ref: RequestRef, source: Source) -> Acceptance:
        """See `ports.Transitions`."""
        urls = (ref.status_url, ref.response_url, ref.cancel_url)
        answer = await run(
            self._redis, "accept_submission", submission_id, ref.request_id, *urls, source, GRACE_SECONDS * 1000
        )
        return Acceptance(answer)

    async def reject_submission(self, submission_id: str, error: DarkroomError) -> None:
        """See `ports.Transitions`."""
        judged = int(isinstance(error, PermanentError))
        await run(self._redis, "reject_submission", submission_id, dump_error(error), judged)

    async def finish_submission(
        self, submission_id: str, verdict: Verdict | ResultGoneError, cost_usd: Decimal | None
    ) -> None:
        """See `ports.Transitions`."""
        result, error, units = "", "", None
        if isinstance(verdict, Generated):
            outcome, result, units = "ok", dump_result(verdict), verdict.billable_units
        elif isinstance(verdict, ResultGoneError):
            outcome, error = "lost", dump_error(verdict)
        else:
            outcome, error, units = "error", dump_error(verdict.error), verdict.billable_units
        cost = "" if cost_usd is None else str(int(cost_usd * NANO))
        await run(
            self._redis,
            "finish_submission",
            submission_id,
            outcome,
            "" if units is None else str(units),
            cost,
            result,
            error,
        )

    async def keep_artifact(self, job_id: str, lease: str, artifact: Artifact) -> bool:
        """See `ports.Transitions`."""
        document = json.dumps({name: getattr(artifact, name) for name in Artifact.__slots__})
        return bool(await run(self._redis, "keep_artifact", job_id, lease, artifact.index, document))

    async def snooze(self, job_id: str, lease: str) -> bool:
        """See `ports.Transitions`."""
        return bool(await run(self._redis, "snooze_job", job_id, lease))

    async def retry(self, job_id: str, lease: str, *, delay: float, error: DarkroomError, counts: bool) -> bool:
        """See `ports.Transitions`."""
        answer = await run(
            *(self._redis, "retry_job", job_id, lease),
            *(int(delay * 1000), self._max_attempts, dump_error(error), int(counts)),
        )
        return bool(answer)

    async def doubt(self, job_id: str, lease: str, submission_id: str, error: DarkroomError) -> bool:
        """See `ports.Transitions`."""
        return bool(await run(self._redis, "doubt_job", job_id, lease, submission_id, dump_error(error), 0))

    async def settle(self, submission_id: str, settlement: Settlement, *, delay: float = 0) -> bool:
        """See `ports.Transitions`."""
        argument = dump_error(OUTCOME_UNKNOWN) if settlement is Settlement.FAIL else str(int(delay * 1000))
        return bool(await run(self._redis, "settle_submission", submission_id, settlement, argument))

    async def finish(self, job_id: str, lease: str, event: JobEvent, error: DarkroomError | None = None) -> bool:
        """See `ports.Transitions`."""
        document = "" if error is None else dump_error(error)
        return bool(await run(self._redis, "finish_job", job_id, lease, event, document))

    async def expire(self, job_id: str) -> None:
        """See `ports.Transitions`."""
        errors = (dump_error(DEADLINE_EXCEEDED), dump_error(OUTCOME_UNKNOWN), dump_error(GRACE_EXCEEDED))
        await run(self._redis, "expire_job", job_id, *errors)
