"""A state machine drives the store as doors, workers, tickers and fal would, in any order, with crashes and repeats.

After each step everything in Redis is looked at (`store_view`); at the end honest workers must bring every job home.
`DARKROOM_MACHINE_EXAMPLES=5000` makes a long, random run of it; without it the run is short and always the same.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from darkroom.domain.errors import BlockedError, ConflictError
from darkroom.domain.job import Artifact
from darkroom.domain.lifecycle import JobEvent, Lane
from darkroom.ports import Acceptance, Settlement, Source
from tests.integration.store_callers import FAULT, LEASE_SECONDS, UNKNOWN_SECONDS, Callers
from tests.integration.store_view import paid, travel

EXAMPLES: Final = int(os.environ.get("DARKROOM_MACHINE_EXAMPLES", "70"))

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
FATES: Final = st.sampled_from(["taken", "taken", "refused", "blocked", "lost_taken", "lost_taken", "lost"])
VERDICTS: Final = st.sampled_from(["ok", "error", "lost"])
PICK: Final = st.integers(0, 40)
TWICE: Final = st.booleans()


class Store(Callers):
    """What may happen, in any order."""

    # --- the door -----------------------------------------------------------------------------------------------------

    @initialize(jobs=st.lists(JOBS, min_size=2, max_size=4))
    def open_the_door(self, jobs: list[dict[str, Any]]) -> None:
        for asked in jobs:
            self.create(asked, twice=False)

    @rule(asked=JOBS, twice=TWICE)
    def ask(self, asked: dict[str, Any], *, twice: bool) -> None:
        self.create(asked, twice=twice)

    @precondition(lambda self: self.view.jobs)
    @rule(pick=PICK, twice=TWICE)
    def cancel(self, pick: int, *, twice: bool) -> None:
        name = self.choose(pick, sorted(self.view.jobs))
        self.do("cancel", lambda: self.jobs.cancel(name), twice=twice)

    @precondition(lambda self: any(job["place"] == "none" for job in self.view.jobs.values()))
    @rule(pick=PICK, accept_charge=st.booleans(), twice=TWICE)
    def replay(self, pick: int, *, accept_charge: bool, twice: bool) -> None:
        name = self.choose(pick, sorted(n for n, job in self.view.jobs.items() if job["place"] == "none"))
        operation = self.name("op")

        async def replay() -> str:
            try:
                await self.jobs.replay(name, operation=operation, accept_charge=accept_charge)
            except ConflictError as exc:
                return exc.code
            return "ok"

        self.replayed = name
        chain = self.view.submissions_of(name)
        answer = self.do("replay", replay, twice=twice)
        if any("late_request_id" in sub or sub["status"] == "abandoned" for _, sub in chain) and not accept_charge:
            assert answer != "ok" or paid(chain[-1][1]), "what may have been charged is not charged again unasked"

    @precondition(lambda self: any(job["place"] == "none" for job in self.view.jobs.values()))
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        name = self.choose(pick, sorted(n for n, job in self.view.jobs.items() if job["place"] == "none"))
        self.do("delete", lambda: self.jobs.delete(name))

    # --- the ticker ---------------------------------------------------------------------------------------------------

    @rule(whole=st.booleans())
    def tick(self, *, whole: bool) -> None:
        if whole:
            self.due += self.do("tick", self.schedule.tick)
        else:
            self.do("dispatch", self.schedule.dispatch)

    @rule(seconds=st.sampled_from([2, 16, 16, 31, 110, 110, 700, 90_000]))
    def wait(self, seconds: int) -> None:
        self.time_passes(seconds)

    @precondition(lambda self: self.view.table("dr:leases"))
    @rule(pick=PICK, frozen=st.booleans(), twice=TWICE)
    def rescue(self, pick: int, *, frozen: bool, twice: bool) -> None:
        """From a worker that died, or one that is `frozen` and will go on as if nothing had happened."""
        name, lease, _ = self.choose(pick, sorted(self.await_(self.schedule.leases())))
        if not frozen:
            self.hands = [hand for hand in self.hands if hand.lease != lease]
        self.time_passes(LEASE_SECONDS + 1)
        assert self.do("rescue", lambda: self.store.rescue(name, lease), twice=twice)

    @precondition(lambda self: self.view.jobs)
    @rule(pick=PICK, twice=TWICE)
    def expire(self, pick: int, *, twice: bool) -> None:
        due = [name.partition(":")[2] for name in self.due if name.startswith("deadline:")]
        name = self.choose(pick, due or sorted(self.view.jobs))
        self.do("expire", lambda: self.store.expire(name))
        if twice:
            self.do("expire", lambda: self.store.expire(name))

    # --- workers ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.view.jobs)
    @rule(pick=PICK, twice=TWICE)
    def deliver_a_stale_message(self, pick: int, *, twice: bool) -> None:
        self.claim(pick, stale=True, twice=twice)

    @precondition(lambda self: self.hands)
    @rule(pick=PICK)
    def crash(self, pick: int) -> None:
        self.hands.remove(self.hand(pick))

    @precondition(lambda self: self.hands)
    @rule()
    def heartbeat(self) -> None:
        pairs = [(hand.job.id, hand.lease) for hand in self.hands]
        holds = self.do("heartbeat", lambda: self.store.heartbeat(pairs))
        assert [hold != "lost" for hold in holds] == [self.holds(hand) for hand in self.hands]

    @precondition(lambda self: self.hands or self.view.timers("republish"))
    @rule(
        pick=PICK, steps=st.integers(1, 5), fate=FATES, verdict=VERDICTS, twice=st.lists(TWICE, min_size=5, max_size=5)
    )
    def work_on(self, pick: int, steps: int, fate: str, verdict: str, twice: list[bool]) -> None:
        """A worker goes so many steps: claim, intent, POST, the fact, the verdict. Between any two it may crash."""
        if not self.hands or (pick % 2 and self.view.timers("republish")):
            self.claim(pick, stale=False, twice=twice.pop())
            hand = self.hands[-1]
        else:
            hand = self.hand(pick)
            self.go_on(hand, fate, verdict, twice=twice.pop())
        for again in twice[: steps - 1]:
            self.go_on(hand, fate, verdict, twice=again)

    @precondition(lambda self: self.fal)
    @rule(pick=PICK, twice=TWICE)
    def callback(self, pick: int, *, twice: bool) -> None:
        request = self.choose(pick, self.fal)
        self.accept(request.submission_id, request.ref, Source.CALLBACK, twice=twice)

    @precondition(lambda self: self.fal)
    @rule(pick=PICK, twice=TWICE)
    def hear_a_verdict(self, pick: int, *, twice: bool) -> None:
        self.fetch_verdict(pick, twice=twice)

    @precondition(lambda self: self.hands)
    @rule(pick=PICK, twice=TWICE)
    def keep_artifact(self, pick: int, *, twice: bool) -> None:
        hand = self.hand(pick)
        kept = Artifact(
            0, f"k/{hand.job.id}/0.png", "image/png", 64, 64, 9, "ab", 7, has_nsfw_concepts=False, blank=False
        )
        self.do("fenced", lambda: self.store.keep_artifact(hand.job.id, hand.lease, kept), twice=twice, hand=hand)

    @precondition(lambda self: self.hands)
    @rule(
        pick=PICK,
        event=st.sampled_from([JobEvent.REJECTED, JobEvent.EXHAUSTED, JobEvent.EXPIRED, JobEvent.CANCELLED]),
        twice=TWICE,
    )
    def give_up(self, pick: int, event: JobEvent, *, twice: bool) -> None:
        """A worker ends its job, rightly or not; while a POST may be on its way it must not."""
        hand = self.hand(pick)
        held, on_its_way = self.holds(hand), self.submission(hand).get("status") == "intended"
        assert self.finish(hand, event, twice=twice) == (held and not on_its_way) or not held

    @precondition(lambda self: self.hands)
    @rule(pick=PICK, twice=TWICE)
    def snooze(self, pick: int, *, twice: bool) -> None:
        hand = self.hand(pick)
        self.do("fenced", lambda: self.store.snooze(hand.job.id, hand.lease), twice=twice, hand=hand)

    @precondition(lambda self: self.hands)
    @rule(pick=PICK, delay=st.sampled_from([0, 5, 60]), counts=st.booleans(), twice=TWICE)
    def retry(self, pick: int, delay: int, *, counts: bool, twice: bool) -> None:
        hand = self.hand(pick)
        was_paid = paid(self.submission(hand)) and self.holds(hand)
        self.do(
            "fenced",
            lambda: self.store.retry(hand.job.id, hand.lease, delay=delay, error=FAULT, counts=counts),
            twice=twice,
            hand=hand,
        )
        assert not was_paid or self.view.jobs[hand.job.id]["status"] != "failed", "attempts do not end a paid job"

    # --- reconciling --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.doubts())
    @rule(pick=PICK, twice=TWICE)
    def look_at_listing(self, pick: int, *, twice: bool) -> None:
        self.reconcile(self.choose(pick, self.doubts()), twice=twice)

    @precondition(lambda self: self.doubts())
    @rule(
        pick=PICK,
        settlement=st.sampled_from([Settlement.HOLD, Settlement.HOLD, Settlement.RESUBMIT, Settlement.FAIL]),
        twice=TWICE,
    )
    def window_ends(self, pick: int, settlement: Settlement, *, twice: bool) -> None:
        name = self.choose(pick, self.doubts())
        self.do("fenced", lambda: self.store.settle(name, settlement), twice=twice)

    @precondition(lambda self: self.doubts())
    @rule(pick=PICK)
    def look_again_later(self, pick: int) -> None:
        name = self.choose(pick, self.doubts())
        self.do("later", lambda: self.store.settle(name, Settlement.LATER, delay=5))

    # --- what stops everyone ------------------------------------------------------------------------------------------

    @rule(pick=PICK, what=st.sampled_from(["gate", "open_gate", "cool_down", "s3_down", "s3_up"]))
    def hinder(self, pick: int, what: str) -> None:
        if what == "gate" and self.view.jobs:
            name = self.choose(pick, sorted(self.view.jobs))
            self.do(what, lambda: self.schedule.close_gate(name, BlockedError("no balance")))
            closed = self.view
            self.do(what, lambda: self.schedule.close_gate(name, BlockedError("no balance")))
            assert not self.view.changes_since(closed), "what met the gate twice moved it once"
        elif what == "open_gate":
            self.do(what, self.schedule.open_gate)
        elif what == "cool_down":
            self.do(what, lambda: self.schedule.cool_down(20))
        else:
            fault = BlockedError("no such bucket", code="bucket_missing") if what == "s3_down" else None
            self.do(what, lambda: self.schedule.set_storage(fault))

    # --- late repeats -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.history)
    @rule(pick=st.integers(0, 400))
    def repeat_an_old_call(self, pick: int) -> None:
        """A reply was lost long ago; the same call arrives again, from whoever made it."""
        call = self.choose(pick, [c for c in self.history if c.kind in {"fact", "fenced"}] or self.history)
        if call.kind not in {"fact", "fenced"}:
            return
        before = self.view
        held = call.hand is not None and before.jobs.get(call.hand[0], {}).get("lease") == call.hand[1]
        answer = self.await_(call.run())
        self.view = self.look()
        if call.kind == "fact" and answer == call.answer and answer is not Acceptance.UNKNOWN:
            assert not self.view.changes_since(before), "a fact is recorded once"
        if call.kind == "fenced" and call.hand is not None and not held:
            assert answer in {call.answer, False}
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
