"""Moments as people write them: 07:00, +8h, 2026-11-26T07:00. Without a zone they are local."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final

from darkroom_client.cli.out import span

_UNITS: Final = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
_AHEAD: Final = re.compile(r"\+(\d+(?:\.\d+)?)(s|min|h|d)")
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")

FORMS: Final = "07:00 (the next one), +8h, +90min, or 2026-11-26T07:00"


def read_moment(text: str, now: datetime | None = None) -> datetime:
    """The moment that is meant, aware of its zone. `now` is aware too. Raises ValueError."""
    now = (now or datetime.now(UTC)).astimezone()
    if (ahead := _AHEAD.fullmatch(text)) is not None:
        return now.astimezone(UTC) + timedelta(**{_UNITS[ahead[2]]: float(ahead[1])})
    if (clock := _CLOCK.fullmatch(text)) is not None:
        # Without a zone until the day is found: the clocks may be changed tonight.
        today = datetime.combine(now.date(), time(int(clock[1]), int(clock[2])))
        at = today.astimezone()
        return at if at > now else (today + timedelta(days=1)).astimezone()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment: write {FORMS}") from None
    if moment.time() == time() and "T" not in text and " " not in text:
        raise ValueError(f"{text!r} is a day: add the time, such as {text}T07:00")
    return moment if moment.tzinfo else moment.astimezone()


def clock(moment: datetime) -> str:
    """A moment in a person's words, local: with the day only where it is not today."""
    at = moment.astimezone()
    return f"{at:%H:%M}" if at.date() == datetime.now().astimezone().date() else f"{at:%a %d %b %H:%M}"


def clock_ahead(moment: datetime) -> str:
    """The same, and how long it is until then."""
    ahead = (moment - datetime.now(UTC)).total_seconds()
    return f"{clock(moment)} (in {span(ahead)})" if ahead > 0 else clock(moment)
