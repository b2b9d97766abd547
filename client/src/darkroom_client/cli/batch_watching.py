"""Watching a batch to its end: how far, how fast, how much, and what failed; whatever becomes of the connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import typer
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from darkroom_client.batch_models import Batch
from darkroom_client.batch_waiting import EVERY
from darkroom_client.cli.batch_words import causes, done_of, spent, state, tell_mistakes, way_on
from darkroom_client.cli.out import Out, dollars, plain, span
from darkroom_client.cli.session import ExitCode
from darkroom_client.cli.times import clock, clock_ahead
from darkroom_client.client import Client
from darkroom_client.errors import DarkroomError
from darkroom_client.patience import Patience

WATCHING: Final = Patience(outage=86_400.0, longest_delay=30.0)
"""Watching bears a day without the service: an evening's batch goes on without anybody watching."""

_BAR_WIDTH: Final = 40
_PARTS: Final = ("running", "queued", "retrying", "held", "failed", "cancelled")


def watch(client: Client, out: Out, batch: Batch, *, every: float = EVERY) -> None:
    """Follow the batch until it has ended, or waits for a person; then say how it went.

    `every` is the time between two looks, in seconds.

    Raises:
        typer.Exit: 1 when it did not complete, or jobs failed; 5 when it paused by itself; 130 on Ctrl-C, which leaves
            it running.
    """
    view = BatchView(batch)
    try:
        if not (batch.ended or batch.waits_for_a_person):
            with out.moving(view):
                for seen in client.batches.follow(batch.id, every=every, on_trouble=view.silent):
                    batch = seen
                    view.show(batch, _holdup(client, batch))
                    if batch.waits_for_a_person:
                        break
    except KeyboardInterrupt:
        out.warn(f"stopped watching; {batch.id} {'stays paused' if batch.status == 'paused' else 'goes on'}")
        out.hint(f"darkroom batch watch {batch.id}    (or pause, resume, cancel)")
        if out.as_json:
            out.document(batch.model_dump(mode="json"))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    report(out, batch)


def report(out: Out, batch: Batch) -> None:
    """How a batch went, that has ended or waits for a person. Raises typer.Exit as `watch` does."""
    counts, money = batch.counts, dollars(batch.cost.spent_usd)
    if batch.status == "completed" and not counts.failed:
        out.done(f"completed: {counts.succeeded:,} of {counts.total:,} succeeded{_took(batch)}", aside=money)
        out.hint(f"darkroom batch download {batch.id}    darkroom batch open {batch.id}")
    elif batch.waits_for_a_person:
        out.warn(f"{state(batch)}; {done_of(batch)} jobs have ended, {spent(batch.cost)}")
        look = f"darkroom batch open {batch.id}    " if batch.status_reason == "canary" else ""
        out.hint(f"{look}{way_on(batch)}    darkroom batch cancel {batch.id}")
    else:
        what = f"; {counts.succeeded:,} of {counts.total:,} succeeded{_took(batch)}, {money}" if counts.total else ""
        out.failed(f"{state(batch)}{what}")
        if counts.failed:
            out.hint(f"failed: {causes(batch) or counts.failed}")
            out.hint(f"darkroom batch errors {batch.id}    darkroom batch retry {batch.id} --watch")
    if batch.invalid:
        tell_mistakes(out, batch.errors, batch.invalid)
    if out.as_json:
        out.document(batch.model_dump(mode="json"))
    if batch.waits_for_a_person:
        raise typer.Exit(ExitCode.UNDECIDED)
    if batch.status != "completed" or counts.failed:
        raise typer.Exit(ExitCode.FAILED)


class BatchView:
    """A batch as it goes on. Its text changes where a log should have a line: at a turn, a new cause, a tenth."""

    def __init__(self, batch: Batch) -> None:
        self.on_change: Callable[[str], None] | None = None
        self._batch = batch
        self._holdup = ""
        self._mark = _mark(batch, "")
        self._spinner = Spinner("dots", style="cyan")
        self._silent_since: float | None = None
        self._silence = ""
        self.text = _line(batch, "")

    def show(self, batch: Batch, holdup: str = "") -> None:
        """It was seen; `holdup` is what makes its jobs wait."""
        self._batch, self._holdup = batch, plain(holdup)
        again = self._silent_since is not None
        if again:
            self._tell(f"connected again after {span(time.monotonic() - (self._silent_since or 0.0))}")
            self._silent_since = None
        if again or _mark(batch, holdup) != self._mark:
            self._mark = _mark(batch, holdup)
            self._tell(_line(batch, holdup))

    def silent(self, fault: DarkroomError) -> None:
        """It could not be seen: said once, with the time."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self._silence = (
                f"no connection since {datetime.now().astimezone():%H:%M:%S} ({fault.message}); the batch goes on"
            )
            self._tell(self._silence)

    def _tell(self, text: str) -> None:
        self.text = plain(text)
        if self.on_change:
            self.on_change(self.text)

    def __rich__(self) -> RenderableType:
        batch, counts = self._batch, self._batch.counts
        name = Text.assemble((plain(batch.name) or batch.id, "bold"), "  ", state(batch))
        self._spinner.update(text=name)
        rows: list[RenderableType] = [self._spinner]
        if counts.total:
            bar = Table.grid(padding=(0, 2, 0, 0))
            percent = f"{counts.ended / counts.total:.0%}"
            bar.add_row(ProgressBar(counts.total, counts.ended, width=_BAR_WIDTH), f"{done_of(batch)}  {percent}")
            rows.append(bar)
            parts = [(part, getattr(counts, part)) for part in _PARTS]
            rows.append(Text("  ".join(f"{part} {count:,}" for part, count in parts if count), style="dim"))
        rows.append(Text(_facts(batch)))
        if failures := causes(batch):
            rows.append(Text(f"failed: {plain(failures)}", style="red"))
        if self._holdup:
            rows.append(Text(f"it waits: {self._holdup}", style="yellow"))
        if self._silent_since is not None:
            rows.append(Text(plain(self._silence), style="yellow"))
        return Group(*rows)


def _facts(batch: Batch) -> str:
    """Speed, end and money."""
    facts = [f"{batch.rate_per_minute:,.0f} a minute"] if batch.rate_per_minute else []
    if batch.eta is not None:
        facts.append(f"done about {clock_ahead(batch.eta)}")
    if batch.forecast is not None and batch.forecast.meets_finish_by is False:
        facts.append("not by its finish-by")
    facts.append(spent(batch.cost))
    if batch.cost.expected_usd is not None:
        facts.append(f"about {dollars(batch.cost.expected_usd)} in all")
    return "   ".join(facts)


def _line(batch: Batch, holdup: str) -> str:
    """The batch on one line of a log."""
    parts = [state(batch)] + ([f"it waits: {holdup}"] if holdup else [])
    if batch.counts.total:
        parts.append(f"{done_of(batch)} jobs")
    if batch.counts.failed:
        parts.append(f"failed: {causes(batch) or batch.counts.failed}")
    if batch.counts.ended:
        parts.append(spent(batch.cost))
    if batch.eta is not None:
        parts.append(f"done about {clock(batch.eta)}")
    return ", ".join(parts)


def _mark(batch: Batch, holdup: str) -> object:
    """What a log has a line for when it changes."""
    tenth = batch.counts.ended * 10 // batch.counts.total if batch.counts.total else 0
    failing = frozenset(cause.code for cause in batch.failures if cause.count)
    return batch.status, batch.status_reason, tenth, failing, holdup


def _holdup(client: Client, batch: Batch) -> str:
    """Why nothing of it runs, where the service has a reason for all jobs; else nothing."""
    if batch.ended or batch.counts.running or batch.status == "paused":
        return ""
    try:
        return ", ".join(client.readiness().degraded)
    except DarkroomError:
        return ""


def _took(batch: Batch) -> str:
    if batch.finished_at is None:
        return ""
    return f" in {span((batch.finished_at - batch.created_at).total_seconds())}"
