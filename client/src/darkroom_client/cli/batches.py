"""`darkroom batch …`: submit, watch, look, change its course, and read what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from typing import Annotated, Final

import typer
from rich.text import Text

from darkroom_client.batch_models import Batch
from darkroom_client.batch_waiting import EVERY
from darkroom_client.cli import batch_copies, batch_submit
from darkroom_client.cli.batch_watching import WATCHING, watch
from darkroom_client.cli.batch_words import STYLES, done_of, spent, state, tell_mistakes
from darkroom_client.cli.options import After, AsJson, BatchId
from darkroom_client.cli.out import Out, ago, dollars
from darkroom_client.cli.session import ExitCode, session
from darkroom_client.cli.times import clock_ahead
from darkroom_client.client import Client
from darkroom_client.models import Model

app = typer.Typer(no_args_is_help=True, help="Send files of prompts, watch them, and fetch what came of them.")

_REOPEN_SECONDS: Final = 30.0
"""A retry begins this soon where workers are there."""

app.command("submit", epilog=batch_submit.EXAMPLES)(batch_submit.submit)


@app.command("watch")
def watch_batch(
    batch_id: BatchId,
    *,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")] = EVERY,
    as_json: AsJson = False,
) -> None:
    """Watch a batch to its end. Exit code 5: it has paused, and you have to decide."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        watch(client, out, client.batches.get(batch_id), every=every)


@app.command("ls", epilog="darkroom batch ls --json | jq -r '.[].id'")
def list_batches(
    *,
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    out = Out(as_json=as_json)
    with session(out) as client:
        batches = list(islice(client.batches.list(page_size=min(limit, 100)), limit))
    if as_json:
        out.document([batch.model_dump(mode="json") for batch in batches])
    elif not batches:
        out.hint("no batches")
    else:
        titles = ["BATCH", "STATUS", "ENDED", "FAILED", "AGE", "SPENT", "NAME"]
        out.records(titles, map(_row, batches), numbers=titles[2:6])


@app.command("show")
def show_batch(batch_id: BatchId, *, as_json: AsJson = False) -> None:
    """Show one batch."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        batch = client.batches.get(batch_id)
    if as_json:
        out.document(batch.model_dump(mode="json"))
    else:
        _show(out, batch)


# its outcome ----------------------------------------------------------------------------------------------------------


@app.command("results", epilog="darkroom batch results BATCH | jq -r '.images[].key'")
def read_results(batch_id: BatchId, *, after: After = 0) -> None:
    """Print what has succeeded by now: a line of JSON a job, in the order of the lines."""
    out = Out(as_json=False)
    with _session(out, batch_id) as client:
        _print_rows(client.batches.results(batch_id, after=after))


@app.command("errors", epilog="darkroom batch errors BATCH | jq -r '.error.message'")
def read_errors(batch_id: BatchId, *, after: After = 0) -> None:
    """Print what failed, was cancelled or has mistakes: a line of JSON each. A terminal gets the causes first."""
    out = Out(as_json=False)
    with _session(out, batch_id) as client:
        if out.interactive:
            _tell_causes(out, client.batches.get(batch_id))
        _print_rows(client.batches.errors(batch_id, after=after))


app.command("download")(batch_copies.download)
app.command("open")(batch_copies.open_sheet)


# changing its course --------------------------------------------------------------------------------------------------


@app.command("pause")
def pause_batch(batch_id: BatchId, *, as_json: AsJson = False) -> None:
    """Submit nothing more until it is resumed. What runs finishes."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        _changed(out, client.batches.pause(batch_id))


@app.command("resume")
def resume_batch(
    batch_id: BatchId,
    *,
    budget: Annotated[float | None, typer.Option(min=0.0, metavar="USD", help="A new budget, for all of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Go on: after a pause, with a new budget, or because its canary is fine."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        _changed(out, client.batches.resume(batch_id, budget_usd=budget))


@app.command("cancel")
def cancel_batch(batch_id: BatchId, *, as_json: AsJson = False) -> None:
    """End what is not paid. What fal is working on finishes, and its pictures are kept."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        _changed(out, client.batches.cancel(batch_id))


@app.command("retry")
def retry_batch(
    batch_id: BatchId,
    *,
    code: Annotated[str | None, typer.Option(metavar="CAUSE", help="Only what failed with this error code.")] = None,
    accept_charge: Annotated[
        bool, typer.Option("--accept-charge", help="Also what was or may have been charged: it may cost again.")
    ] = False,
    watching: Annotated[bool, typer.Option("--watch", help="Stay, and watch it to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try again what failed. What was or may have been charged is left, unless you accept that."""
    out = Out(as_json=as_json)
    with _session(out, batch_id) as client:
        before = client.batches.get(batch_id)
        batch = client.batches.retry_failed(batch_id, code=code, accept_charge=accept_charge)
        failed = sum(cause.count for cause in before.failures if code in {None, cause.code})
        if not failed:
            out.warn("no job has failed" + (f" with {code}" if code else ""))
        elif watching and (again := _reopened(client, batch, before.finished_at)) is not None:
            watch(client, out, again)
            return
        elif watching:
            out.warn("nothing was queued again: what was or may have been charged wants --accept-charge")
        else:
            out.done(f"{failed:,} failed jobs are looked at; those that may be tried again are queued")
            out.hint(f"darkroom batch watch {batch_id}")
        if as_json:
            out.document(batch.model_dump(mode="json"))
        if failed and watching:
            raise typer.Exit(ExitCode.FAILED)


# ----------------------------------------------------------------------------------------------------------------------


def _session(out: Out, batch_id: str) -> AbstractContextManager[Client]:
    return session(out, doubt=f"see darkroom batch show {batch_id}", patience=WATCHING)


def _reopened(client: Client, batch: Batch, ended_at: datetime | None) -> Batch | None:
    """The batch once its retry has begun, which is a moment after it was asked for; None when it does not."""
    give_up_at = time.monotonic() + _REOPEN_SECONDS
    while batch.finished_at is not None and batch.finished_at == ended_at:
        if time.monotonic() > give_up_at:
            return None
        time.sleep(0.5)
        batch = client.batches.get(batch.id)
    return batch


def _changed(out: Out, batch: Batch) -> None:
    out.done(f"{batch.id} is {state(batch)}", aside=f"{done_of(batch)} jobs have ended")
    if out.as_json:
        out.document(batch.model_dump(mode="json"))


def _print_rows(rows: Iterable[Model]) -> None:
    for row in rows:
        sys.stdout.write(row.model_dump_json() + "\n")


def _tell_causes(out: Out, batch: Batch) -> None:
    for cause in sorted(batch.failures, key=lambda cause: -cause.count):
        if cause.count:
            out.failed(f"{cause.count:>7,}  {cause.code}  such as {cause.example_job_id}")
    if batch.counts.cancelled:
        out.warn(f"{batch.counts.cancelled:>7,}  cancelled")
    if batch.invalid:
        out.failed(f"{batch.invalid:>7,}  lines with mistakes")


def _row(batch: Batch) -> Sequence[str | Text]:
    return (
        batch.id,
        Text(batch.status, style=STYLES.get(batch.status, "")),
        f"{batch.counts.ended}/{batch.counts.total}",
        f"{batch.counts.failed}",
        ago(batch.created_at),
        dollars(batch.cost.spent_usd),
        batch.name,
    )


def _show(out: Out, batch: Batch) -> None:
    out.fact("batch", Text(batch.id, style="bold"))
    out.fact("name", batch.name)
    out.fact("status", Text(state(batch), style=STYLES.get(batch.status, "")))
    counts = {name: getattr(batch.counts, name) for name in type(batch.counts).model_fields}
    out.fact("jobs", "  ".join(f"{name} {count:,}" for name, count in counts.items() if count or name == "total"))
    out.fact("cost", spent(batch.cost) + f", about {dollars(batch.cost.expected_usd)} in all")
    if batch.rate_per_minute:
        out.fact("rate", f"{batch.rate_per_minute:,.0f} jobs a minute")
    if batch.forecast is not None and not batch.ended:
        out.fact("done", f"about {clock_ahead(batch.forecast.finish_at)}")
    for name in ("not_before", "finish_by", "created_at", "started_at", "finished_at"):
        if (moment := getattr(batch, name)) is not None:
            out.fact(name.removesuffix("_at").replace("_", " "), f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}")
    for cause in batch.failures:
        if cause.count:
            out.fact("failed", f"{cause.count:,} x {cause.code}, such as {cause.example_job_id}")
    if batch.invalid:
        out.fact("invalid", f"{batch.invalid:,} lines with mistakes")
        tell_mistakes(out, batch.errors, batch.invalid)
