"""The store's state machine with batches among the jobs: their counters and money hang together at every step."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from darkroom.adapters.redis.batches import RedisBatches
from darkroom.domain.batch import NewBatch, OnInvalid, batch_job_id
from darkroom.domain.errors import ConflictError
from darkroom.domain.krea import MODEL
from darkroom.domain.lifecycle import BatchStatus
from darkroom.ports import BatchJob
from tests.integration.test_store_machine import EXAMPLES, PICK, TWICE, Store

PRICE: Final = Decimal("0.008")
BATCHES: Final = st.fixed_dictionaries(
    {
        "jobs": st.integers(1, 3),
        "budget": st.sampled_from([None, None, 1, 2]),
        "canary": st.sampled_from([None, None, 1]),
        "finish_by": st.sampled_from([None, None, 60]),
        "webhook": st.booleans(),
    }
)


class BatchStore(Store):
    """What may happen to batches, besides."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = RedisBatches(self.redis)

    @initialize(asked=BATCHES)
    def begin_with_a_batch(self, asked: dict[str, Any]) -> None:
        self.take_in(asked, twice=False)

    @rule(asked=BATCHES, twice=TWICE)
    def take_in(self, asked: dict[str, Any], *, twice: bool) -> None:
        now = self.await_(self.batches.now())
        new = NewBatch(
            id=self.name("batch"),
            account_id="acct_a",
            name="",
            on_invalid=OnInvalid.REJECT,
            budget_usd=asked["budget"] and asked["budget"] * PRICE,
            not_before=None,
            finish_by=asked["finish_by"] and now + asked["finish_by"] * 1000,
            webhook_url="https://shop.example" if asked["webhook"] else None,
            canary=asked["canary"],
            canary_max_failures=None,
            lines=asked["jobs"],
            bytes=0,
        )
        jobs = [
            BatchJob(
                batch_job_id(new.id, n), n, None, {"prompt": new.id, "seed": n}, {}, PRICE, canary=n == asked["canary"]
            )
            for n in range(1, asked["jobs"] + 1)
        ]
        facts: dict[str, Any] = {"valid": len(jobs), "invalid": 0, "pictures": len(jobs), "last_line": len(jobs)}
        self.do("create", lambda: self.batches.create(new, "token"), twice=twice)
        self.do("judge", lambda: self.batches.judge(new.id, good=True, estimate_usd=PRICE, mistakes=[], **facts))
        self.do("add", lambda: self.batches.add_jobs(new.id, MODEL, jobs, up_to_line=len(jobs)))
        self.do("start", lambda: self.batches.start(new.id), twice=twice)

    @precondition(lambda self: self.view.batches)
    @rule(
        pick=PICK,
        what=st.sampled_from(["pause", "resume", "resume", "cancel", "drain", "drain", "finish"]),
        twice=TWICE,
    )
    def steer(self, pick: int, what: str, *, twice: bool) -> None:
        self.apply(self.choose(pick, sorted(self.view.batches)), what, twice=twice)

    @precondition(lambda self: self.view.batches)
    @rule(pick=PICK)
    def retry_failed(self, pick: int) -> None:
        name = self.choose(pick, sorted(self.view.batches))
        operation = self.name("op")

        async def retry() -> None:
            try:
                await self.batches.retry_failed(name, operation=operation, code=None, accept_charge=True)
            except ConflictError:
                return
            await self.batches.replay(name, self.ids(name), up_to_line=3, last=True)

        self.await_(retry())
        self.view = self.look()

    def ids(self, name: str) -> list[str]:
        return [batch_job_id(name, n) for n in range(1, int(self.view.batches[name]["added"]) + 1)]

    def apply(self, name: str, what: str, *, twice: bool) -> None:
        ids = self.ids(name)

        async def act() -> object:
            try:
                if what == "resume":
                    await self.batches.resume(name, None)
                    return None
                if what == "drain":
                    return await self.batches.drain(name, ids, up_to_line=len(ids), last=True)
                return await getattr(self.batches, what)(name)
            except ConflictError as exc:
                return exc.code

        self.do(what, act, twice=twice and what not in {"drain", "resume"})

    def teardown(self) -> None:
        """Its owner resumes what is paused, with money enough, and workers do what timers ask: all batches end."""
        self.await_(self.schedule.set_storage(None))
        for name, batch in sorted(self.view.batches.items()):
            if batch["status"] in {"paused", "queued", "running"}:
                self.await_(self.batches.resume(name, 100 * PRICE))
        self.view = self.look()
        super().teardown()

    def honest_round(self) -> None:
        super().honest_round()
        for name, batch in sorted(self.view.batches.items()):
            if batch["status"] == BatchStatus.PAUSED:
                self.await_(self.batches.resume(name, 100 * PRICE))
            elif batch["status"] == BatchStatus.CANCELLING:
                self.apply(name, "drain", twice=False)
        self.view = self.look()


@pytest.mark.timeout(0)
def test_batches_hang_together_in_any_order(valkey_url: str) -> None:
    machine = type("BatchStoreHere", (BatchStore,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, EXAMPLES // 2),
            stateful_step_count=40,
            deadline=None,
            derandomize="DARKROOM_MACHINE_EXAMPLES" not in os.environ,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
