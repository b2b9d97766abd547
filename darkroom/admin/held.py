"""`darkroom-admin held` and `gate`: what the program cannot decide alone."""

from __future__ import annotations

from typing import Annotated

import typer
from redis.asyncio import Redis

from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.operator import RedisOperator
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.admin.tools import moment, run, table
from darkroom.domain.adopted import adopted_reference
from darkroom.domain.errors import ConflictError, NotFoundError, PermanentError
from darkroom.domain.ids import is_id
from darkroom.domain.job import Job
from darkroom.domain.lifecycle import SubmissionStatus
from darkroom.ports import Acceptance, Settlement, Source
from darkroom.settings import CommonSettings

held = typer.Typer(help="Jobs whose submission's reply was lost and could not be cleared up.", no_args_is_help=True)
gate = typer.Typer(help="What stops submissions to fal.", no_args_is_help=True)

SubmissionId = Annotated[str, typer.Argument(help="sub_…, as `held ls` shows it")]
RequestId = Annotated[str, typer.Argument(help="fal's request id, from fal's dashboard or listing")]

_FOUND = {
    Acceptance.ACCEPTED: "adopted: the job goes on with this request",
    Acceptance.OWNED: "nothing changed: this request belongs to another submission",
    Acceptance.DOUBLE: "recorded as a second charge: the submission has another request already",
    Acceptance.LATE: "recorded as a charge: the submission was closed already",
    Acceptance.BUSY: "nothing changed: another submission of the same input waits for its reply",
    Acceptance.UNKNOWN: "no such submission",
}


@held.command("ls")
def list_held() -> None:
    """Print the held jobs, oldest first."""

    async def show(redis: Redis, _: CommonSettings) -> None:
        found = await RedisOperator(redis).held()
        rows = [(_submission(job), job.id, job.account_id, moment(since), _prompt(job)) for job, since in found]
        table(("SUBMISSION", "JOB", "ACCOUNT", "HELD SINCE", "PROMPT"), rows)

    run(show)


@held.command("adopt")
def adopt(submission_id: SubmissionId, request_id: RequestId) -> None:
    """Say that this request of fal's is the submission: the job resumes it, nothing is paid again."""

    async def decide(redis: Redis, settings: CommonSettings) -> None:
        job = await _job_of(redis, submission_id)
        try:
            reference = adopted_reference(settings.fal_queue_url, job.model, request_id)
        except ValueError as fault:
            raise PermanentError(str(fault)) from None
        found = await _transitions(redis).accept_submission(submission_id, reference, Source.OPERATOR)
        if found is not Acceptance.ACCEPTED:
            raise ConflictError(_FOUND[found])
        typer.echo(_FOUND[found])

    run(decide)


@held.command("resubmit")
def resubmit(submission_id: SubmissionId) -> None:
    """Give the submission up and let the job submit anew. The lost one may have been charged."""
    _settle(submission_id, Settlement.RESUBMIT, "the job submits anew")


@held.command("fail")
def fail_held(submission_id: SubmissionId) -> None:
    """Give the submission up and end the job as failed (outcome_unknown)."""
    _settle(submission_id, Settlement.FAIL, "the job has failed")


@gate.command("show")
def show_gate() -> None:
    """Print what stops submissions now."""

    async def show(redis: Redis, _: CommonSettings) -> None:
        operator = RedisOperator(redis)
        closed = await operator.fal_gate()
        if closed is None:
            typer.echo("fal: open")
        else:
            typer.echo(f"fal: closed since {moment(closed.since)}: {closed.reason}: {closed.message}")
            typer.echo(f"     one submission tries it at {moment(closed.probe_at)}")
        storage = (await RedisSchedule(redis).gates()).get("s3")
        typer.echo(f"s3: {'closed: ' + storage if storage else 'open'}")
        if (seconds := await operator.cooldown()) > 0:
            typer.echo(f"cooldown: {seconds:.0f} s, fal asked for it")

    run(show)


@gate.command("open")
def open_gate() -> None:
    """Say that fal takes submissions again: the key or the balance was mended."""

    async def decide(redis: Redis, _: CommonSettings) -> None:
        await RedisSchedule(redis).open_gate()
        typer.echo("fal: open")

    run(decide)


def _settle(submission_id: str, settlement: Settlement, done: str) -> None:
    async def decide(redis: Redis, _: CommonSettings) -> None:
        latest = (await _job_of(redis, submission_id)).submission
        uncertain = latest is not None and latest.id == submission_id and latest.status is SubmissionStatus.UNCERTAIN
        if not uncertain or not await _transitions(redis).settle(submission_id, settlement):
            raise ConflictError("nothing changed: this submission is not (or no longer) held or being reconciled")
        typer.echo(done)

    run(decide)


async def _job_of(redis: Redis, submission_id: str) -> Job:
    jobs = RedisJobs(redis)
    job_id = await jobs.job_of(submission_id) if is_id(submission_id, "sub") else None
    job = await jobs.get(job_id) if job_id else None
    if job is None:
        raise NotFoundError("no such submission")
    return job


def _transitions(redis: Redis) -> RedisTransitions:
    # The numbers are for what workers do.
    return RedisTransitions(redis, lease_seconds=0, unknown_seconds=0, max_attempts=0)


def _submission(job: Job) -> str:
    return job.submission.id if job.submission else "-"


def _prompt(job: Job) -> str:
    text = " ".join(str(job.arguments.get("prompt", "")).split())
    return text if len(text) <= 40 else text[:39] + "…"
