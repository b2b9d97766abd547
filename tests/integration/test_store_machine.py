"""A state machine drives the store as doors, workers, tickers and fal would, in any order, with crashes and repeats.

After each step everything in Redis is looked at (`store_view`); at the end honest workers must bring every job home.
`DARKROOM_MACHINE_EXAMPLES=5000` makes a long, random run of it; without it the run is short and always the same.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from darkroom.domain.errors import BlockedError
from darkroom.domain.job import Artifact
from darkroom.domain.lifecycle import JobEvent, Lane
from darkroom.ports import Acceptance, Settlement, Source
from tests.integration.store_callers import FAULT, LEASE_SECONDS, UNKNOWN_SECONDS, Callers, Hand
from tests.integration.store_view import paid, travel

EXAMPLES: Final = int(os.environ.get("DARKROOM_MACHINE_EXAMPLES", "120"))

JOBS: Final = st.fixed_dictionaries(
    {
        "account": st.sampled_from(["acct_a", "acct_b"]),
        "lane": st.sampled_from(Lane),
        "deadline": st.sampled_from([None, None, None, 60, 400]),
        "webhook": st.booleans(),
        "key": st.sampled_from([None, None, None, "k1", "k2"]),
        "twin": st.booleans(),
    }
)
FATES: Final = st.sampled_from(["taken", "taken", "taken", "refused", "blocked", "lost_taken", "lost"])
VERDICTS: Final = st.sampled_from(["ok", "ok", "error", "lost"])
STEPS: Final = st.sampled_from([1, 2, 3, 3, 4, 4, 5, 6])
TWICE: Final = st.booleans()
TWICES: Final = st.lists(TWICE, min_size=6, max_size=6)
PICK: Final = st.integers(0, 40)
GIVING_UP: Final = (JobEvent.REJECTED, JobEvent.EXHAUSTED, JobEvent.EXPIRED, JobEvent.CANCELLED)
WISHES: Final = ("cancel", "cancel", "replay", "replay", "delete")
HINDRANCES: Final = ("gate", "cool_down", "s3_down")


class Store(Callers):
    """What may happen, in any order. Few rules with many cases: Hypothesis chooses among rules evenly."""

    # --- the door -----------------------------------------------------------------------------------------------------

    @initialize(jobs=st.lists(st.tuples(JOBS, STEPS, FATES, VERDICTS), min_size=2, max_size=4))
    def open_the_door(self, jobs: list[tuple[dict[str, Any], int, str, str]]) -> None:
        """A few jobs are on their way already."""
        for asked, steps, fate, verdict in jobs:
            self.create(asked, twice=False)
            if self.view.timers("republish"):
                self.begin(0, steps, fate, verdict, [False] * 6)

    @precondition(lambda self: len(self.view.jobs) < 7)
    @rule(asked=JOBS, twice=TWICE)
    def ask(self, asked: dict[str, Any], *, twice: bool) -> None:
        self.create(asked, twice=twice)

    @precondition(lambda self: self.view.jobs)
    @rule(
        pick=PICK, wish=st.sampled_from(["cancel", "cancel", "replay", "replay", "delete"]), charge=TWICE, twice=TWICE
    )
    def wish(self, pick: int, wish: str, *, charge: bool, twice: bool) -> None:
        """What the owner of a job wants of it."""
        ended = sorted(name for name, job in self.view.jobs.items() if job["place"] == "none")
        if wish == "cancel":
            name = self.choose(pick, sorted(self.view.jobs.keys() - set(ended)) or ended)
            self.do(wish, lambda: self.jobs.cancel(name), twice=twice)
        elif ended and wish == "replay":
            self.replay(self.choose(pick, ended), charge=charge, twice=twice)
        elif ended:
            name = self.choose(pick, ended)
            self.do(wish, lambda: self.jobs.delete(name))

    # --- the ticker ---------------------------------------------------------------------------------------------------

    @rule(pick=PICK, seconds=st.sampled_from([0, 0, 2, 6, 6, 16, 61, 110, 700, 90_000]), lazy=st.booleans())
    def tick(self, pick: int, seconds: int, *, lazy: bool) -> None:
        """Time passes, and a ticker does what is due, or some of it."""
        self.time_passes(seconds)
        self.due += self.do("tick", self.schedule.tick)
        deadlines = [name.partition(":")[2] for name in self.due if name.startswith("deadline:")]
        for name in deadlines[pick % 2 :] if lazy else deadlines:
            self.do("expire", lambda name=name: self.store.expire(name))  # type: ignore[misc]
        self.due.clear()

    @precondition(lambda self: self.view.table("dr:leases"))
    @rule(pick=PICK, frozen=st.booleans(), twice=TWICE)
    def rescue(self, pick: int, *, frozen: bool, twice: bool) -> None:
        """From a worker that died, or one that is `frozen` and will go on as if nothing had happened."""
        name, lease, _ = self.choose(pick, sorted(self.await_(self.schedule.leases())))
        if not frozen:
            self.hands = [hand for hand in self.hands if hand.lease != lease]
        self.time_passes(LEASE_SECONDS + 1)
        assert self.do("rescue", lambda: self.store.rescue(name, lease), twice=twice)

    # --- workers ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.view.timers("republish"))
    @rule(pick=PICK, steps=STEPS, fate=FATES, verdict=VERDICTS, twice=TWICES)
    def begin(self, pick: int, steps: int, fate: str, verdict: str, twice: list[bool]) -> None:
        """A worker claims a job and goes so many steps on: intent, POST, the fact, the verdict, the end."""
        hand = self.claim(pick, stale=False, twice=twice[0])
        if hand is not None:
            for again in twice[1:steps]:
                self.go_on(hand, fate, verdict, twice=again)

    @precondition(lambda self: self.hands)
    @rule(pick=PICK, steps=STEPS, fate=FATES, verdict=VERDICTS, twice=TWICES)
    def carry_on(self, pick: int, steps: int, fate: str, verdict: str, twice: list[bool]) -> None:
        """One that was interrupted anywhere goes on, whatever happened to its job meanwhile."""
        hand = self.hand(pick)
        for again in twice[:steps]:
            self.go_on(hand, fate, verdict, twice=again)

    @precondition(lambda self: self.hands)
    @rule(
        pick=PICK,
        how=st.sampled_from(["snooze", "retry", "retry", "retry", *GIVING_UP]),
        counts=st.booleans(),
        twice=TWICE,
    )
    def let_go(self, pick: int, how: str, *, counts: bool, twice: bool) -> None:
        """A worker parts with its job, rightly or not; while a POST may be on its way it must not."""
        hand = self.hand(pick)
        name, lease, sub = hand.job.id, hand.lease, self.submission(hand)
        held, cancelling = self.holds(hand), self.view.jobs.get(name, {}).get("cancel") == "1"
        ways: dict[str, Callable[[], Awaitable[bool]]] = {
            "snooze": lambda: self.store.snooze(name, lease),
            "retry": lambda: self.store.retry(name, lease, delay=5, error=FAULT, counts=counts),
        }
        finish = lambda: self.store.finish(name, lease, JobEvent(how), FAULT)  # noqa: E731 - like those above
        went = self.do("fenced", ways.get(how, finish), twice=twice, hand=hand)
        if not held:
            return
        assert went == (sub.get("status") != "intended")
        if went and how == "retry" and paid(sub):
            assert self.view.jobs[name]["status"] == "retrying", "attempts do not end a paid job"
        if went and how in ways and cancelling and not paid(sub) and sub.get("outcome") != "lost":
            assert self.view.jobs[name]["status"] == "cancelled", "the wish does not wait for another attempt"

    @precondition(lambda self: self.fal)
    @rule(pick=PICK, callback=st.booleans(), twice=TWICE)
    def hear_of(self, pick: int, *, callback: bool, twice: bool) -> None:
        """News of a request, late and again: fal's callback, or its verdict by anyone who knows the request."""
        request = self.choose(pick, self.fal)
        if callback:
            self.accept(request.submission_id, request.ref, Source.CALLBACK, twice=twice)
        else:
            self.fetch_verdict(pick, twice=twice)

    # --- reconciling --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.doubts())
    @rule(pick=PICK, end=st.sampled_from([None, None, *Settlement]), twice=TWICE)
    def reconcile_one(self, pick: int, end: Settlement | None, *, twice: bool) -> None:
        """Look at the listing and believe it (None), or end the doubt otherwise: the window is over."""
        name = self.choose(pick, self.doubts())
        if end is None or end is Settlement.ABSENT:
            self.reconcile(name, twice=twice)
        elif end is Settlement.LATER:  # a repeat would move the next look by the time between the two
            self.do("later", lambda: self.store.settle(name, end, delay=5))
        else:
            self.do("fenced", lambda: self.store.settle(name, end), twice=twice)

    # --- what else may happen -----------------------------------------------------------------------------------------

    @rule(pick=PICK, what=st.sampled_from(["crash", "stale message", "heartbeat", "artifact", "way free", *HINDRANCES]))
    def disturb(self, pick: int, what: str) -> None:
        if what == "way free":
            self.do("open_gate", self.schedule.open_gate)
            self.do("s3_up", lambda: self.schedule.set_storage(None))
        elif what == "cool_down":
            self.do(what, lambda: self.schedule.cool_down(5))
        elif what == "s3_down":
            self.do(what, lambda: self.schedule.set_storage(BlockedError("no such bucket", code="bucket_missing")))
        elif what == "gate" and self.view.jobs:
            self.close_gate(self.choose(pick, sorted(self.view.jobs)))
        elif what == "stale message" and self.view.jobs:
            self.claim(pick, stale=True, twice=False)
        elif self.hands:
            self.meddle(self.hand(pick), what)

    def close_gate(self, name: str) -> None:
        self.do("gate", lambda: self.schedule.close_gate(name, BlockedError("no balance")))
        closed = self.view
        self.do("gate", lambda: self.schedule.close_gate(name, BlockedError("no balance")))
        assert not self.view.changes_since(closed), "who met the gate twice moved it once"

    def meddle(self, hand: Hand, what: str) -> None:
        if what == "crash":
            self.hands.remove(hand)
        elif what == "heartbeat":
            pairs = [(hand.job.id, hand.lease) for hand in self.hands]
            holds = self.do(what, lambda: self.store.heartbeat(pairs))
            assert [hold != "lost" for hold in holds] == [self.holds(hand) for hand in self.hands]
        elif what == "artifact":
            kept = Artifact(0, "k/0.png", "image/png", 64, 64, 9, "ab", 7, has_nsfw_concepts=False, blank=False)
            self.do("fenced", lambda: self.store.keep_artifact(hand.job.id, hand.lease, kept), twice=True, hand=hand)

    @precondition(lambda self: self.history)
    @rule(pick=st.integers(0, 400))
    def repeat_an_old_call(self, pick: int) -> None:
        """A reply was lost long ago; the same call arrives again, from whoever made it."""
        call = self.choose(pick, self.history)
        before = self.view
        held = call.hand is not None and before.jobs.get(call.hand[0], {}).get("lease") == call.hand[1]
        answer = self.await_(call.run())
        self.view = self.look()
        if call.kind == "fact" and answer == call.answer and answer is not Acceptance.UNKNOWN:
            assert not self.view.changes_since(before), "a fact is recorded once"
        if call.hand is not None and not held:
            assert not self.view.changes_since(before), "a lost lease moves nothing"

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Every process starts anew, the operator opens the gates, and honest workers go on: all jobs come home."""
        try:
            self.hands.clear()
            self.await_(self.redis.delete("dr:gate:s3", "dr:outbox"))
            self.view = self.look()
            self.do("open_gate", self.schedule.open_gate)
            for _ in range(60):
                if all(job["place"] in {"none", "held"} for job in self.view.jobs.values()):
                    break
                self.honest_round()
            waiting = {n: job for n, job in self.view.jobs.items() if job["place"] not in {"none", "held"}}
            assert not waiting, "nothing waits without a reason"
            for _ in range(2):
                self.await_(travel(self.redis, UNKNOWN_SECONDS + 61))
                self.do("tick", self.schedule.tick)
            self.hangs_together()
            assert not self.view.table("dr:permits"), "nothing is open, so no permit is held"
            assert not self.view.items("dr:copying")
        finally:
            self.await_(self.redis.aclose())
            self.runner.close()


@pytest.mark.timeout(0)
def test_the_store_keeps_its_promises_in_any_order(valkey_url: str) -> None:
    machine = type("StoreHere", (Store,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize="DARKROOM_MACHINE_EXAMPLES" not in os.environ,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
