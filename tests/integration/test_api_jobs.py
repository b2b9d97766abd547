"""Jobs through the door: accept, repeat, wait, list, cancel, replay, delete."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from darkroom.adapters.s3 import S3Bucket
from darkroom.domain.ids import new_id
from infra.local.seaweedfs import SeaweedFS
from tests.integration.api_door import PROMPT, Door, Hand, opened, served, somebody_waits, until


@pytest.fixture
async def door(redis: Redis, valkey_url: str) -> AsyncIterator[Door]:  # noqa: ARG001 - an empty database
    async with opened(valkey_url) as it:
        yield it


async def test_an_accepted_job_is_stored_with_its_seed_and_its_price(door: Door) -> None:
    answer = await door.client.post(
        "/v1/jobs", json={"input": {"prompt": "Mars", "image_size": "portrait_16_9", "num_images": 2}, "lane": "bulk"}
    )
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["stage"] == "waiting_for_slot"
    assert job["lane"] == "bulk"
    assert isinstance(job["input"]["seed"], int)
    assert job["cost"] == {"estimated_usd": 0.009437184, "actual_usd": None, "billable_units": None}
    assert (await door.client.get(answer.headers["location"])).json() == job


async def test_metadata_and_deadline_come_back(door: Door) -> None:
    job = await door.create(metadata={"order": "4711"}, deadline_seconds=60)
    assert job["metadata"] == {"order": "4711"}
    deadline, created = (datetime.fromisoformat(job[name]) for name in ("deadline_at", "created_at"))
    assert (deadline - created).total_seconds() == 60


async def test_the_default_deadline_is_the_deployments(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with opened(valkey_url, job_deadline_seconds=90) as door:
        job = await door.create()
    deadline, created = (datetime.fromisoformat(job[name]) for name in ("deadline_at", "created_at"))
    assert (deadline - created).total_seconds() == 90


@pytest.mark.parametrize(("first", "second"), [("order-1", '"order-1"'), ('"a b"', '"a b"'), ('"a\\"b"', '"a\\"b"')])
async def test_the_same_key_and_request_give_the_same_job(door: Door, first: str, second: str) -> None:
    request = {**PROMPT, "metadata": {"a": "1", "b": "2"}}
    same = {"metadata": {"b": "2", "a": "1"}, **PROMPT}
    one = await door.client.post("/v1/jobs", json=request, headers={"Idempotency-Key": first})
    two = await door.client.post("/v1/jobs", json=same, headers={"Idempotency-Key": second})
    assert one.json()["id"] == two.json()["id"]
    assert one.json()["input"]["seed"] == two.json()["input"]["seed"]
    assert "idempotent-replayed" not in one.headers
    assert two.headers["idempotent-replayed"] == "true"
    assert two.status_code == 202


async def test_a_key_that_came_with_another_request_is_refused(door: Door) -> None:
    await door.client.post("/v1/jobs", json=PROMPT, headers={"Idempotency-Key": "k"})
    other = {"input": {"prompt": "something else"}}
    answer = await door.client.post("/v1/jobs", json=other, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


async def test_many_at_once_with_one_key_make_one_job(door: Door) -> None:
    answers = await asyncio.gather(
        *(door.client.post("/v1/jobs", json=PROMPT, headers={"Idempotency-Key": "k"}) for _ in range(20))
    )
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


async def test_a_repeat_for_a_deleted_job_does_not_render_again(door: Door) -> None:
    created = await door.client.post("/v1/jobs", json=PROMPT, headers={"Idempotency-Key": "k"})
    job_id = created.json()["id"]
    await door.client.post(f"/v1/jobs/{job_id}/cancel")
    await door.services.jobs.delete(job_id)
    answer = await door.client.post("/v1/jobs", json=PROMPT, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (409, "job_deleted")


async def test_prefer_wait_answers_with_the_finished_job(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with served(valkey_url) as door:
        asking = asyncio.create_task(door.client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "wait=20"}))

        async def stored() -> bool:
            return bool((await door.client.get("/v1/jobs")).json()["data"])

        await until(stored)
        await hand.complete((await door.client.get("/v1/jobs")).json()["data"][0]["id"])
        answer = await asking
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    job = answer.json()
    assert job["status"] == "succeeded"
    assert job["stage"] is None
    assert job["cost"]["actual_usd"] == 0.008388608
    assert job["images"][0]["url"].startswith("http://127.0.0.1:9/darkroom/renders/0.png?")
    assert datetime.fromisoformat(job["images"][0]["url_expires_at"]) > datetime.now(UTC)


async def test_prefer_wait_that_is_over_answers_202(door: Door) -> None:
    answer = await door.client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"


async def test_a_long_poll_ends_with_the_job(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with served(valkey_url) as door:
        job_id = (await door.create())["id"]
        asking = asyncio.create_task(door.client.get(f"/v1/jobs/{job_id}?wait=30"))
        await somebody_waits(redis, job_id)
        await hand.complete(job_id)
        async with asyncio.timeout(5):
            answer = await asking
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


async def test_a_shutdown_answers_who_waits(redis: Redis, valkey_url: str) -> None:
    async with served(valkey_url) as door:
        job_id = (await door.create())["id"]
        asking = asyncio.create_task(door.client.get(f"/v1/jobs/{job_id}?wait=60"))
        await somebody_waits(redis, job_id)
        door.services.watch.close()
        async with asyncio.timeout(5):
            answer = await asking
    assert answer.json()["status"] == "queued"


async def test_listing_goes_through_all_jobs_once_newest_first(door: Door) -> None:
    made = [(await door.create())["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await door.client.get("/v1/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"] is (page["next_cursor"] is not None)
        cursor = page["next_cursor"]
    assert seen == sorted(made, reverse=True)


async def test_listing_filters(door: Door) -> None:
    bulk = await door.create(lane="bulk")
    other = await door.create()
    await door.client.post(f"/v1/jobs/{other['id']}/cancel")

    async def ids(**query: str) -> list[str]:
        answer = await door.client.get("/v1/jobs", params=query)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["data"]]

    assert await ids(lane="bulk") == [bulk["id"]]
    assert await ids(status="cancelled") == [other["id"]]
    assert await ids(stage="waiting_for_slot") == [bulk["id"]]
    assert await ids(created_before=bulk["created_at"]) == []
    assert await ids(created_after="2020-01-01T00:00:00Z") == [other["id"], bulk["id"]]
    assert await ids(batch_id=new_id("batch")) == []


async def test_cancel_is_repeatable_and_replay_gives_a_new_life(door: Door) -> None:
    job_id = (await door.create())["id"]
    for _ in range(2):
        answer = await door.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    answer = await door.client.post(f"/v1/jobs/{job_id}/replay")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    again = await door.client.post(f"/v1/jobs/{job_id}/replay", json={"accept_charge": True})
    assert (again.status_code, again.json()["code"]) == (409, "job_not_replayable")


async def test_a_running_job_is_asked_to_end(door: Door, redis: Redis) -> None:
    hand = Hand(redis)
    job_id = (await door.create())["id"]
    await hand.submit(await hand.claim(job_id))
    answer = await door.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("running", True)


async def test_a_job_that_has_not_ended_is_not_deleted(door: Door) -> None:
    job_id = (await door.create())["id"]
    answer = await door.client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_ended")


async def test_while_s3_is_away_nothing_is_deleted(door: Door, redis: Redis) -> None:
    job_id = (await door.create())["id"]
    await Hand(redis).complete(job_id)
    answer = await door.client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert (await door.client.get(f"/v1/jobs/{job_id}")).json()["status"] == "succeeded"


async def test_deleting_removes_pictures_sidecar_and_record(
    redis: Redis, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with SeaweedFS(tmp_path_factory.mktemp("s3"), bucket="darkroom") as s3:
        access = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
        async with opened(valkey_url, s3_endpoint_url=s3.url, **access) as door:
            job = await door.create()
            bucket: S3Bucket = door.services.bucket
            day = datetime.fromisoformat(job["created_at"]).strftime("%Y/%m/%d")
            folder = f"renders/acct_{'0' * 26}/{day}/{job['id']}"
            for name in ("0.png", "job.json"):
                await bucket.put_bytes(f"{folder}/{name}", b"here", "image/png")
            await bucket.put_bytes("renders/other.png", b"another's", "image/png")
            await Hand(redis).complete(job["id"], key=f"{folder}/0.png")
            url = (await door.client.get(f"/v1/jobs/{job['id']}")).json()["images"][0]["url"]
            assert url.startswith(s3.url)
            assert (await door.client.delete(f"/v1/jobs/{job['id']}")).status_code == 204
            assert (await door.client.get(f"/v1/jobs/{job['id']}")).status_code == 404
            found = [await bucket.exists(f"{folder}/{name}") for name in ("0.png", "job.json")]
            assert found == [False, False]
            assert await bucket.exists("renders/other.png")
    assert "AWS_ACCESS_KEY_ID" not in os.environ or os.environ["AWS_ACCESS_KEY_ID"] != s3.access_key


async def test_a_waiting_job_is_blocked_while_submissions_are_stopped(door: Door, redis: Redis) -> None:
    job = await door.create()
    await redis.hset("dr:gate:fal", mapping={"reason": "fal_out_of_balance"})
    assert (await door.client.get(f"/v1/jobs/{job['id']}")).json()["stage"] == "blocked"
