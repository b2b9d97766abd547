"""Moments as people write them, on a night when the clocks change too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from darkroom_client.cli.times import read_moment


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc] # year, month, …


EVENING = utc(2026, 11, 25, 21, 30)  # 22:30 in Berlin
CHANGE = utc(2026, 10, 24, 20, 0)  # 22:00 in Berlin; at three in the morning it is two again


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("+8h", EVENING, utc(2026, 11, 26, 5, 30)),
        ("+90min", EVENING, utc(2026, 11, 25, 23, 0)),
        ("+1.5h", EVENING, utc(2026, 11, 25, 23, 0)),
        ("+2d", EVENING, utc(2026, 11, 27, 21, 30)),
        ("+30s", EVENING, utc(2026, 11, 25, 21, 30, 30)),
        ("23:00", EVENING, utc(2026, 11, 25, 22, 0)),
        ("07:00", EVENING, utc(2026, 11, 26, 6, 0)),
        ("7:00", EVENING, utc(2026, 11, 26, 6, 0)),
        ("22:30", EVENING, utc(2026, 11, 26, 21, 30)),
        ("+8h", CHANGE, utc(2026, 10, 25, 4, 0)),
        ("07:00", CHANGE, utc(2026, 10, 25, 6, 0)),
        ("2026-11-26T07:00", EVENING, utc(2026, 11, 26, 6, 0)),
        ("2026-11-26 07:00", EVENING, utc(2026, 11, 26, 6, 0)),
        ("2026-07-01T07:00", EVENING, utc(2026, 7, 1, 5, 0)),
        ("2026-11-26T07:00Z", EVENING, utc(2026, 11, 26, 7, 0)),
        ("2026-11-26T07:00-05:00", EVENING, utc(2026, 11, 26, 12, 0)),
        ("2026-11-26T00:00", EVENING, utc(2026, 11, 25, 23, 0)),
    ],
)
def test_a_moment_is_what_was_meant(text: str, now: datetime, moment: datetime) -> None:
    found = read_moment(text, now)
    assert found == moment
    assert found.tzinfo is not None


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "24:00", "7", "+8", "8h", "+8x", "-8h", "+h", "07:60", "2026-13-01T07:00"]
)
def test_what_is_no_moment_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no moment"):
        read_moment(text, EVENING)


def test_a_day_wants_its_time() -> None:
    with pytest.raises(ValueError, match="2026-11-26T07:00"):
        read_moment("2026-11-26", EVENING)
