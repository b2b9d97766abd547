"""Which leases stand still, by the watcher's own clock."""

from __future__ import annotations

import pytest

from worker.ticker import LeaseWatch

LEASE = 30.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> LeaseWatch:
    return LeaseWatch(LEASE, clock)


def test_a_lease_that_stands_still_for_its_length_is_expired(watch: LeaseWatch, clock: Clock) -> None:
    assert watch.expired([("job", "lease", 5)]) == []
    clock.now += LEASE - 0.1
    assert watch.expired([("job", "lease", 5)]) == []
    clock.now += 0.1
    assert watch.expired([("job", "lease", 5)]) == [("job", "lease")]


def test_a_renewed_lease_never_expires(watch: LeaseWatch, clock: Clock) -> None:
    for beat in range(20):
        assert watch.expired([("job", "lease", beat)]) == []
        clock.now += LEASE - 0.1


def test_a_new_lease_of_the_same_job_begins_anew(watch: LeaseWatch, clock: Clock) -> None:
    watch.expired([("job", "first", 5)])
    clock.now += LEASE
    assert watch.expired([("job", "second", 5)]) == []


def test_what_the_store_says_of_the_time_does_not_matter(watch: LeaseWatch, clock: Clock) -> None:
    """After a jump of the store's clock every lease has a past expiry; whoever still renews keeps it."""
    assert watch.expired([("job", "lease", -(10**12))]) == []
    clock.now += LEASE
    assert watch.expired([("job", "lease", -(10**12) + 1)]) == []


def test_a_lease_that_went_away_is_forgotten(watch: LeaseWatch, clock: Clock) -> None:
    watch.expired([("job", "lease", 5)])
    clock.now += LEASE
    assert watch.expired([]) == []
    assert watch.expired([("job", "lease", 5)]) == []


def test_only_those_that_stand_still(watch: LeaseWatch, clock: Clock) -> None:
    watch.expired([("dead", "a", 5), ("alive", "b", 5)])
    clock.now += LEASE
    assert watch.expired([("dead", "a", 5), ("alive", "b", 6)]) == [("dead", "a")]
