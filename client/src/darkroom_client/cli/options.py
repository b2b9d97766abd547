"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom_client.cli.completing import complete_batch

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, words for people on stderr.")]
Directory = Annotated[Path, typer.Option("--out", help="Where pictures are saved.", file_okay=False)]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_….", show_default=False)]
BatchId = Annotated[
    str,
    typer.Argument(metavar="BATCH", help="The batch's id, batch_….", show_default=False, autocompletion=complete_batch),
]
After = Annotated[int, typer.Option("--after", min=0, metavar="LINE", help="Only what lies behind that line.")]
