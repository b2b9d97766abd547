"""`darkroom batch download` and `darkroom batch open`: a batch's pictures on this disk, and its page in the browser."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from darkroom_client.batch_download import Downloaded
from darkroom_client.cli.completing import complete_batch
from darkroom_client.cli.options import AsJson, BatchId
from darkroom_client.cli.out import Out, size_of
from darkroom_client.cli.session import ExitCode, fail, session

_BAR_WIDTH = 40
_SHOWN = 10


def download(
    batch_id: BatchId,
    *,
    directory: Annotated[
        Path | None, typer.Option("--out", help="Where it goes.", file_okay=False, show_default="out/BATCH")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Pictures at a time.")] = 8,
    thumbnails: Annotated[bool, typer.Option("--thumbs/--no-thumbs", help="The small pictures too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Copy a batch into a directory of its own. Run it again to fetch what is missing, came later, or was damaged."""
    out = Out(as_json=as_json)
    view = CopyView()
    with session(out, doubt=f"see darkroom batch show {batch_id}") as client:
        try:
            with out.moving(view):
                tally = client.batches.download(
                    batch_id,
                    directory or Path("out") / batch_id,
                    parallel=parallel,
                    thumbnails=thumbnails,
                    on_progress=view.show,
                )
        except KeyboardInterrupt:
            hint = "The same command fetches the rest; what is here is whole."
            fail(out, ExitCode.INTERRUPTED, "interrupted", "stopped downloading", hint)
    _report(out, tally)


def open_sheet(
    what: Annotated[
        str,
        typer.Argument(
            metavar="BATCH|DIR",
            help="The batch's id, or the directory of a downloaded copy.",
            show_default=False,
            autocompletion=complete_batch,
        ),
    ],
    *,
    file: Annotated[
        Path | None,
        typer.Option("--out", help="Where the page is saved.", dir_okay=False, show_default="out/BATCH.html"),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Open a batch's contact sheet in the browser. Its links are signed, and expire; only you may read the file."""
    out = Out(as_json=as_json)
    if Path(what).is_dir():
        page = Path(what) / "index.html"
        if not page.is_file():
            fail(out, ExitCode.USAGE, "usage", f"{what} is no downloaded copy of a batch: it has no index.html")
    else:
        with session(out) as client:
            page = client.batches.contact_sheet_to(what, file or Path("out") / f"{what}.html")
    opened = browser and webbrowser.open(page.resolve().as_uri())
    out.done(
        f"{'opened' if opened else 'here'}: {page}", aside="no browser could be opened" if browser > opened else ""
    )
    if as_json:
        out.document({"file": str(page), "opened": opened})
    elif not out.interactive:
        out.value(str(page))


class CopyView:
    """A download as it goes on. Its text changes with each tenth."""

    def __init__(self) -> None:
        self.text = "looking at what is here already"
        self.on_change: Callable[[str], None] | None = None
        self._tally: Downloaded | None = None
        self._tenth = 0
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")

    def show(self, tally: Downloaded) -> None:
        """So far it has come."""
        self._tally = tally
        tenth = tally.jobs * 10 // max(1, tally.batch.counts.succeeded)
        if tenth != self._tenth:
            self._tenth = tenth
            self.text = f"{_jobs(tally)}, {size_of(tally.bytes)}"
            if self.on_change:
                self.on_change(self.text)

    def __rich__(self) -> RenderableType:
        tally = self._tally
        if tally is None:
            self._spinner.update(text=self.text)
            return self._spinner
        seconds = time.monotonic() - self._began
        speed = f"{size_of(tally.bytes / max(seconds, 0.1))}/s"
        self._spinner.update(text=Text(f"{tally.fetched:,} pictures fetched, {tally.kept:,} were here   {speed}"))
        bar = Table.grid(padding=(0, 2, 0, 0))
        total = max(tally.batch.counts.succeeded, tally.jobs)
        bar.add_row(ProgressBar(total, tally.jobs, width=_BAR_WIDTH), f"{_jobs(tally)}  {size_of(tally.bytes)}")
        return Group(self._spinner, bar)


def _jobs(tally: Downloaded) -> str:
    return f"{tally.jobs:,} of {max(tally.batch.counts.succeeded, tally.jobs):,} jobs"


def _report(out: Out, tally: Downloaded) -> None:
    """What is here now. Raises typer.Exit: 1 when something could not be had."""
    batch = tally.batch
    what = f"{tally.pictures:,} picture{'' if tally.pictures == 1 else 's'} in {tally.directory}"
    out.done(what, aside=f"{tally.fetched:,} fetched, {tally.kept:,} were here, {size_of(tally.bytes)}")
    out.hint(f"darkroom batch open {tally.directory}")
    if not batch.ended:
        out.warn(f"{batch.counts.left:,} jobs have not ended: the same command fetches what is still to come")
    for missing in tally.missing[:_SHOWN]:
        out.failed(missing.reason)
    if len(tally.missing) > _SHOWN:
        out.failed(f"… {len(tally.missing):,} files in all")
    if out.as_json:
        out.document(
            {
                "batch_id": batch.id,
                "directory": str(tally.directory),
                "pictures": tally.pictures,
                "fetched": tally.fetched,
                "kept": tally.kept,
                "bytes": tally.bytes,
                "missing": [{"path": missing.path, "reason": missing.reason} for missing in tally.missing],
                "to_come": batch.counts.left,
                "complete": tally.complete,
            }
        )
    elif not out.interactive:
        out.value(str(tally.directory))
    if tally.missing:
        raise typer.Exit(ExitCode.FAILED)
