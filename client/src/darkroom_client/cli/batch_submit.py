"""`darkroom batch submit`: a file of prompts, sent once however often the command is run."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Final, NoReturn

import typer

from darkroom_client.batch_models import AcceptedBatch, Batch, DryRun, OnInvalid
from darkroom_client.cli.batch_watching import WATCHING, report, watch
from darkroom_client.cli.batch_words import done_of, state, tell_mistakes
from darkroom_client.cli.options import AsJson
from darkroom_client.cli.out import MovingLine, Out, ago, dollars, plain
from darkroom_client.cli.session import ExitCode, fail, session
from darkroom_client.cli.times import FORMS, clock_ahead, read_moment
from darkroom_client.client import Client
from darkroom_client.errors import ApiError, UnavailableError, UnreachableError
from darkroom_client.uploads import UploadFormat, format_of

EXAMPLES: Final = """
[bold]Examples[/bold]

darkroom batch submit prompts.txt --dry-run

darkroom batch submit prompts.jsonl --budget 450 --finish-by 07:00 --watch

darkroom batch submit prompts.csv --canary 20 --canary-max-failures 0.05

./prompts.py | darkroom batch submit - --name tonight
"""

_SAFE: Final = "the same command again finds it, and nothing is rendered twice"
_LOOK: Final = "see darkroom batch ls before you submit it --again"

_VERDICT_SECONDS: Final = 60.0
"""So long the verdict on the lines is waited for: 100,000 of them take about ten seconds."""

_NAME_MAX: Final = 200
_LOOKED_BACK: Final = 100


def submit(  # noqa: PLR0913 - the command's options
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help=".jsonl, .ndjson, .csv, .json, or .txt with a prompt a line; each also .gz. - is stdin.",
            show_default=False,
        ),
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would cost, and when it would be finished.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="For people.", show_default="the file's", metavar="NAME")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0.0, metavar="USD", help="Never exceeded: the batch pauses there.")
    ] = None,
    finish_by: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"What is not paid by then is cancelled: {FORMS}.")
    ] = None,
    not_before: Annotated[str | None, typer.Option(metavar="TIME", help="Starts then.")] = None,
    canary: Annotated[int | None, typer.Option(min=1, metavar="K", help="Run so many first, then wait.")] = None,
    canary_max_failures: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Go on by itself when at most this share of them failed."),
    ] = None,
    on_invalid: Annotated[
        OnInvalid | None, typer.Option(help="When lines have mistakes.", show_default="reject")
    ] = None,
    webhook_url: Annotated[str | None, typer.Option(metavar="URL", help="Told when it pauses or ends.")] = None,
    job_events: Annotated[bool, typer.Option("--job-events", help="The webhook hears of each job too.")] = False,
    file_format: Annotated[
        UploadFormat | None, typer.Option("--format", help="The file's.", show_default="by its name; jsonl for stdin")
    ] = None,
    watching: Annotated[bool, typer.Option("--watch", help="Stay, and watch it to its end.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also when it was submitted before: it costs again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a file of prompts as one batch. The same command again finds the same batch, and costs nothing twice."""
    out = Out(as_json=as_json)
    typed: dict[str, Any] = {
        "budget_usd": budget,
        "finish_by": finish_by,
        "not_before": not_before,
        "canary": canary,
        "canary_max_failures": canary_max_failures,
        "on_invalid": on_invalid,
        "webhook_url": webhook_url,
    }
    if job_events and webhook_url is None:
        fail(out, ExitCode.USAGE, "usage", "--job-events needs --webhook-url")
    asked = typed | {
        "finish_by": _moment(out, finish_by, "--finish-by"),
        "not_before": _moment(out, not_before, "--not-before"),
    }
    doubt = _LOOK if again else _SAFE
    with (
        session(out, doubt=doubt, patience=WATCHING) as client,
        _readable(out, file, file_format) as source,
    ):
        if dry_run:
            tried = client.batches.dry_run(source.path, format=source.format, **asked)
            _tell_dry_run(out, tried, starts=_starts(tried, on_invalid))
            return
        key = _key_of(source, {**typed, "name": name, "job_events": job_events})
        called = plain(name if name is not None else source.name)[:_NAME_MAX]
        try:
            with out.moving(MovingLine(f"sending {source.name or 'stdin'}")):
                batch = client.batches.create(
                    source.path,
                    format=source.format,
                    name=called or None,
                    job_events=job_events,
                    idempotency_key=f"darkroom-{uuid.uuid4()}" if again else key,
                    **asked,
                )
        except (UnreachableError, UnavailableError):
            out.warn(f"the file may have arrived: {doubt}")
            raise
        except ApiError as refusal:
            if refusal.code in {"idempotency_key_reused", "batch_removed"}:
                _sent_before(client, out, refusal, called)
            raise
        _accepted(out, batch)
        if watching:
            watch(client, out, batch)
        else:
            _leave(out, _judged(client, out, batch))


# what is sent ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that can be read from its start any number of times. `name` is empty for what came through a pipe."""

    path: Path
    format: UploadFormat | None
    name: str


@contextmanager
def _readable(out: Out, file: str, file_format: UploadFormat | None) -> Iterator[_Source]:
    """The file; for a pipe a copy of what it gives, which is needed for a second try."""
    path = Path(file)
    if file != "-" and (path.is_file() or not path.exists() or path.is_dir()):
        if not path.is_file():
            fail(out, ExitCode.USAGE, "usage", f"there is no file {file}")
        yield _Source(path, file_format, path.name)
        return
    with NamedTemporaryFile(prefix="darkroom-") as copy:
        if file == "-":
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with path.open("rb") as pipe:
                shutil.copyfileobj(pipe, copy)
        copy.flush()
        yield _Source(Path(copy.name), file_format or format_of(path) or "jsonl", "")


def _moment(out: Out, text: str | None, option: str) -> datetime | None:
    """When that is. Raises typer.Exit: 2 for what is no moment."""
    try:
        return read_moment(text) if text is not None else None
    except ValueError as error:
        fail(out, ExitCode.USAGE, "usage", f"{option}: {error}")


def _key_of(source: _Source, typed: dict[str, Any]) -> str:
    """The same for the same bytes and the same options as they were typed: +8h is +8h, whenever that is."""
    with source.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps([content, source.format, typed], sort_keys=True)
    return f"darkroom-{hashlib.sha256(text.encode()).hexdigest()}"


def _sent_before(client: Client, out: Out, refusal: ApiError, called: str) -> NoReturn:
    """The same command was run before, and comes to another request now, by its times or the file's name."""
    hint = "See darkroom batch ls. With --again it is submitted once more."
    message = "this was submitted before, and its batch was removed since"
    if refusal.code == "idempotency_key_reused":
        message = "this was submitted before, with other times or another file name; nothing was sent now"
        newest = islice(client.batches.list(page_size=_LOOKED_BACK), _LOOKED_BACK)
        if (earlier := next((batch for batch in newest if batch.name == called), None)) is not None:
            hint = f"Probably as {earlier.id}, {ago(earlier.created_at)} ago. With --again it is submitted once more."
    fail(out, ExitCode.REFUSED, refusal.code, message, hint, status=refusal.status)


# what became of it ----------------------------------------------------------------------------------------------------


def _accepted(out: Out, batch: AcceptedBatch) -> None:
    if batch.replayed:
        out.warn(f"this file was submitted before: {batch.id}, {ago(batch.created_at)} ago")
        out.hint("It is not rendered twice. With --again it is submitted once more.")
    else:
        out.done(batch.id, aside="stored")


def _judged(client: Client, out: Out, batch: Batch) -> Batch:
    """The batch with the verdict on its lines, or as it is when that takes too long.

    Raises typer.Exit: 130 on Ctrl-C, which changes nothing for the batch.
    """
    if batch.status != "validating":
        return batch
    give_up_at = time.monotonic() + _VERDICT_SECONDS
    try:
        with out.moving(MovingLine("checking its lines")):
            for seen in client.batches.follow(batch.id, every=0.5):
                batch = seen
                if batch.status != "validating" or time.monotonic() > give_up_at:
                    break
    except KeyboardInterrupt:
        out.warn("not waiting for the verdict on its lines: it starts, or fails, by itself")
        out.hint(f"darkroom batch watch {batch.id}")
        if out.as_json:
            out.document(batch.model_dump(mode="json"))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return batch


def _leave(out: Out, batch: Batch) -> None:
    """Say what was accepted, and how to come back. Raises typer.Exit: 1 when nothing was started."""
    if not out.interactive and not out.as_json:
        out.value(batch.id)
    if batch.status == "failed":
        report(out, batch)
    money = "" if batch.cost.expected_usd is None else f"about {dollars(batch.cost.expected_usd)}"
    if batch.status == "validating":
        out.warn(f"{batch.id} is stored; {state(batch)}")
    else:
        out.done(f"{batch.counts.total:,} jobs, {state(batch)}", aside=money)
    if batch.counts.ended:
        out.hint(f"{done_of(batch)} jobs have ended")
    if batch.invalid:
        out.warn(f"{batch.invalid:,} lines with mistakes are left out")
        tell_mistakes(out, batch.errors, batch.invalid)
    if batch.forecast is not None and not batch.ended:
        out.hint(f"done about {clock_ahead(batch.forecast.finish_at)}")
        if batch.forecast.meets_finish_by is False:
            out.warn("that is later than --finish-by: what is not paid by then will be cancelled")
    out.hint(f"darkroom batch watch {batch.id}")
    if out.as_json:
        out.document(batch.model_dump(mode="json"))


# the dry run ----------------------------------------------------------------------------------------------------------


def _starts(tried: DryRun, on_invalid: OnInvalid | None) -> bool:
    return tried.valid > 0 and (tried.invalid == 0 or on_invalid == "skip")


def _tell_dry_run(out: Out, tried: DryRun, *, starts: bool) -> None:
    """What it would come to. Raises typer.Exit: 1 when nothing would start."""
    if out.as_json:
        out.document(tried.model_dump(mode="json"))
    if tried.invalid:
        out.failed(f"{tried.invalid:,} of {tried.counts.lines:,} lines have mistakes")
        tell_mistakes(out, tried.errors, tried.invalid)
    if not starts:
        out.failed("nothing would start" + ("; --on-invalid skip leaves those lines out" if tried.valid else ""))
        raise typer.Exit(ExitCode.FAILED)
    if not out.as_json:
        _tell_facts(out, tried)
    if tried.forecast.meets_finish_by is False:
        out.warn("that is later than --finish-by: what is not paid by then would be cancelled")


def _tell_facts(out: Out, tried: DryRun) -> None:
    cost, counts = tried.cost, tried.counts
    out.fact("lines", f"{tried.valid:,} good, {tried.invalid:,} with mistakes")
    out.fact("pictures", f"{counts.pictures:,}")
    out.fact("cost", f"about {dollars(cost.expected_usd)} ({dollars(cost.min_usd)} to {dollars(cost.max_usd)})")
    if counts.duplicate_inputs:
        out.fact(
            "duplicates",
            f"{counts.duplicate_inputs:,} lines have the input of an earlier one",
        )
    met = {True: ", in time", False: ", too late", None: ""}[tried.forecast.meets_finish_by]
    out.fact("finished", f"about {clock_ahead(tried.forecast.finish_at)}{met}")
