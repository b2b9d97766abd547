"""When to look and when to try again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.domain import errors
from darkroom.domain.errors import DarkroomError
from darkroom.domain.policy import ATTEMPTS, RECONCILE_LOOKS, Backoff, Fate, Pace, Stop, reaction_to, reconcile_delay


@given(st.integers(1, 10_000))
def test_a_backoff_stays_between_its_floor_and_its_cap(failures: int) -> None:
    assert 1 <= Backoff(base=4, cap=300, floor=1).delay(failures) <= min(300, max(1, 4 * 2 ** min(failures - 1, 32)))


def test_a_backoff_spreads() -> None:
    assert len({ATTEMPTS.delay(8) for _ in range(50)}) > 40


def test_looks_for_a_lost_reply_grow_apart_and_go_on() -> None:
    delays = [reconcile_delay(look) for look in range(30)]
    assert delays[: len(RECONCILE_LOOKS) - 1] == list(RECONCILE_LOOKS[1:])
    assert delays == sorted(delays)
    assert delays[-1] == RECONCILE_LOOKS[-1]


def test_a_watch_that_is_taken_over_looks_at_once() -> None:
    assert Pace().first_look(resumed=True) == Pace(callbacks=True).first_look(resumed=True) == 0


def test_the_first_look_comes_when_the_model_usually_finishes() -> None:
    pace = Pace(typical=2)
    assert pace.first_look(resumed=False) == 2
    for _ in range(30):
        pace.learn(8)
    assert pace.first_look(resumed=False) == pytest.approx(8, rel=0.1)


def test_one_endless_run_does_not_spoil_the_pace() -> None:
    pace = Pace()
    pace.learn(2)
    pace.learn(100_000)
    assert pace.first_look(resumed=False) <= 60


@pytest.mark.parametrize("typical", [0.1, 2, 60])
@pytest.mark.parametrize("queued", [True, False])
def test_looks_grow_apart_up_to_a_bound(typical: float, queued: bool) -> None:  # noqa: FBT001 - a parameter of the test
    pace = Pace(typical=typical)
    delays = [pace.next_look(looks, queued=queued) for looks in range(1, 2000)]
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert delays[0] >= 0.15, "fal is not asked ten times a second"
    assert delays[-1] == 10


def test_with_callbacks_looking_is_rare() -> None:
    pace, called = Pace(typical=2), Pace(typical=2, callbacks=True)
    assert called.first_look(resumed=False) > 2 * pace.first_look(resumed=False)
    assert all(called.next_look(n, queued=False) > pace.next_look(n, queued=False) for n in range(1, 5))
    assert called.next_look(10**6, queued=False) == 30


def test_refusals_in_a_row_slow_down_more_and_more_until_one_is_taken() -> None:
    pace = Pace()
    assert [pace.slow_down() for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    pace.recovered()
    assert pace.slow_down() == 2


REACTIONS = {
    errors.PermanentError: (Fate.FAIL, Stop.NOTHING),
    errors.RateLimitedError: (Fate.SNOOZE, Stop.COOLDOWN),
    errors.BlockedError: (Fate.SNOOZE, Stop.GATE),
    errors.NotSentError: (Fate.SNOOZE, Stop.BREAKER),
    errors.TransientError: (Fate.RETRY, Stop.BREAKER),
    errors.ResultPendingError: (Fate.RETRY, Stop.BREAKER),
    DarkroomError: (Fate.RETRY, Stop.BREAKER),
}


@pytest.mark.parametrize(("kind", "expected"), REACTIONS.items())
def test_the_class_of_a_fault_decides(kind: type[DarkroomError], expected: tuple[Fate, Stop]) -> None:
    reaction = reaction_to(kind("made up"))
    assert (reaction.fate, reaction.stop) == expected


def test_only_the_callers_own_fault_ends_a_job() -> None:
    """Whatever is added to the tree of errors: no other class ends a job by itself."""

    def tree(kind: type[DarkroomError]) -> list[type[DarkroomError]]:
        children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
        return [kind, *(deeper for child in children for deeper in tree(child))]

    known = [kind for kind in tree(DarkroomError) if kind.__module__ == errors.__name__]
    ending = {kind for kind in known if reaction_to(kind("made up")).fate is Fate.FAIL}
    assert ending == {errors.PermanentError}
