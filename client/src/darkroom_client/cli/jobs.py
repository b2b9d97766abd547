"""`darkroom jobs …`: look at jobs, and change their course."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from darkroom_client.cli.options import AsJson, Directory, JobId
from darkroom_client.cli.out import Out, ago, dollars
from darkroom_client.cli.session import ExitCode, fail, session
from darkroom_client.cli.watching import cost, describe, prompt_of, state, watch
from darkroom_client.models import Job, JobStatus, Lane

app = typer.Typer(no_args_is_help=True, help="Look at jobs, and change their course.")

_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "retrying": "yellow"}


@app.command("ls", epilog="darkroom jobs ls --status failed --json | jq -r '.[].id'")
def list_jobs(
    *,
    status: Annotated[JobStatus | None, typer.Option(help="Only these.", show_default=False)] = None,
    lane: Annotated[Lane | None, typer.Option(help="Only these.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    out = Out(as_json=as_json)
    with session(out) as client:
        jobs = list(islice(client.jobs.list(status=status, lane=lane, page_size=min(limit, 100)), limit))
    if as_json:
        out.document([job.model_dump(mode="json") for job in jobs])
    elif not jobs:
        out.hint("no jobs")
    else:
        out.records(["JOB", "STATUS", "AGE", "COST", "PROMPT"], map(_row, jobs), numbers=["AGE", "COST"])


@app.command("show")
def show_job(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Show one job."""
    out = Out(as_json=as_json)
    with session(out) as client:
        _show(out, client.jobs.get(job_id))


@app.command("watch")
def watch_job(job_id: JobId, *, directory: Directory = Path("out"), as_json: AsJson = False) -> None:
    """Wait for a job's end and save its pictures: what `render` does after asking."""
    out = Out(as_json=as_json)
    with session(out) as client:
        watch(client, out, client.jobs.get(job_id), directory)


@app.command("cancel")
def cancel_job(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Ask that a job ends. What fal is working on already may still complete, and cost."""
    out = Out(as_json=as_json)
    with session(out) as client:
        job = client.jobs.cancel(job_id)
    out.done(f"{job.id} is {job.status}" if job.ended else f"{job.id} will end as soon as may be")
    if as_json:
        out.document(job.model_dump(mode="json"))


@app.command("replay", epilog="darkroom jobs replay job_01… --wait")
def replay_job(
    job_id: JobId,
    *,
    accept_charge: Annotated[
        bool, typer.Option("--accept-charge", help="Submit again even where that may cost a second time.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the pictures and save them.")] = False,
    directory: Directory = Path("out"),
    as_json: AsJson = False,
) -> None:
    """Give a failed or cancelled job a new life. What was paid is resumed, not paid again."""
    out = Out(as_json=as_json)
    with session(out) as client:
        job = client.jobs.replay(job_id, accept_charge=accept_charge)
        out.done(f"{job.id} is {job.status} again")
        if wait:
            watch(client, out, job, directory)
        elif as_json:
            out.document(job.model_dump(mode="json"))


@app.command("delete")
def delete_job(
    job_id: JobId,
    *,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an ended job and its pictures in the bucket, for good."""
    out = Out(as_json=as_json)
    if not yes:
        if as_json or not sys.stdin.isatty():
            fail(out, ExitCode.USAGE, "usage", "deleting cannot be undone: say --yes where nobody can be asked")
        typer.confirm(f"Delete {job_id} and its pictures for good?", abort=True, err=True)
    with session(out) as client:
        client.jobs.delete(job_id)
    out.done(f"{job_id} is deleted, pictures included")
    if as_json:
        out.document({"id": job_id, "deleted": True})


def _row(job: Job) -> Sequence[str | Text]:
    status = job.status if job.ended else state(job)
    return (
        job.id,
        Text(status, style=_STYLES.get(job.status, "")),
        ago(job.created_at),
        dollars(job.cost.actual_usd) if job.cost.actual_usd is not None else "-",
        prompt_of(job),
    )


def _show(out: Out, job: Job) -> None:
    if out.as_json:
        out.document(job.model_dump(mode="json"))
        return
    out.fact("job", Text(job.id, style="bold"))
    out.fact("status", Text(job.status if job.ended else state(job), style=_STYLES.get(job.status, "")))
    if job.error:
        out.fact("error", f"{job.error.message} ({job.error.code})")
    out.fact("prompt", prompt_of(job))
    settings = {name: value for name, value in job.input.items() if name != "prompt"}
    out.fact("input", "  ".join(f"{name}={value}" for name, value in settings.items()))
    out.fact("lane", job.lane)
    out.fact("created", f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S %Z} ({ago(job.created_at)} ago)")
    if job.finished_at:
        out.fact("took", f"{(job.finished_at - job.created_at).total_seconds():.1f} s, attempts {job.attempts}")
    out.fact("cost", cost(job) or "unknown")
    if job.fal_request_id:
        out.fact("fal request", job.fal_request_id)
    for image in job.images:
        out.fact(f"picture {image.index}", f"s3://{image.bucket}/{image.key}  {describe(image)}")
    for name, value in job.metadata.items():
        out.fact("metadata", f"{name}={value}")
