"""What an account used."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query

from api import examples
from api.auth import AccountId, Door
from api.openapi import answers, keyed
from api.problems import InvalidRequestError, Mistake
from api.schemas import Usage, UsageCounts, UsageDay, UsageQuery

router = APIRouter(prefix="/v1/usage", tags=["usage"])

_DAYS_MAX: Final = 366
_DAYS_DEFAULT: Final = 30
_NANO: Final = 10**9


@router.get("", responses=answers(200, "Per day and in all.", examples.usage()) | keyed())
async def get_usage(services: Door, account_id: AccountId, query: Annotated[UsageQuery, Query()]) -> Usage:
    """Jobs, pictures and spend per day (UTC), at most 366 days; by default the last 30 up to today."""
    last = query.last_day or await services.accounts.today()
    first = query.first_day or date.fromordinal(max(1, last.toordinal() - _DAYS_DEFAULT + 1))
    _check_period(first, last)
    known = await services.accounts.usage(account_id, first_day=first, last_day=last)
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    total: dict[str, int] = {}
    for counters in known.values():
        for name, value in counters.items():
            total[name] = total.get(name, 0) + value
    return Usage(
        data=[UsageDay(date=day, **_counts(known.get(day, {})).model_dump()) for day in days], totals=_counts(total)
    )


def _check_period(first: date, last: date) -> None:
    if first > last:
        detail = "must not be after `to`"
    elif (last - first).days >= _DAYS_MAX:
        detail = f"must not be more than {_DAYS_MAX} days before `to`, both included"
    else:
        return
    raise InvalidRequestError(f"from: {detail}", [Mistake(parameter="from", detail=detail)])


def _counts(counters: dict[str, int]) -> UsageCounts:
    return UsageCounts(
        jobs=counters.get("created", 0),
        succeeded=counters.get("succeeded", 0),
        failed=counters.get("failed", 0),
        cancelled=counters.get("cancelled", 0),
        pictures=counters.get("pictures", 0),
        spend_usd=counters.get("spend_nano_usd", 0) / _NANO,
    )
