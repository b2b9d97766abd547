"""What every operator's command needs: the settings, the store, and words for what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import typer
from redis.asyncio import Redis

from darkroom.adapters.redis.connection import connect
from darkroom.domain.errors import DarkroomError
from darkroom.settings import CommonSettings, load


def run(command: Callable[[Redis, CommonSettings], Awaitable[None]]) -> None:
    """Do it with a connection. What goes wrong is one line on stderr and exit status 1."""
    settings = load(CommonSettings)

    async def connected() -> None:
        redis = connect(settings.redis_url.get_secret_value(), connections=4)
        try:
            await command(redis, settings)
        finally:
            await redis.aclose()

    try:
        asyncio.run(connected())
    except DarkroomError as fault:
        fail(fault.message)


def fail(message: str) -> None:
    """End with that line and status 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, as wide as they need to be."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(ms: int | None) -> str:
    """A time for people, in UTC."""
    return "-" if ms is None else datetime.fromtimestamp(ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
