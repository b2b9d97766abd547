"""From an accepted job to pictures on this disk, with a line that says how far it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import typer
from rich.text import Text

from darkroom_client.cli.out import MovingLine, Out, dollars, plain
from darkroom_client.cli.session import ExitCode, fail
from darkroom_client.client import Client
from darkroom_client.models import Image, Job

_STAGES: Final = {
    "waiting_for_slot": "waiting for a slot at fal",
    "submitting": "submitting to fal",
    "reconciling": "finding out what became of the request at fal",
    "held": "held: fal's answer was lost, and an operator has to decide",
    "generating": "generating",
    "copying": "copying to the bucket",
    "scheduled": "waiting for the next attempt",
    "paused": "paused",
    "blocked": "blocked: fal or the bucket refuses for now, and the job waits",
}
_WARNINGS: Final = {
    "unsafe": "fal's safety checker blackened a picture",
    "blank": "a picture has one colour only",
}


def watch(client: Client, out: Out, job: Job, directory: Path) -> None:
    """Follow the job to its end, save its pictures, and say how it went.

    Raises:
        typer.Exit: 1 when it did not succeed; 130 on Ctrl-C, which leaves the job running.
    """
    line = MovingLine(state(job), cost(job))
    try:
        if not job.ended:
            with out.moving(line):
                for seen in client.jobs.events(job.id):
                    job = seen
                    if not job.ended:
                        line.show(state(job), cost(job))
    except KeyboardInterrupt:
        out.warn(f"stopped watching; {job.id} goes on")
        out.hint(f"darkroom jobs watch {job.id}    darkroom jobs cancel {job.id}")
        if out.as_json:
            out.document(job.model_dump(mode="json") | {"files": []})
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    files = save(client, job, directory)
    report(out, job, files)
    if not job.succeeded:
        raise typer.Exit(ExitCode.FAILED)


def prepare(out: Out, directory: Path) -> None:
    """Make the directory, before anything is paid for pictures that could not be saved. Raises typer.Exit: 2."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(out, ExitCode.USAGE, "usage", f"pictures cannot be saved to {directory}: {error.strerror}")
    if not os.access(directory, os.W_OK):
        fail(out, ExitCode.USAGE, "usage", f"pictures cannot be saved to {directory}: it is not writable")


def save(client: Client, job: Job, directory: Path) -> list[Path]:
    """Download the job's pictures, verified, as DIRECTORY/JOB-INDEX.EXT. One that is there already is replaced."""
    return [client.download_to(image, directory / f"{job.id}-{image.index}.{image.extension}") for image in job.images]


def report(out: Out, job: Job, files: list[Path]) -> None:
    """How an ended job went: JSON, or words for people and one path a line for a pipe."""
    if job.succeeded:
        out.done(f"rendered{_took(job)}", aside=cost(job))
    else:
        why = f": {job.error.message} ({job.error.code})" if job.error else ""
        out.failed(f"{job.status}{why}")
        out.hint(f"darkroom jobs replay {job.id}")
    for image, file in zip(job.images, files, strict=True):
        out.people.print(Text.assemble("  ", (str(file), "bold"), (f"  {describe(image)}", "dim")))
    for warning in job.warnings:
        out.warn(_WARNINGS.get(warning, warning))
    if out.as_json:
        out.document(job.model_dump(mode="json") | {"files": [str(file) for file in files]})
    elif not out.interactive:
        for file in files:
            out.value(str(file))


def state(job: Job) -> str:
    """Where the job is, in words."""
    if job.cancel_requested and not job.ended:
        return "cancelling"
    words = _STAGES.get(job.stage or "", (job.stage or job.status).replace("_", " "))
    if job.error and not job.ended:
        words += f" after {job.error.code}"
    return words + (f" (attempt {job.attempts})" if job.attempts > 1 and not job.ended else "")


def cost(job: Job) -> str:
    """What was billed, or what is expected."""
    if job.cost.actual_usd is not None:
        return dollars(job.cost.actual_usd)
    return "" if job.ended else f"about {dollars(job.cost.estimated_usd)}"


def describe(image: Image) -> str:
    """The picture in a few words."""
    size = f"{image.bytes / 1e6:.1f} MB" if image.bytes >= 1e6 else f"{image.bytes / 1e3:.0f} kB"
    return f"{image.width} x {image.height}  {size}  seed {image.seed}"


def prompt_of(job: Job) -> str:
    """The job's prompt on one line."""
    return plain(str(job.input.get("prompt", "")))


def _took(job: Job) -> str:
    if job.finished_at is None:
        return ""
    return f" in {(job.finished_at - job.created_at).total_seconds():.1f} s"
