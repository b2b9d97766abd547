"""`darkroom-admin`: accounts, keys, held jobs, the gate, receipts, and a doctor."""

from __future__ import annotations

import typer
from redis.asyncio import Redis

from darkroom.admin.accounts import accounts, keys
from darkroom.admin.doctor import Verdict, examine
from darkroom.admin.held import gate, held
from darkroom.admin.receipts import receipts
from darkroom.admin.tools import run
from darkroom.settings import CommonSettings


def main() -> None:
    """Run one command."""
    command_line()()


def command_line() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="darkroom-admin",
        help="Operate a Darkroom deployment. Reads the same environment as the API and the workers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.add_typer(accounts, name="accounts")
    app.add_typer(keys, name="keys")
    app.add_typer(held, name="held")
    app.add_typer(gate, name="gate")
    app.command()(receipts)
    app.command()(doctor)
    return app


def doctor() -> None:
    """Look at Redis, workers and bucket; exit status 1 where something is bad."""

    async def look(redis: Redis, settings: CommonSettings) -> None:
        bad = False
        async for finding in examine(redis, settings):
            typer.echo(f"{finding.verdict:<5}{finding.text}")
            bad = bad or finding.verdict is Verdict.BAD
        if bad:
            raise typer.Exit(1)

    run(look)


if __name__ == "__main__":
    main()
