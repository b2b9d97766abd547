"""Reads records: hashes of strings become the domain's values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import run
from darkroom.domain.generation import Generated, MediaRef, RequestRef
from darkroom.domain.job import Artifact, Job, Submission
from darkroom.domain.lifecycle import JobStatus, Lane, Place, Stage, SubmissionStatus

NANO = Decimal(10**9)


def _int(text: str | None) -> int | None:
    return int(text) if text else None


def _decimal(text: str | None) -> Decimal | None:
    return Decimal(text) if text else None


def parse_submission(submission_id: str, flat: Sequence[str], result: str | None) -> Submission:
    """A submission's hash, and its result where fal gave one."""
    record = _table(flat)
    ref = None
    if record.get("request_id"):
        ref = RequestRef(record["request_id"], record["status_url"], record["response_url"], record["cancel_url"])
    cost = _decimal(record.get("cost"))
    units = _decimal(record.get("units"))
    return Submission(
        id=submission_id,
        job_id=record["job"],
        status=SubmissionStatus(record["status"]),
        opened_at=int(record["opened"]),
        ref=ref,
        accepted_at=_int(record.get("accepted")),
        done_at=_int(record.get("done")),
        outcome=record.get("outcome") or None,
        billable_units=units,
        cost_usd=None if cost is None else cost / NANO,
        error=json.loads(record["error"]) if record.get("error") else None,
        result=load_result(result, units) if result else None,
        late_request_id=record.get("late_request_id"),
        looks=int(record.get("looks", 0)),
    )


def dump_result(generated: Generated) -> str:
    """A verdict as it is kept."""
    return json.dumps(
        {
            "media": [[m.url, m.content_type, m.width, m.height] for m in generated.media],
            "seed": generated.seed,
            "nsfw": list(generated.has_nsfw_concepts),
        },
        separators=(",", ":"),
    )


def load_result(text: str, billable_units: Decimal | None) -> Generated:
    """The inverse of `dump_result`."""
    kept = json.loads(text)
    return Generated(
        media=tuple(MediaRef(*item) for item in kept["media"]),
        seed=kept["seed"],
        has_nsfw_concepts=tuple(kept["nsfw"]),
        billable_units=billable_units,
    )


def _table(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _artifacts(texts: Sequence[str]) -> tuple[Artifact, ...]:
    return tuple(sorted((Artifact(**json.loads(text)) for text in texts), key=lambda a: a.index))


_UNSAID = dict.fromkeys(
    ("started", "finished", "deadline", "next", "cancel", "lease", "batch", "custom"), ""
) | dict.fromkeys(("attempts", "errored", "life"), "0")
"""What a record that does not say it means: a batch's jobs are written without it (lib.lua has the same)."""


def parse_job(job_id: str, row: Sequence[Any]) -> Job:
    """A job as lib.lua's `whole` hands it out."""
    record, request, error, artifacts, *subs = row
    submissions = [parse_submission(*subs[i : i + 3]) for i in range(0, len(subs), 3) if subs[i + 1]]
    record = _UNSAID | _table(record)
    asked: dict[str, Any] = json.loads(request or "{}")
    return Job(
        id=job_id,
        account_id=record["account"],
        status=JobStatus(record["status"]),
        stage=Stage(record["stage"]) if record["stage"] else None,
        place=Place(record["place"]),
        model=record["model"],
        arguments=asked.get("arguments", {}),
        lane=Lane(record["lane"]),
        metadata=asked.get("metadata", {}),
        webhook_url=asked.get("webhook_url"),
        estimate_usd=Decimal(record["est"]),
        attempts=int(record["attempts"]),
        errored=int(record["errored"]),
        created_at=int(record["created"]),
        started_at=_int(record["started"]),
        finished_at=_int(record["finished"]),
        deadline_at=_int(record["deadline"]),
        next_attempt_at=_int(record["next"]),
        cancel_requested=record["cancel"] == "1",
        lease=record["lease"] or None,
        version=int(record["rev"]),
        batch_id=record["batch"] or None,
        custom_id=record["custom"] or None,
        error=json.loads(error) if error else None,
        artifacts=_artifacts(artifacts[1::2]),
        submissions=tuple(submissions),
        line=_int(record.get("line")),
        canary="canary" in record,
        life=int(record["life"]),
    )


async def read_jobs(redis: Redis, ids: Sequence[str]) -> list[Job]:
    """Many jobs with their submissions in one round trip, in the order asked; those that are gone are left out.

    Raises UnavailableError when Redis is away.
    """
    rows = await run(redis, "read_jobs", *ids) if ids else []
    return [parse_job(job_id, row) for job_id, row in zip(ids, rows, strict=True) if row]
