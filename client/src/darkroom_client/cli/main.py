"""The `darkroom` command: its commands, put together."""

from __future__ import annotations

from typing import Final

import typer

from darkroom_client.cli import account, batches, jobs, render

_HELP: Final = """
Pictures from prompts, rendered by a Darkroom service.

It is found at [bold]DARKROOM_URL[/bold] (http://127.0.0.1:8000 unless set) and opened with
[bold]DARKROOM_API_KEY[/bold]. For a service on this machine the key in ./.darkroom/api-key, which `make up` leaves
there, will do.
"""

_EXIT_CODES: Final = """
[bold]Exit codes[/bold]

0 done

1 a job failed or was cancelled, nothing of a file would start, or a picture could not be fetched

2 usage: an option, the key or the URL

3 the API refused

4 the API cannot be reached

5 the batch paused by itself (budget, canary), and you have to decide

130 Ctrl-C: jobs and batches go on
"""


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="darkroom",
        no_args_is_help=True,
        rich_markup_mode="rich",
        help=_HELP,
        epilog=_EXIT_CODES,
        pretty_exceptions_enable=False,  # they may show the values of variables: the key is one
    )
    app.command("render", epilog=render.EXAMPLES)(render.render)
    app.add_typer(batches.app, name="batch")
    app.add_typer(jobs.app, name="jobs")
    app.command("usage")(account.usage)
    app.command("webhook-secret")(account.webhook_secret)
    app.command("version")(account.show_version)
    return app


def main() -> None:
    """Entry point."""
    build()()
