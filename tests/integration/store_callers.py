"""The callers of the store as the state machine plays them: doors, workers with a memory, tickers, and a fal.

Each call is made through `do`, which looks at everything in Redis afterwards and, if asked to, makes the call again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from darkroom.adapters.redis.connection import connect
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.domain.errors import (
    BlockedError,
    ConflictError,
    DarkroomError,
    PermanentError,
    ResultGoneError,
    TransientError,
)
from darkroom.domain.generation import Generated, GenerationFailed, MediaRef, RequestRef, Verdict
from darkroom.domain.job import Job, NewJob
from darkroom.domain.lifecycle import JobEvent
from darkroom.ports import Acceptance, Limits, Opening, Settlement, Source
from tests.integration.store_view import View, assert_moved_lawfully, assert_sound, paid, travel

LIMITS: Final = Limits(permits=3, reserve=1, copying=3, rate_interval=0)
LEASE_SECONDS: Final = 30
UNKNOWN_SECONDS: Final = 100
"""After so long nothing can be running any more that was not heard of."""

FAULT: Final = TransientError("a runner fell over")
T = TypeVar("T")


@dataclass
class Request:
    """What fal knows of one accepted POST. `verdict` is settled when it is taken, and told when asked."""

    ref: RequestRef
    submission_id: str
    fingerprint: str
    verdict: Verdict | ResultGoneError


@dataclass
class Hand:
    """What one worker has in memory about the job it holds, or believes to hold.

    `reply` is fal's answer to its POST: not yet, taken, refused, or lost on the way; `told` that the store
    has heard it.
    """

    job: Job
    lease: str
    submission_id: str | None = None
    reply: RequestRef | DarkroomError | None = None
    told: bool = False

    @property
    def may_post(self) -> bool:
        return self.submission_id is not None and self.reply is None


@dataclass(frozen=True)
class Call:
    """One script call as it was made. `kind` says what a repeat of it promises."""

    kind: str
    run: Callable[[], Awaitable[Any]]
    answer: Any
    hand: tuple[str, str] | None = None


def generated() -> Generated:
    return Generated((MediaRef("https://v3.fal.media/0.png", "image/png", 64, 64),), 7, (False,), Decimal("0.004"))


def verdict_of(kind: str) -> Verdict | ResultGoneError:
    if kind == "ok":
        return generated()
    if kind == "lost":
        return ResultGoneError("expired")
    return GenerationFailed(FAULT, None)


class Callers(RuleBasedStateMachine):
    """The store, its callers, and a fal that remembers every POST it took."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = connect(self.url, connections=4)
        self.store = RedisTransitions(
            self.redis, lease_seconds=LEASE_SECONDS, unknown_seconds=UNKNOWN_SECONDS, max_attempts=2
        )
        self.schedule = RedisSchedule(self.redis)
        self.jobs = RedisJobs(self.redis)
        self.serial = 0
        self.hands: list[Hand] = []
        self.fal: list[Request] = []
        self.due: list[str] = []
        self.history: list[Call] = []
        self.replayed: str | None = None
        self.await_(self.redis.flushall())
        self.await_(self.schedule.announce_limits(LIMITS))
        self.view = self.look()

    def await_(self, answer: Awaitable[T]) -> T:
        async def wait() -> T:
            return await answer

        return self.runner.run(wait())

    def look(self) -> View:
        return self.await_(View.take(self.redis))

    def name(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}_{self.serial:026d}"

    @staticmethod
    def choose(pick: int, among: Sequence[T]) -> T:
        return among[pick % len(among)]

    def do(self, kind: str, call: Callable[[], Awaitable[T]], *, twice: bool = False, hand: Hand | None = None) -> T:
        """Make one script call; `twice` makes it again at once, as redis-py does when the reply was lost."""
        answer = self.await_(call())
        after = self.look()
        assert_moved_lawfully(self.view, after, replayed=self.replayed)
        if twice:
            assert self.await_(call()) == answer, f"{kind}: a repeat is answered as the first"
            again = self.look()
            assert not again.changes_since(after), f"{kind}: a repeat changes nothing"
        self.view, self.replayed = after, None
        if kind in {"fact", "fenced"}:
            self.history.append(Call(kind, call, answer, (hand.job.id, hand.lease) if hand else None))
        return answer

    @invariant()
    def hangs_together(self) -> None:
        assert_sound(self.view, permits=LIMITS.permits, copying=LIMITS.copying)
        for name, sub in self.view.submissions.items():
            if sub["status"] == "absent":
                taken = [r for r in self.fal if r.submission_id == name]
                assert all(f"dr:request:{r.ref.request_id}" in self.view.keys for r in taken), "a request was forgotten"

    def create(self, asked: dict[str, Any], *, twice: bool) -> None:
        name, account, key = self.name("job"), asked["account"], asked["key"]
        sameness = "a poster" if asked["twin"] else name
        job = NewJob(
            id=name,
            account_id=account,
            model="fal-ai/krea-2/turbo",
            arguments={"prompt": sameness, "seed": 7},
            lane=asked["lane"],
            estimate_usd=Decimal("0.008"),
            metadata={},
            webhook_url="https://example.com/hook" if asked["webhook"] else None,
            deadline_seconds=asked["deadline"],
            idempotency=key,
            fingerprint=sameness,
        )
        known = self.view.table(f"dr:idem:{account}:{key}").get("job")
        created = self.do("create", lambda: self.jobs.create(job), twice=twice)
        assert (created.job_id, created.created) == (known or name, known is None)

    def replay(self, name: str, *, charge: bool, twice: bool) -> None:
        operation = self.name("op")
        chain = self.view.submissions_of(name)

        async def replay() -> str:
            try:
                await self.jobs.replay(name, operation=operation, accept_charge=charge)
            except ConflictError as exc:
                return exc.code
            return "ok"

        self.replayed = name
        answer = self.do("replay", replay, twice=twice)
        if any("late_request_id" in sub or sub["status"] == "abandoned" for _, sub in chain) and not charge:
            assert answer != "ok" or paid(chain[-1][1]), "what may have been charged is not charged again unasked"

    def time_passes(self, seconds: int) -> None:
        self.await_(travel(self.redis, seconds))
        self.view = self.look()

    def claim(self, pick: int, *, stale: bool, twice: bool) -> Hand | None:
        among = sorted(self.view.timers("republish")) or sorted(self.view.jobs)
        name = self.choose(pick, sorted(self.view.jobs) if stale else among)
        lease = self.name("lse")
        job = self.do("claim", lambda: self.store.claim(name, lease), twice=twice)
        assert (job is not None) == (self.view.jobs[name]["lease"] == lease)
        if job is None:
            return None
        self.hands.append(Hand(job, lease))
        return self.hands[-1]

    def hand(self, pick: int) -> Hand:
        """Mostly one that still holds its job; now and then one that lost it without knowing."""
        holding = [hand for hand in self.hands if self.holds(hand)]
        return self.choose(pick, self.hands if pick % 4 == 0 or not holding else holding)

    def holds(self, hand: Hand) -> bool:
        return self.view.jobs.get(hand.job.id, {}).get("lease") == hand.lease

    def submission(self, hand: Hand) -> dict[str, str]:
        return self.view.table(f"dr:sub:{self.view.jobs.get(hand.job.id, {}).get('sub', '')}")

    def go_on(self, hand: Hand, fate: str, verdict: str, *, twice: bool) -> None:
        """The next step of whoever remembers what this hand does."""
        if hand not in self.hands:  # it learned that its lease is lost
            return
        if hand.submission_id is None or (isinstance(hand.reply, DarkroomError) and hand.told):
            self.open(hand, twice=twice)
        elif hand.reply is None:
            hand.reply = self.post(hand.submission_id, fate, verdict)
        elif not hand.told:
            self.record_reply(hand, twice=twice)
        elif self.submission(hand).get("outcome") == "ok":
            self.finish(hand, JobEvent.COMPLETED, twice=twice)
        elif isinstance(hand.reply, RequestRef):
            self.fetch_verdict(self.fal.index(next(r for r in self.fal if r.ref == hand.reply)), twice=twice)

    def open(self, hand: Hand, *, twice: bool) -> None:
        name = self.name("sub")
        opening = self.do("open", lambda: self.store.open_submission(hand.job, name), twice=twice)
        assert (opening is Opening.LEASE) == (not self.holds(hand))
        if opening is Opening.OPENED:
            hand.submission_id, hand.reply, hand.told = name, None, False
        elif opening is Opening.LEASE:
            self.hands.remove(hand)
        elif opening is Opening.OPEN and hand.submission_id is None:
            sub = self.submission(hand)
            found = [r for r in self.fal if r.ref.request_id == sub.get("request_id")]
            if found:  # it resumes what an earlier attempt began
                hand.submission_id, hand.reply, hand.told = found[0].submission_id, found[0].ref, True

    def post(self, name: str, fate: str, verdict: str) -> RequestRef | DarkroomError:
        """Fal's side of it. The store hears nothing yet."""
        if "taken" in fate:
            request_id = self.name("req")
            ref = RequestRef(
                request_id, f"https://q/{request_id}/s", f"https://q/{request_id}", f"https://q/{request_id}/c"
            )
            fingerprint = self.view.table(f"dr:sub:{name}").get("fingerprint", "")
            self.fal.append(Request(ref, name, fingerprint, verdict_of(verdict)))
            return ref if fate == "taken" else TransientError("lost")
        if fate == "lost":
            return TransientError("lost")
        return BlockedError("bad key") if fate == "blocked" else PermanentError("no")

    def record_reply(self, hand: Hand, *, twice: bool) -> None:
        """By whoever has it: fresh, or frozen since long before its rescue."""
        name, reply = hand.submission_id or "", hand.reply
        hand.told = True
        if isinstance(reply, RequestRef):
            self.accept(name, reply, Source.REPLY, twice=twice)
        elif isinstance(reply, PermanentError | BlockedError):
            self.do("fact", lambda: self.store.reject_submission(name, reply), twice=twice)
            if isinstance(reply, BlockedError):
                self.do("close_gate", lambda: self.schedule.close_gate(hand.job.id, reply))
        elif reply is not None and reply.code == "not_sent":
            self.do("fact", lambda: self.store.reject_submission(name, reply), twice=twice)
        elif reply is not None:
            self.do("fenced", lambda: self.store.doubt(hand.job.id, hand.lease, name, reply), twice=twice, hand=hand)

    def accept(self, name: str, ref: RequestRef, source: Source, *, twice: bool) -> Acceptance:
        kind = "look" if source is Source.LISTING else "fact"
        return self.do(kind, lambda: self.store.accept_submission(name, ref, source), twice=twice)

    def fetch_verdict(self, pick: int, *, twice: bool) -> None:
        """By anyone who knows the request: it is a fact."""
        request = self.choose(pick, self.fal)
        name = self.view.keys.get(f"dr:request:{request.ref.request_id}")
        if name is None:
            return
        cost = Decimal("0.000032") if isinstance(request.verdict, Generated) else None
        self.do("fact", lambda: self.store.finish_submission(name, request.verdict, cost), twice=twice)

    def finish(self, hand: Hand, event: JobEvent, *, twice: bool) -> bool:
        error = None if event in {JobEvent.COMPLETED, JobEvent.CANCELLED} else PermanentError("no")
        return self.do(
            "fenced", lambda: self.store.finish(hand.job.id, hand.lease, event, error), twice=twice, hand=hand
        )

    def doubts(self) -> list[str]:
        return sorted(name for name, sub in self.view.submissions.items() if sub["status"] == "uncertain")

    def reconcile(self, name: str, *, twice: bool = False) -> None:
        """Adopt an unowned request of the same input, else prove that there is none: the window has passed."""
        fingerprint = self.view.table(f"dr:sub:{name}")["fingerprint"]
        found = [
            request
            for request in self.fal
            if request.fingerprint == fingerprint and f"dr:request:{request.ref.request_id}" not in self.view.keys
        ]
        if found:
            self.accept(name, found[0].ref, Source.LISTING, twice=twice)
            return
        for hand in self.hands:
            if hand.submission_id == name and hand.may_post:
                hand.reply = TransientError("the send-by limit has passed", code="not_sent")
        self.do("fenced", lambda: self.store.settle(name, Settlement.ABSENT), twice=twice)

    def honest_round(self) -> None:
        self.await_(travel(self.redis, LEASE_SECONDS + 1))
        due = self.do("tick", self.schedule.tick)
        for name in (name.partition(":")[2] for name in due if name.startswith("deadline:")):
            self.do("expire", lambda name=name: self.store.expire(name))  # type: ignore[misc]
        for name in (name.partition(":")[2] for name in due if name.startswith("reconcile:")):
            sub = self.view.jobs[name]["sub"]
            if sub in self.doubts():
                self.reconcile(sub)
        for name, lease, _ in self.await_(self.schedule.leases()):
            self.do("rescue", lambda name=name, lease=lease: self.store.rescue(name, lease))  # type: ignore[misc]
        self.view = self.look()
        for name in sorted(self.view.timers("republish")):
            lease = self.name("lse")
            job = self.do("claim", lambda name=name, lease=lease: self.store.claim(name, lease))  # type: ignore[misc]
            if job is not None:
                self.work(Hand(job, lease))
        self.hangs_together()

    def work(self, hand: Hand) -> None:
        """One honest attempt, from wherever the job is."""
        sub = self.submission(hand)
        if hand.job.cancel_requested and not paid(sub):
            self.finish(hand, JobEvent.CANCELLED, twice=False)
            return
        if sub.get("outcome") == "lost" and sub["life"] == self.view.jobs[hand.job.id]["life"]:
            self.finish(hand, JobEvent.EXHAUSTED, twice=False)
            return
        if not paid(sub):
            name = self.name("sub")
            opening = self.do("open", lambda: self.store.open_submission(hand.job, name))
            if opening is Opening.DEADLINE:
                self.finish(hand, JobEvent.EXPIRED, twice=False)
                return
            if opening is not Opening.OPENED:
                assert opening in {
                    *(Opening.PERMIT, Opening.COOLDOWN, Opening.GATE),
                    *(Opening.BATCH, Opening.BUDGET),
                }, opening
                self.do("fenced", lambda: self.store.snooze(hand.job.id, hand.lease), hand=hand)
                return
            request_id = self.name("req")
            ref = RequestRef(request_id, "s", "r", "c")
            assert self.accept(name, ref, Source.REPLY, twice=False) is Acceptance.ACCEPTED
            self.fal.append(Request(ref, name, "", generated()))
        name = self.view.jobs[hand.job.id]["sub"]
        self.do("fact", lambda: self.store.finish_submission(name, generated(), None))
        assert self.finish(hand, JobEvent.COMPLETED, twice=False)
