"""`darkroom usage`, `darkroom webhook-secret`, `darkroom version`."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from typing import Annotated

import typer

from darkroom_client.cli.options import AsJson
from darkroom_client.cli.out import Out, dollars
from darkroom_client.cli.session import session
from darkroom_client.models import UsageCounts


def usage(
    *,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show jobs, pictures and spend per day (UTC); the last 30 days unless given."""
    out = Out(as_json=as_json)
    with session(out) as client:
        used = client.usage(first_day=first.date() if first else None, last_day=last.date() if last else None)
    if as_json:
        out.document(used.model_dump(mode="json"))
        return
    busy = [(f"{day.date}", day) for day in used.data if day.jobs or day.pictures or day.spend_usd or _ended(day)]
    titles = ["DAY", "JOBS", "SUCCEEDED", "FAILED", "CANCELLED", "PICTURES", "SPEND"]
    out.records(titles, [_row(name, counts) for name, counts in [*busy, ("total", used.totals)]], numbers=titles[1:])


def webhook_secret(*, as_json: AsJson = False) -> None:
    """Print what the account's webhooks are signed with. Keep it to yourself."""
    out = Out(as_json=as_json)
    with session(out) as client:
        secret = client.webhook_secret()
    if as_json:
        out.document({"secret": secret})
    else:
        out.value(secret)


def show_version(*, as_json: AsJson = False) -> None:
    """Print this program's version."""
    out = Out(as_json=as_json)
    if as_json:
        out.document({"version": version("darkroom-client")})
    else:
        out.value(version("darkroom-client"))


def _ended(counts: UsageCounts) -> int:
    return counts.succeeded + counts.failed + counts.cancelled


def _row(name: str, counts: UsageCounts) -> list[str]:
    numbers = (counts.jobs, counts.succeeded, counts.failed, counts.cancelled, counts.pictures)
    return [name, *map(str, numbers), dollars(counts.spend_usd)]
