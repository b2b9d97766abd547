"""What the store's scripts promise, one promise a test."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

import pytest
from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import script, transition_tables
from darkroom.domain.errors import BlockedError, DarkroomError, PermanentError, TransientError
from darkroom.domain.job import Artifact
from darkroom.domain.lifecycle import (
    DELIVERY,
    JOB,
    OPEN_SUBMISSION,
    SUBMISSION,
    TERMINAL,
    JobEvent,
    JobStatus,
    Lane,
    Place,
    Stage,
)
from darkroom.domain.policy import RESCUES_MAX
from darkroom.ports import Acceptance, Hold, Opening, Source
from tests.integration.store_kit import FAULT, LEASE_SECONDS, PICTURE, UNKNOWN_SECONDS, Kit, ref

NO_BALANCE = BlockedError("Exhausted balance", code="fal_out_of_balance")
SCRIPTS = Path(str(resources.files("darkroom.adapters.redis") / "lua"))
_LOOKS = {"read_jobs"}
_ADMISSIONS = {"create_job", "create_account", "create_key", "account_rate"} | {
    *("begin_upload", "create_batch", "add_batch_jobs"),
}
S3_DOWN = BlockedError("no such bucket", code="bucket_missing")


@pytest.fixture
async def kit(redis: Redis) -> Kit:
    """A store with one permit."""
    kit = Kit(redis)
    await kit.limit(1)
    return kit


# --- dispatch: whose turn it is ---------------------------------------------------------------------------------------


async def test_within_one_account_first_accepted_is_first_served(kit: Kit) -> None:
    await kit.limit(0)
    names = [await kit.create() for _ in range(4)]
    await kit.limit(4)
    await kit.schedule.dispatch()
    assert await kit.dispatched() == names


async def test_an_interactive_job_overtakes_every_bulk_one(kit: Kit) -> None:
    await kit.limit(0)
    bulk = [await kit.create(lane=Lane.BULK) for _ in range(3)]
    urgent = await kit.create(lane=Lane.INTERACTIVE)
    await kit.limit(2)
    await kit.schedule.dispatch()
    assert await kit.dispatched() == [urgent, bulk[0]]


async def test_accounts_take_turns_whatever_the_length_of_their_queues(kit: Kit) -> None:
    await kit.limit(0)
    many = [await kit.create("acct_a") for _ in range(5)]
    few = [await kit.create("acct_b") for _ in range(2)]
    await kit.limit(5)
    await kit.schedule.dispatch()
    assert await kit.dispatched() == [many[0], few[0], many[1], few[1], many[2]]


async def test_what_is_paid_goes_before_everything_and_needs_no_permit(kit: Kit) -> None:
    """Or a killed worker's jobs would hold all permits with nobody watching them."""
    worked = await kit.accepted(await kit.create())
    urgent = await kit.create()
    await kit.schedule.close_gate(urgent, NO_BALANCE)
    await kit.schedule.set_storage(S3_DOWN)
    await kit.dispatched()
    await kit.travel(LEASE_SECONDS + 1)
    assert await kit.store.rescue(worked.id, worked.lease)
    assert await kit.dispatched() == [worked.id]
    assert await kit.permits() == {f"sub:{worked.submission}"}


async def test_bulk_leaves_the_reserve_to_interactive_jobs(kit: Kit) -> None:
    await kit.limit(3, reserve=1)
    bulk = [await kit.create(lane=Lane.BULK) for _ in range(3)]
    assert await kit.dispatched() == bulk[:2]
    urgent = await kit.create()
    assert await kit.dispatched() == [urgent]


async def test_a_rate_spaces_submissions(kit: Kit) -> None:
    await kit.limit(5, rate_interval=60_000)
    first, second = await kit.create(), await kit.create()
    assert await kit.dispatched() == [first]
    wait = await kit.schedule.dispatch()
    assert wait is not None
    assert 50 < wait <= 60
    await kit.travel(60)
    await kit.schedule.dispatch()
    assert await kit.dispatched() == [second]


async def test_no_more_jobs_start_than_can_be_copied(kit: Kit) -> None:
    await kit.limit(5, copying=1)
    copying = await kit.generated(await kit.create())
    assert (await kit.get(copying.id)).stage is Stage.COPYING
    await kit.dispatched()
    waiting = await kit.create()
    assert await kit.dispatched() == []
    assert await kit.store.finish(copying.id, copying.lease, JobEvent.COMPLETED)
    assert await kit.dispatched() == [waiting]


async def test_a_message_that_got_lost_is_sent_again(kit: Kit) -> None:
    name = await kit.create()
    assert await kit.dispatched() == [name]
    await kit.travel(16)
    await kit.schedule.tick()
    assert await kit.dispatched() == [name]


# --- permits ----------------------------------------------------------------------------------------------------------


async def test_from_the_intent_on_the_permit_belongs_to_the_submission(kit: Kit) -> None:
    name = await kit.create()
    assert await kit.permits() == {f"job:{name}"}
    worked = await kit.open(name)
    assert await kit.permits() == {f"sub:{worked.submission}"}
    await kit.accept(worked, "req_1")
    await kit.store.finish_submission(worked.submission, PICTURE, None)
    assert await kit.permits() == set()


async def test_a_killed_worker_does_not_make_two_of_one(kit: Kit) -> None:
    worked = await kit.open(await kit.create())
    await kit.create()
    await kit.travel(LEASE_SECONDS + 1)
    assert await kit.store.rescue(worked.id, worked.lease)
    assert await kit.permits() == {f"sub:{worked.submission}"}


async def test_what_stays_unknown_frees_its_permit_once_it_cannot_be_running(kit: Kit) -> None:
    worked = await kit.doubted(await kit.create())
    await kit.travel(UNKNOWN_SECONDS - 5)
    await kit.schedule.tick()
    assert await kit.permits() == {f"sub:{worked.submission}"}
    await kit.travel(6)
    await kit.schedule.tick()
    assert await kit.permits() == set()
    assert (await kit.get(worked.id)).stage is Stage.RECONCILING


async def test_a_watched_request_keeps_its_permit_however_long_it_takes(kit: Kit) -> None:
    worked = await kit.accepted(await kit.create())
    for _ in range(3):
        await kit.travel(UNKNOWN_SECONDS + 60)
        await kit.schedule.tick()
    assert await kit.permits() == {f"sub:{worked.submission}"}


async def test_a_job_that_ended_without_a_verdict_frees_its_permit_by_the_timer(kit: Kit) -> None:
    """Cancelled while it ran, or its workers crashed: nobody is left who would say when fal was done."""
    worked = await kit.accepted(await kit.create())
    assert await kit.store.finish(worked.id, worked.lease, JobEvent.CANCELLED)
    assert await kit.permits() == {f"sub:{worked.submission}"}
    await kit.travel(UNKNOWN_SECONDS + 1)
    await kit.schedule.tick()
    assert await kit.permits() == set()


# --- the gate, the cooldown, storage ----------------------------------------------------------------------------------


async def gate(kit: Kit) -> dict[str, str]:
    return (await kit.look()).table("dr:gate:fal")


async def test_a_closed_gate_lets_one_probe_pass_at_growing_distances(kit: Kit) -> None:
    await kit.limit(3)
    met = await kit.open(await kit.create())
    await kit.store.reject_submission(met.submission, NO_BALANCE)
    await kit.schedule.close_gate(met.id, NO_BALANCE)
    await kit.dispatched()
    for distance in (5, 10, 20, 40, 60, 60):
        assert int((await gate(kit))["delay"]) == distance * 1000
        await kit.create()
        assert await kit.dispatched() == []
        await kit.travel(distance + 1)
        await kit.schedule.tick()
        probes = await kit.dispatched()
        assert len(probes) == 1, "one probe at a time"
        probe = await kit.open(probes[0])
        await kit.store.reject_submission(probe.submission, NO_BALANCE)
        await kit.schedule.close_gate(probe.id, NO_BALANCE)
        await kit.store.snooze(probe.id, probe.lease)
    jobs = (await kit.look()).jobs.values()
    assert {job["attempts"] for job in jobs} <= {"0", "1"}, "it costs nobody an attempt"
    assert JobStatus.FAILED not in {job["status"] for job in jobs}


@pytest.mark.parametrize("opens", ["accepted", "judged"])
async def test_the_gate_opens_when_fal_takes_or_judges_a_submission(kit: Kit, opens: str) -> None:
    probe = await kit.open(await kit.create())
    await kit.schedule.close_gate("job_other", NO_BALANCE)
    if opens == "accepted":
        await kit.accept(probe, "req_1", Source.REPLY)
    else:
        await kit.store.reject_submission(probe.submission, PermanentError("prompt is missing"))
    assert await gate(kit) == {}


@pytest.mark.parametrize("error", [TransientError("connection refused", code="not_sent"), NO_BALANCE])
async def test_a_probe_that_never_reached_fal_leaves_the_gate_closed(kit: Kit, error: DarkroomError) -> None:
    probe = await kit.open(await kit.create())
    await kit.schedule.close_gate("job_other", NO_BALANCE)
    await kit.store.reject_submission(probe.submission, error)
    assert (await gate(kit))["reason"] == "fal_out_of_balance"


@pytest.mark.parametrize("source", [Source.CALLBACK, Source.LISTING])
async def test_news_of_an_earlier_submission_does_not_open_the_gate(kit: Kit, source: Source) -> None:
    worked = await kit.doubted(await kit.create())
    await kit.schedule.close_gate("job_other", NO_BALANCE)
    assert await kit.accept(worked, "req_1", source) is Acceptance.ACCEPTED
    assert await gate(kit) != {}


async def test_what_was_on_its_way_when_the_gate_closed_does_not_move_it(kit: Kit) -> None:
    await kit.schedule.close_gate("job_1", NO_BALANCE)
    closed = await gate(kit)
    await kit.schedule.close_gate("job_2", NO_BALANCE)
    assert await gate(kit) == closed


async def test_the_operator_opens_the_gate(kit: Kit) -> None:
    await kit.schedule.close_gate("job_1", NO_BALANCE)
    name = await kit.create()
    assert await kit.dispatched() == []
    await kit.schedule.open_gate()
    assert await kit.dispatched() == [name]


async def test_a_cooldown_stops_everyone_and_the_longer_one_stays(kit: Kit) -> None:
    job, _ = await kit.claim(await kit.create())
    await kit.schedule.cool_down(60)
    await kit.schedule.cool_down(1)
    assert await kit.store.open_submission(job, "sub_x") is Opening.COOLDOWN
    await kit.travel(30)
    assert await kit.store.open_submission(job, "sub_x") is Opening.COOLDOWN
    await kit.travel(31)
    assert await kit.store.open_submission(job, "sub_x") is Opening.OPENED


async def test_while_pictures_cannot_be_stored_nothing_is_submitted(kit: Kit) -> None:
    await kit.limit(2)
    job, _ = await kit.claim(await kit.create())
    await kit.schedule.set_storage(S3_DOWN)
    assert await kit.store.open_submission(job, "sub_x") is Opening.STORAGE
    await kit.dispatched()
    waiting = await kit.create()
    assert await kit.dispatched() == []
    await kit.travel(21)  # the gate holds 20 s: who closed it must go on saying so
    await kit.schedule.tick()
    assert waiting in await kit.dispatched()
    await kit.schedule.set_storage(S3_DOWN)
    await kit.schedule.set_storage(None)
    assert await kit.store.open_submission(job, "sub_x") is Opening.OPENED


# --- the lease --------------------------------------------------------------------------------------------------------


async def test_a_job_is_claimed_once_whatever_the_number_of_messages(kit: Kit) -> None:
    name = await kit.create()
    job, lease = await kit.claim(name)
    assert await kit.store.claim(name, "lse_other") is None
    assert await kit.store.claim(name, lease) == job, "the same worker asking again"


async def test_a_zombie_moves_nothing_and_is_told_so(kit: Kit) -> None:
    await kit.limit(2)
    worked = await kit.generated(await kit.create())
    await kit.travel(LEASE_SECONDS + 1)
    await kit.store.rescue(worked.id, worked.lease)
    _, lease = await kit.claim(worked.id)
    artifact = Artifact(0, "k", "image/png", 1, 1, 1, "ab", 7, has_nsfw_concepts=False, blank=False)
    for attempt in (
        kit.store.finish(worked.id, worked.lease, JobEvent.COMPLETED),
        kit.store.snooze(worked.id, worked.lease),
        kit.store.retry(worked.id, worked.lease, delay=0, error=FAULT, counts=True),
        kit.store.doubt(worked.id, worked.lease, worked.submission, FAULT),
        kit.store.keep_artifact(worked.id, worked.lease, artifact),
    ):
        assert await attempt is False
    assert await kit.store.heartbeat([(worked.id, worked.lease), (worked.id, lease)]) == [Hold.LOST, Hold.HELD]
    assert (await kit.get(worked.id)).lease == lease


async def test_a_zombie_is_told_so_even_before_another_worker_came(kit: Kit) -> None:
    worked = await kit.generated(await kit.create())
    await kit.travel(LEASE_SECONDS + 1)
    await kit.store.rescue(worked.id, worked.lease)
    assert await kit.store.finish(worked.id, worked.lease, JobEvent.COMPLETED) is False
    assert (await kit.get(worked.id)).status is JobStatus.QUEUED


async def test_a_frozen_workers_request_id_is_taken_from_it(kit: Kit) -> None:
    """It is the most valuable fact there is: the job resumes this request instead of being submitted again."""
    worked = await kit.open(await kit.create())
    await kit.travel(LEASE_SECONDS + 1)
    await kit.store.rescue(worked.id, worked.lease)
    assert (await kit.get(worked.id)).stage is Stage.RECONCILING
    await kit.dispatched()
    assert await kit.accept(worked, "req_1") is Acceptance.ACCEPTED
    assert await kit.dispatched() == [worked.id]
    assert (await kit.claim(worked.id))[0].stage is Stage.GENERATING


async def test_a_frozen_worker_that_never_sent_anything_settles_the_doubt(kit: Kit) -> None:
    worked = await kit.open(await kit.create())
    await kit.travel(LEASE_SECONDS + 1)
    await kit.store.rescue(worked.id, worked.lease)
    await kit.dispatched()
    await kit.store.reject_submission(worked.submission, TransientError("frozen", code="not_sent"))
    assert await kit.dispatched() == [worked.id]
    assert await kit.permits() == {f"job:{worked.id}"}


async def test_only_an_expired_lease_is_rescued(kit: Kit) -> None:
    job, lease = await kit.claim(await kit.create())
    assert await kit.store.rescue(job.id, lease) is False
    await kit.travel(LEASE_SECONDS + 1)
    assert await kit.store.heartbeat([(job.id, lease)]) == [Hold.HELD]
    assert await kit.store.rescue(job.id, lease) is False


async def test_ten_rescues_without_progress_end_a_job(kit: Kit) -> None:
    name = await kit.create()
    for _ in range(RESCUES_MAX):
        assert (await kit.get(name)).status is JobStatus.QUEUED
        _, lease = await kit.claim(name)
        await kit.travel(LEASE_SECONDS + 1)
        assert await kit.store.rescue(name, lease)
    job = await kit.get(name)
    assert (job.status, (job.error or {})["code"]) == (JobStatus.FAILED, "worker_crashed")


async def test_progress_starts_the_count_of_rescues_anew(kit: Kit) -> None:
    name = await kit.create()
    for turn in range(RESCUES_MAX + 3):
        _, lease = await kit.claim(name)
        if turn == 5:
            job = await kit.get(name)
            await kit.store.open_submission(job, "sub_x")
            await kit.store.accept_submission("sub_x", ref("req_1"), Source.REPLY)
        await kit.travel(LEASE_SECONDS + 1)
        assert await kit.store.rescue(name, lease)
    assert (await kit.get(name)).status is JobStatus.QUEUED


@pytest.mark.parametrize("exit_", ["snooze", "retry", "finish"])
async def test_while_a_post_may_be_on_its_way_only_doubt_takes_the_job_from_its_worker(kit: Kit, exit_: str) -> None:
    """Any other exit would leave an intent that nobody reconciles, and a permit with it."""
    worked = await kit.open(await kit.create())
    exits: dict[str, Callable[[], Awaitable[bool]]] = {
        "snooze": lambda: kit.store.snooze(worked.id, worked.lease),
        "retry": lambda: kit.store.retry(worked.id, worked.lease, delay=0, error=FAULT, counts=True),
        "finish": lambda: kit.store.finish(worked.id, worked.lease, JobEvent.EXHAUSTED, FAULT),
    }
    assert await exits[exit_]() is False
    assert (await kit.get(worked.id)).place is Place.LEASE
    assert await kit.store.doubt(worked.id, worked.lease, worked.submission, FAULT)


# --- the tables -------------------------------------------------------------------------------------------------------


async def test_the_scripts_have_the_domains_tables(redis: Redis) -> None:
    """Read back from the server that runs them, not from the text that was generated."""
    tail = "return cjson.encode({ EDGES.job, EDGES.submission, EDGES.delivery, TERMINAL, OPEN })"
    answer = json.loads(await redis.eval(transition_tables() + tail, 0))
    assert answer[0] == {state: dict(exits) for state, exits in JOB.items()}
    assert answer[1] == {state: dict(exits) for state, exits in SUBMISSION.items()}
    assert answer[2] == {state: dict(exits) for state, exits in DELIVERY.items()}
    assert [set(names) for names in answer[3:]] == [set(TERMINAL), set(OPEN_SUBMISSION)]


@pytest.mark.parametrize(
    "name", sorted(file.stem for file in SCRIPTS.glob("*.lua") if file.stem not in {"lib", "batches"})
)
async def test_every_script_compiles_and_says_what_it_may_do_when_memory_runs_out(redis: Redis, name: str) -> None:
    source, sha = script(name)
    assert await redis.script_load(source) == sha
    flags = " flags=no-writes" if name in _LOOKS else "" if name in _ADMISSIONS else " flags=allow-oom"
    assert source.startswith(f"#!lua{flags}\n")
