"""A picture is never paid for twice, a paid one is carried on, and an ended job can begin anew: one promise a test."""

from __future__ import annotations

from decimal import Decimal

import pytest
from redis.asyncio import Redis

from darkroom.domain.errors import BlockedError, ConflictError, NotFoundError, ResultGoneError
from darkroom.domain.generation import GenerationFailed
from darkroom.domain.lifecycle import JobEvent, JobStatus, Place, Stage, SubmissionStatus
from darkroom.domain.policy import GRACE_SECONDS
from darkroom.ports import Acceptance, Opening, Settlement, Source, Wish
from tests.integration.store_kit import FAULT, LEASE_SECONDS, PICTURE, UNKNOWN_SECONDS, Kit

GONE = ResultGoneError("fal keeps a result an hour")


@pytest.fixture
async def kit(redis: Redis) -> Kit:
    """A store with one permit."""
    kit = Kit(redis)
    await kit.limit(1)
    return kit


# --- one open submission ----------------------------------------------------------------------------------------------


async def test_no_second_submission_opens_beside_an_open_or_a_paid_one(kit: Kit) -> None:
    worked = await kit.open(await kit.create())
    assert await kit.store.open_submission(worked.job, "sub_x") is Opening.OPEN
    await kit.accept(worked, "req_1")
    assert await kit.store.open_submission(worked.job, "sub_x") is Opening.OPEN
    await kit.store.finish_submission(worked.submission, PICTURE, None)
    assert await kit.store.open_submission(worked.job, "sub_x") is Opening.OPEN


async def test_a_lost_result_is_not_submitted_again_by_itself(kit: Kit) -> None:
    """The worker crashed between the fact and the job's end: the next one ends it, needing no permit."""
    worked = await kit.accepted(await kit.create())
    await kit.store.finish_submission(worked.submission, GONE, None)
    other = await kit.create()
    await kit.travel(LEASE_SECONDS + 1)
    await kit.store.rescue(worked.id, worked.lease)
    assert other in await kit.dispatched()
    job, lease = await kit.claim(worked.id)
    assert await kit.store.open_submission(job, "sub_x") is Opening.OPEN
    assert await kit.store.finish(job.id, lease, JobEvent.EXHAUSTED, GONE)


async def test_an_intent_that_was_closed_opens_nothing_when_its_call_is_repeated(kit: Kit) -> None:
    worked = await kit.open(await kit.create())
    assert await kit.store.open_submission(worked.job, worked.submission) is Opening.OPENED
    await kit.store.reject_submission(worked.submission, FAULT)
    assert await kit.store.open_submission(worked.job, worked.submission) is Opening.OPEN


async def test_a_permit_is_asked_for_again_after_a_bad_verdict(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    await kit.store.finish_submission(worked.submission, GenerationFailed(FAULT, None), None)
    assert await kit.store.open_submission(worked.job, "sub_x") is Opening.PERMIT


# --- facts ------------------------------------------------------------------------------------------------------------


async def test_a_second_request_id_is_recorded_as_a_double_charge(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    for _ in range(2):
        assert await kit.accept(worked, "req_2", Source.CALLBACK) is Acceptance.DOUBLE
    view = await kit.look()
    assert list(view.table("dr:double_charges")) == [f"{worked.submission}:req_2"]
    assert (await kit.get(worked.id)).submissions[0].late_request_id == "req_2"


async def test_an_acceptance_of_a_closed_submission_is_recorded_as_a_charge(kit: Kit) -> None:
    worked = await kit.doubted(await kit.create())
    assert await kit.store.settle(worked.submission, Settlement.RESUBMIT)
    before = await kit.look()
    assert await kit.accept(worked, "req_1", Source.CALLBACK) is Acceptance.LATE
    recorded = await kit.look()
    assert list(recorded.table("dr:double_charges")) == [f"{worked.submission}:req_1"]
    assert recorded.jobs == before.jobs, "it changes nothing else"
    assert await kit.accept(worked, "req_1", Source.CALLBACK) is Acceptance.LATE
    assert (await kit.look()).keys == recorded.keys


async def test_a_request_belongs_to_one_submission(kit: Kit) -> None:
    await kit.limit(2)
    first, second = await kit.accepted(await kit.create()), await kit.doubted(await kit.create())
    owned = f"req_{first.submission}"
    assert await kit.accept(second, owned, Source.LISTING) is Acceptance.OWNED
    assert (await kit.get(second.id)).stage is Stage.RECONCILING


async def test_a_request_found_by_listing_may_be_that_of_an_equal_job_that_still_waits_for_its_reply(kit: Kit) -> None:
    await kit.limit(2)
    same = {"prompt": "a poster", "seed": 7}
    lost, waiting = await kit.create(arguments=same), await kit.create(arguments=same)
    doubted, posting = await kit.doubted(lost), await kit.open(waiting)
    assert await kit.accept(doubted, "req_1", Source.LISTING) is Acceptance.BUSY
    assert await kit.accept(posting, "req_2", Source.REPLY) is Acceptance.ACCEPTED
    assert await kit.accept(doubted, "req_1", Source.LISTING) is Acceptance.ACCEPTED


async def test_the_first_verdict_and_its_bill_stand(kit: Kit) -> None:
    worked = await kit.generated(await kit.create())
    first = await kit.look()
    await kit.store.finish_submission(worked.submission, GONE, Decimal(1))
    assert (await kit.look()).keys == first.keys
    assert (await kit.get(worked.id)).submissions[0].cost_usd == Decimal("0.000032")


async def test_a_verdict_on_a_submission_that_fal_never_took_is_ignored(kit: Kit) -> None:
    worked = await kit.open(await kit.create())
    await kit.store.reject_submission(worked.submission, FAULT)
    before = await kit.look()
    await kit.store.finish_submission(worked.submission, PICTURE, Decimal(1))
    assert (await kit.look()).keys == before.keys


async def test_a_callback_makes_whoever_watches_the_job_look_now(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    async with kit.schedule.wishes() as wishes:
        await kit.accept(worked, f"req_{worked.submission}", Source.CALLBACK)
        assert await anext(wishes) == Wish(worked.id, cancel=False)


# --- doubt ------------------------------------------------------------------------------------------------------------


async def test_a_lost_reply_is_looked_for_at_once_and_again(kit: Kit) -> None:
    worked = await kit.doubted(await kit.create())
    assert await kit.schedule.tick() == [f"reconcile:{worked.id}"]
    assert await kit.schedule.tick() == [], "one looker at a time"
    assert await kit.store.settle(worked.submission, Settlement.LATER, delay=5)
    await kit.travel(6)
    assert await kit.schedule.tick() == [f"reconcile:{worked.id}"]
    assert (await kit.get(worked.id)).submissions[0].looks == 1


@pytest.mark.parametrize("settlement", [Settlement.ABSENT, Settlement.RESUBMIT])
async def test_after_the_doubt_the_job_submits_anew(kit: Kit, settlement: Settlement) -> None:
    worked = await kit.doubted(await kit.create())
    await kit.dispatched()
    assert await kit.store.settle(worked.submission, settlement)
    settled = await kit.look()
    assert await kit.store.settle(worked.submission, settlement), "a repeat is answered as the first"
    assert (await kit.look()).keys == settled.keys
    assert await kit.dispatched() == [worked.id]
    assert (await kit.open(worked.id)).submission != worked.submission


@pytest.mark.parametrize("way_out", ["callback", "cancel", "deadline", "operator"])
async def test_a_held_job_leaves_by_callback_cancellation_deadline_or_operator(kit: Kit, way_out: str) -> None:
    worked = await kit.doubted(await kit.create(deadline_seconds=600))
    assert await kit.store.settle(worked.submission, Settlement.HOLD)
    assert (await kit.get(worked.id)).stage is Stage.HELD
    match way_out:
        case "callback":
            await kit.accept(worked, "req_1", Source.CALLBACK)
        case "cancel":
            assert await kit.jobs.cancel(worked.id) is JobStatus.CANCELLED
        case "deadline":
            await kit.travel(601)
            assert f"deadline:{worked.id}" in await kit.schedule.tick()
            await kit.store.expire(worked.id)
        case _:
            assert await kit.store.settle(worked.submission, Settlement.FAIL)
    job = await kit.get(worked.id)
    assert job.place is (Place.REPUBLISH if way_out == "callback" else Place.NONE)
    if way_out in {"deadline", "operator"}:
        assert (job.error or {})["code"] == "outcome_unknown"
    if job.place is Place.NONE:
        assert await kit.permits() == set()
        assert job.submissions[0].status is SubmissionStatus.ABANDONED


async def test_a_cancellation_that_waited_for_the_reconciling_ends_the_job_instead_of_holding_it(kit: Kit) -> None:
    worked = await kit.doubted(await kit.create())
    assert await kit.jobs.cancel(worked.id) is JobStatus.QUEUED
    assert await kit.store.settle(worked.submission, Settlement.HOLD)
    assert (await kit.get(worked.id)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("way_back", ["snooze", "retry", "rescue"])
async def test_a_cancellation_that_waited_for_the_worker_does_not_wait_for_a_permit(kit: Kit, way_back: str) -> None:
    job, lease = await kit.claim(await kit.create())
    assert await kit.jobs.cancel(job.id) is JobStatus.RUNNING
    await kit.schedule.close_gate("job_other", BlockedError("no balance"))
    match way_back:
        case "snooze":
            assert await kit.store.snooze(job.id, lease)
            assert await kit.store.snooze(job.id, lease), "a repeat is answered as the first"
        case "retry":
            assert await kit.store.retry(job.id, lease, delay=60, error=FAULT, counts=True)
        case _:
            await kit.travel(LEASE_SECONDS + 1)
            assert await kit.store.rescue(job.id, lease)
    assert (await kit.get(job.id)).status is JobStatus.CANCELLED


# --- paid jobs --------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_job_only_while_nothing_is_paid(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create(deadline_seconds=60))
    unpaid = await kit.create(deadline_seconds=60)
    await kit.travel(61)
    await kit.schedule.tick()
    for name in (worked.id, unpaid):
        await kit.store.expire(name)
    assert (await kit.get(worked.id)).status is JobStatus.RUNNING
    job = await kit.get(unpaid)
    assert (job.status, (job.error or {})["code"]) == (JobStatus.FAILED, "deadline_exceeded")


async def test_a_bad_verdict_brings_the_deadline_back(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create(deadline_seconds=60))
    await kit.store.finish_submission(worked.submission, GenerationFailed(FAULT, None), None)
    await kit.store.retry(worked.id, worked.lease, delay=3600, error=FAULT, counts=True)
    await kit.travel(61)
    assert f"deadline:{worked.id}" in await kit.schedule.tick()


async def test_attempts_do_not_end_a_paid_job(kit: Kit) -> None:
    worked = await kit.generated(await kit.create())
    lease = worked.lease
    for _ in range(4):  # of two allowed
        assert await kit.store.retry(worked.id, lease, delay=1, error=FAULT, counts=True)
        assert (await kit.get(worked.id)).status is JobStatus.RETRYING
        await kit.travel(2)
        await kit.schedule.tick()
        _, lease = await kit.claim(worked.id)


async def test_the_grace_of_a_paid_job_ends(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    await kit.travel(GRACE_SECONDS + 1)
    assert f"deadline:{worked.id}" in await kit.schedule.tick()
    await kit.store.expire(worked.id)
    job = await kit.get(worked.id)
    assert (job.status, (job.error or {})["code"]) == (JobStatus.FAILED, "result_lost")
    assert await kit.permits() == set()


async def test_what_people_see_of_a_resumed_job_is_what_it_waits_for(kit: Kit) -> None:
    """A callback named the request before its own worker gave up waiting for the reply."""
    worked = await kit.open(await kit.create())
    await kit.accept(worked, "req_1", Source.CALLBACK)
    assert await kit.store.doubt(worked.id, worked.lease, worked.submission, FAULT)
    assert (await kit.get(worked.id)).stage is Stage.GENERATING


# --- replay and delete ------------------------------------------------------------------------------------------------


async def test_a_replay_resumes_what_was_paid(kit: Kit) -> None:
    worked = await kit.generated(await kit.create())
    await kit.store.finish(worked.id, worked.lease, JobEvent.EXHAUSTED, FAULT)
    await kit.dispatched()
    await kit.jobs.replay(worked.id, operation="op_1", accept_charge=False)
    await kit.jobs.replay(worked.id, operation="op_1", accept_charge=False)
    assert await kit.dispatched() == [worked.id]
    job = await kit.get(worked.id)
    assert (job.life, job.stage) == (1, Stage.COPYING)
    assert await kit.permits() == set()


@pytest.mark.parametrize("cause", ["unknown", "lost"])
async def test_a_replay_that_may_charge_again_wants_that_accepted(kit: Kit, cause: str) -> None:
    if cause == "unknown":
        worked = await kit.doubted(await kit.create())
        await kit.store.settle(worked.submission, Settlement.FAIL)
    else:
        worked = await kit.accepted(await kit.create())
        await kit.store.finish_submission(worked.submission, GONE, None)
        await kit.store.finish(worked.id, worked.lease, JobEvent.EXHAUSTED, GONE)
    with pytest.raises(ConflictError, match="accept_charge") as refused:
        await kit.jobs.replay(worked.id, operation="op_1", accept_charge=False)
    assert refused.value.code == "charge_not_accepted"
    await kit.jobs.replay(worked.id, operation="op_2", accept_charge=True)
    await kit.open(worked.id)


async def test_only_what_failed_or_was_cancelled_is_replayed(kit: Kit) -> None:
    worked = await kit.generated(await kit.create())
    for _ in range(2):
        with pytest.raises(ConflictError) as refused:
            await kit.jobs.replay(worked.id, operation="op_1", accept_charge=True)
        assert refused.value.code == "job_not_replayable"
        await kit.store.finish(worked.id, worked.lease, JobEvent.COMPLETED)


async def test_a_deleted_job_leaves_its_idempotency_key_its_events_and_its_names_at_fal(kit: Kit) -> None:
    before = set((await kit.look()).keys)
    worked = await kit.generated(await kit.create(idempotency="k1", webhook_url="https://example.com/hook"))
    await kit.accept(worked, "req_twice", Source.CALLBACK)
    with pytest.raises(ConflictError) as refused:
        await kit.jobs.delete(worked.id)
    assert refused.value.code == "job_not_ended"
    await kit.store.finish(worked.id, worked.lease, JobEvent.COMPLETED)
    await kit.jobs.delete(worked.id)
    view = await kit.look()
    kept = {"dr:idem:acct_a:k1", f"dr:request:req_{worked.submission}", "dr:request:req_twice"}
    assert kept <= view.expiring
    accounts = {"dr:events:acct_a", "dr:events:acct_a:seq", "dr:double_charges"}
    common = {
        key
        for key in view.keys
        if key in {"dr:turn", "dr:counts", "dr:outbox", "dr:pace"} or key.startswith("dr:usage:")
    }
    assert set(view.keys) - before == kept | accounts | common - before
    with pytest.raises(NotFoundError):
        await kit.jobs.delete(worked.id)


async def test_a_deleted_jobs_request_is_not_adopted_by_an_equal_job(kit: Kit) -> None:
    same = {"prompt": "a poster", "seed": 7}
    first = await kit.generated(await kit.create(arguments=same))
    await kit.store.finish(first.id, first.lease, JobEvent.COMPLETED)
    await kit.jobs.delete(first.id)
    second = await kit.doubted(await kit.create(arguments=same))
    assert await kit.accept(second, f"req_{first.submission}", Source.LISTING) is Acceptance.OWNED


async def test_deleting_a_job_does_not_free_what_may_still_run_at_fal(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    await kit.store.finish(worked.id, worked.lease, JobEvent.CANCELLED)
    await kit.jobs.delete(worked.id)
    assert await kit.permits() == {f"sub:{worked.submission}"}
    await kit.travel(UNKNOWN_SECONDS + 1)
    await kit.schedule.tick()
    assert await kit.permits() == set()


async def test_an_idempotency_key_lives_as_long_as_its_job(kit: Kit) -> None:
    name = await kit.create(idempotency="k1")
    key = "dr:idem:acct_a:k1"
    assert key not in (await kit.look()).expiring
    await kit.jobs.cancel(name)
    assert key in (await kit.look()).expiring
    await kit.jobs.replay(name, operation="op_1", accept_charge=False)
    assert key not in (await kit.look()).expiring
