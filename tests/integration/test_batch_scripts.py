"""What the store promises about batches, script by script, on a real Valkey."""

from __future__ import annotations

from decimal import Decimal

import pytest
from redis.asyncio import Redis

from darkroom.domain.batch import batch_job_id, line_of
from darkroom.domain.errors import ConflictError, PermanentError
from darkroom.domain.generation import GenerationFailed
from darkroom.domain.lifecycle import BatchStatus, JobEvent, JobStatus, Lane
from darkroom.ports import JobQuery, Opening
from tests.integration.batch_kit import PRICE, BatchKit
from tests.integration.store_kit import PICTURE

REFUSED = PermanentError("the prompt is refused")


@pytest.fixture
async def kit(redis: Redis) -> BatchKit:
    made = BatchKit(redis)
    await made.limit(2)
    return made


async def test_nothing_runs_before_the_whole_intake_is_in(kit: BatchKit) -> None:
    batch_id = await kit.upload(3, made=2)
    await kit.schedule.dispatch()
    assert await kit.dispatched() == []
    assert (await kit.batches.start(batch_id)) is BatchStatus.VALIDATING, "one job is missing"
    await kit.make(batch_id, range(1, 4))
    assert (await kit.see(batch_id)).counts.total == 3, "what was there is left alone"
    await kit.batches.start(batch_id)
    assert await kit.dispatched() == [batch_job_id(batch_id, 1), batch_job_id(batch_id, 2)]
    assert (await kit.see(batch_id)).status is BatchStatus.RUNNING


async def test_a_job_is_named_by_batch_and_line() -> None:
    batch_id = "batch_01kgdsd9g0v4hznbx7c1q2w3e4"
    assert line_of(batch_job_id(batch_id, 99_999)) == 99_999
    names = [batch_job_id(batch_id, line) for line in (1, 2, 1000, 65_536)]
    assert sorted(names) == names


async def test_it_ends_when_its_last_job_has_and_its_owner_is_told_once(kit: BatchKit) -> None:
    batch_id = await kit.batch(2, webhook_url="https://shop.example/hooks")
    await kit.succeed(batch_job_id(batch_id, 1))
    worked = await kit.accepted(batch_job_id(batch_id, 2))
    await kit.store.finish_submission(worked.submission, GenerationFailed(REFUSED, None), None)
    await kit.store.finish(worked.id, worked.lease, JobEvent.REJECTED, REFUSED)
    assert f"outcome:{batch_id}" in await kit.due()
    await kit.batches.finish(batch_id)
    await kit.batches.finish(batch_id)
    batch = await kit.see(batch_id)
    assert batch.status is BatchStatus.COMPLETED
    assert (batch.counts.succeeded, batch.counts.failed) == (1, 1)
    assert [(cause.code, cause.count) for cause in batch.causes] == [("rejected_by_fal", 1)]
    deliveries = [key for key in (await kit.look()).keys if key.startswith("dr:delivery:")]
    assert len(deliveries) == 1
    view = await kit.look()
    assert view.table(deliveries[0])["type"] == "batch.completed"


async def test_a_paused_batch_submits_nothing_and_goes_on_when_resumed(kit: BatchKit) -> None:
    batch_id = await kit.batch(4)
    first, second = await kit.dispatched()
    worked = await kit.accepted(first)
    job, lease = await kit.claim(second)
    await kit.batches.pause(batch_id)
    assert await kit.store.open_submission(job, kit.name("sub")) is Opening.BATCH
    await kit.store.snooze(job.id, lease)
    await kit.store.finish_submission(worked.submission, GenerationFailed(REFUSED, None), None)
    await kit.store.finish(worked.id, worked.lease, JobEvent.REJECTED, REFUSED)
    assert await kit.dispatched() == []
    assert (await kit.see(batch_id)).status is BatchStatus.PAUSED
    await kit.batches.resume(batch_id, None)
    assert len(await kit.dispatched()) == 2


async def test_a_cancelled_batch_ends_what_is_not_paid_and_lets_the_rest_finish(kit: BatchKit) -> None:
    batch_id = await kit.batch(5)
    first, second = await kit.dispatched()
    worked = await kit.accepted(first)
    claimed, lease = await kit.claim(second)
    await kit.batches.cancel(batch_id)
    assert f"drain:{batch_id}" in await kit.due()
    await kit.drained(batch_id)
    assert (await kit.see(batch_id)).counts.cancelled == 3
    assert await kit.store.open_submission(claimed, kit.name("sub")) is Opening.BATCH
    await kit.store.snooze(claimed.id, lease)
    assert (await kit.get(second)).error == {
        "code": "batch_cancelled",
        "message": "its batch was cancelled before this job was paid",
    }
    await kit.store.finish_submission(worked.submission, GenerationFailed(REFUSED, None), None)
    await kit.store.finish(worked.id, worked.lease, JobEvent.REJECTED, REFUSED)
    assert f"outcome:{batch_id}" in await kit.due()
    assert await kit.batches.finish(batch_id) is BatchStatus.CANCELLED
    await kit.see(batch_id)


async def test_cancelled_in_the_middle_of_its_intake_nothing_is_left(kit: BatchKit) -> None:
    batch_id = await kit.upload(3, made=1)
    await kit.batches.cancel(batch_id)
    assert not await kit.make(batch_id, range(2, 4)), "the intake is over"
    await kit.drained(batch_id)
    assert await kit.batches.finish(batch_id) is BatchStatus.CANCELLED
    assert (await kit.see(batch_id)).counts.cancelled == 1


async def test_not_before_holds_it_and_finish_by_ends_it(kit: BatchKit) -> None:
    now = await kit.batches.now()
    batch_id = await kit.batch(3, not_before=now + 60_000, finish_by=now + 120_000)
    assert (await kit.see(batch_id)).status_reason == "not_before"
    assert await kit.dispatched() == []
    await kit.travel(61)
    await kit.due()
    first, second = await kit.dispatched()
    await kit.succeed(first)
    (third,) = await kit.dispatched()
    await kit.travel(60)
    job, lease = await kit.claim(second)
    assert await kit.store.open_submission(job, kit.name("sub")) is Opening.BATCH, (
        "even before anybody looked at the time"
    )
    await kit.due()
    await kit.store.snooze(job.id, lease)
    await kit.drained(batch_id)
    assert (await kit.get(third)).error == {
        "code": "batch_expired",
        "message": "its batch's finish_by passed before this job was paid",
    }
    assert await kit.batches.finish(batch_id) is BatchStatus.EXPIRED
    assert (await kit.see(batch_id)).counts.cancelled == 2


async def test_a_budget_is_never_exceeded_and_used_up_to_the_last_cent(kit: BatchKit) -> None:
    await kit.limit(4)
    batch_id = await kit.batch(6, budget_usd=3 * PRICE)
    names = await kit.dispatched()
    opened = [await kit.accepted(name) for name in names[:3]]
    job, lease = await kit.claim(names[3])
    assert await kit.store.open_submission(job, kit.name("sub")) is Opening.BUDGET
    await kit.store.snooze(job.id, lease)
    assert (await kit.see(batch_id)).status is BatchStatus.RUNNING, "one of the three may yet cost nothing"
    await kit.store.finish_submission(opened[0].submission, GenerationFailed(REFUSED, None), None)
    await kit.store.finish(opened[0].id, opened[0].lease, JobEvent.REJECTED, REFUSED)
    again = await kit.dispatched()
    assert again, "it cost nothing, so another may go"
    await kit.accepted(again[0])
    for name in again[1:]:
        job, lease = await kit.claim(name)
        assert await kit.store.open_submission(job, kit.name("sub")) is Opening.BUDGET
        await kit.store.snooze(job.id, lease)
    view = await kit.look()
    for worked in view.submissions_of(names[1]) + view.submissions_of(names[2]) + view.submissions_of(again[0]):
        await kit.store.finish_submission(worked[0], PICTURE, PRICE)
    batch = await kit.see(batch_id)
    assert (batch.status, batch.status_reason) == (BatchStatus.PAUSED, "budget")
    assert batch.spent_usd == 3 * PRICE
    with pytest.raises(ConflictError, match="used up"):
        await kit.batches.resume(batch_id, None)
    await kit.batches.resume(batch_id, 6 * PRICE)
    assert (await kit.see(batch_id)).status in {BatchStatus.QUEUED, BatchStatus.RUNNING}


async def test_a_bill_above_its_bound_raises_the_factor_and_pauses(kit: BatchKit) -> None:
    batch_id = await kit.batch(5, budget_usd=5 * PRICE)
    first, _ = await kit.dispatched()
    await kit.succeed(first, cost=Decimal("0.012"))
    batch = await kit.batches.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.status_reason) == (BatchStatus.PAUSED, "bill_above_bound")
    await kit.batches.resume(batch_id, None)
    name = (await kit.dispatched())[0]
    await kit.open(name)
    batch = await kit.see(batch_id)
    assert batch.reserved_usd == Decimal("0.012")


async def test_an_unknown_outcome_keeps_its_reservation(kit: BatchKit) -> None:
    batch_id = await kit.batch(2, budget_usd=2 * PRICE)
    first, _ = await kit.dispatched()
    await kit.doubted(first)
    assert (await kit.see(batch_id)).reserved_usd == PRICE


async def test_a_canary_goes_first_and_waits_for_approval(kit: BatchKit) -> None:
    batch_id = await kit.batch(4, canary=1)
    (first,) = await kit.dispatched()
    assert line_of(first) == 1
    await kit.succeed(first)
    batch = await kit.see(batch_id)
    assert (batch.status, batch.status_reason) == (BatchStatus.PAUSED, "canary")
    assert await kit.dispatched() == []
    await kit.batches.resume(batch_id, None)
    assert len(await kit.dispatched()) == 2


async def test_a_canary_that_failed_little_goes_on_by_itself(kit: BatchKit) -> None:
    batch_id = await kit.batch(4, canary=1, canary_max_failures=0.0)
    (first,) = await kit.dispatched()
    await kit.succeed(first)
    assert (await kit.see(batch_id)).status is BatchStatus.RUNNING
    assert len(await kit.dispatched()) == 2


async def test_retry_failed_opens_an_ended_batch_again(kit: BatchKit) -> None:
    batch_id = await kit.batch(1)
    (name,) = await kit.dispatched()
    worked = await kit.accepted(name)
    await kit.store.finish_submission(worked.submission, GenerationFailed(REFUSED, None), None)
    await kit.store.finish(worked.id, worked.lease, JobEvent.REJECTED, REFUSED)
    await kit.batches.finish(batch_id)
    await kit.batches.retry_failed(batch_id, operation="op_1", code="another", accept_charge=False)
    await kit.batches.replay(batch_id, [name], up_to_line=1, last=True)
    assert (await kit.see(batch_id)).status is BatchStatus.COMPLETED, "none had that code"
    await kit.batches.retry_failed(batch_id, operation="op_2", code="rejected_by_fal", accept_charge=False)
    await kit.batches.replay(batch_id, [name], up_to_line=1, last=True)
    assert (await kit.see(batch_id)).status is BatchStatus.RUNNING
    assert (await kit.see(batch_id)).causes == ()
    await kit.succeed(name)
    assert await kit.batches.finish(batch_id) is BatchStatus.COMPLETED
    assert (await kit.see(batch_id)).counts.succeeded == 1


async def test_an_urgent_job_goes_before_the_batch_and_batches_take_turns(kit: BatchKit) -> None:
    await kit.limit(1)
    one = await kit.batch(2)
    other = await kit.batch(2)
    (first,) = await kit.dispatched()
    urgent = await kit.create(lane=Lane.INTERACTIVE)
    await kit.succeed(first)
    assert await kit.dispatched() == [urgent]
    await kit.succeed(urgent)
    served = {first}
    for _ in range(2):
        (name,) = await kit.dispatched()
        served.add(name)
        await kit.succeed(name)
    assert {batch_job_id(one, 1), batch_job_id(other, 1)} <= served


async def test_jobs_are_listed_by_batch_newest_first(kit: BatchKit) -> None:
    batch_id = await kit.batch(5)
    page = await kit.jobs.page(JobQuery("acct_a", batch_id=batch_id, limit=3))
    assert [job.line for job in page.jobs] == [5, 4, 3]
    page = await kit.jobs.page(JobQuery("acct_a", batch_id=batch_id, limit=3, before=page.next))
    assert [job.line for job in page.jobs] == [2, 1]
    assert page.next is None
    page = await kit.jobs.page(JobQuery("acct_a", batch_id=batch_id, status=JobStatus.SUCCEEDED))
    assert page.jobs == ()
    assert (await kit.jobs.page(JobQuery("acct_b", batch_id=batch_id))).jobs == ()


async def test_an_uploads_key_is_its_own_until_it_ends(kit: BatchKit) -> None:
    assert not (await kit.batches.begin_upload("acct_a", "k", "one", 60)).busy
    assert (await kit.batches.begin_upload("acct_a", "k", "two", 60)).busy
    await kit.batches.end_upload("acct_a", "k", "one")
    assert not (await kit.batches.begin_upload("acct_a", "k", "two", 60)).busy
    batch_id = await kit.upload(1, idempotency="k", fingerprint="f")
    assert (await kit.batches.get(batch_id)) is None, "another holds the key"
