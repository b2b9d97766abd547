"""`darkroom-admin receipts`: every submission and what it cost, as CSV, and everything that does not add up."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer
from redis.asyncio import Redis

from darkroom.adapters.redis.accounts import RedisAccounts
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.admin.tools import run
from darkroom.domain.errors import PermanentError
from darkroom.service.receipts import Receipt, Totals
from darkroom.service.receipts import receipts as read_receipts
from darkroom.settings import CommonSettings

_COLUMNS = (
    *("at", "account_id", "job_id", "submission_id", "outcome", "fal_request_id"),
    *("billable_units", "unit_price_usd", "cost_usd", "seed", "exceptions"),
)


def receipts(
    since: Annotated[
        str | None,
        typer.Option(help="A day (2026-11-22, UTC) or a time with its zone; the last 24 hours when left out."),
    ] = None,
) -> None:
    """Print a line for each submission as CSV, oldest job last; totals and exceptions go to stderr."""

    async def show(redis: Redis, _: CommonSettings) -> None:
        start = _moment(since) if since else datetime.now(UTC) - timedelta(days=1)
        totals, odd = Totals(), []
        lines = csv.writer(sys.stdout)
        lines.writerow(_COLUMNS)
        async for receipt in read_receipts(RedisJobs(redis), RedisAccounts(redis), since=start):
            totals.add(receipt)
            lines.writerow(_row(receipt))
            if receipt.oddities:
                odd.append(receipt)
        sys.stdout.flush()
        _say_totals(totals)
        for receipt in odd:
            what = ", ".join(oddity.value for oddity in receipt.oddities)
            typer.echo(f"exception: {what}: {receipt.submission_id} of {receipt.job_id}", err=True)

    run(show)


def _row(receipt: Receipt) -> tuple[object, ...]:
    return (
        receipt.at.isoformat(),
        *(receipt.account_id, receipt.job_id, receipt.submission_id, receipt.outcome, receipt.fal_request_id or ""),
        *(_plain(amount) for amount in (receipt.billable_units, receipt.unit_price_usd, receipt.cost_usd)),
        receipt.seed,
        " ".join(receipt.oddities),
    )


def _plain(amount: Decimal | None) -> str:
    return "" if amount is None else f"{amount.normalize():f}"


def _say_totals(totals: Totals) -> None:
    typer.echo(
        f"{totals.submissions} submissions, {totals.charged} charged, {_plain(totals.billable_units)} megapixels, "
        f"${totals.cost_usd:.4f}, {sum(totals.oddities.values())} exceptions",
        err=True,
    )


def _moment(text: str) -> datetime:
    try:
        if len(text) == len("2026-11-22"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise PermanentError(f"--since: {text!r} is neither a day nor a time with its zone")
    return found
