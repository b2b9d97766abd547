"""What happened, as it is told: server-sent events, the event log, deliveries, usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from darkroom.domain.lifecycle import DeliveryEvent
from darkroom.ports import AttemptReport
from tests.integration.api_door import Door, Hand, opened, served, until

RECEIVER = "https://receiver.example/hook"


@pytest.fixture
async def door(redis: Redis, valkey_url: str) -> AsyncIterator[Door]:  # noqa: ARG001 - an empty database
    async with opened(valkey_url) as it:
        yield it


async def stream(door: Door, path: str) -> AsyncIterator[dict[str, str]]:
    """Server-sent events, one dictionary each; comments are left out."""
    async with door.client.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields
                fields = {}


async def test_a_jobs_changes_are_streamed_until_its_end(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with served(valkey_url) as door:
        job_id = (await door.create())["id"]
        statuses: list[str] = []
        versions: list[int] = []
        async with asyncio.timeout(10):
            async for event in stream(door, f"/v1/jobs/{job_id}/events"):
                assert event["event"] == "job"
                job = json.loads(event["data"])
                assert job["id"] == job_id
                statuses.append(job["status"])
                versions.append(int(event["id"]))
                if statuses == ["queued"]:
                    await hand.complete(job_id)
    assert statuses[0] == "queued"
    assert statuses[-1] == "succeeded"
    assert versions == sorted(set(versions))


async def test_the_stream_of_an_ended_job_is_one_event(redis: Redis, valkey_url: str) -> None:
    async with served(valkey_url) as door:
        job_id = (await door.create())["id"]
        await Hand(redis).complete(job_id)
        async with asyncio.timeout(10):
            events = [event async for event in stream(door, f"/v1/jobs/{job_id}/events")]
    assert [json.loads(event["data"])["status"] for event in events] == ["succeeded"]


async def test_a_listener_that_left_holds_nothing(redis: Redis, valkey_url: str) -> None:
    async with served(valkey_url) as door:
        job_id = (await door.create())["id"]
        async for _ in stream(door, f"/v1/jobs/{job_id}/events"):
            break

        async def nobody_listens() -> bool:
            return bool(await redis.pubsub_numsub(f"dr:changed:{job_id}") == [(f"dr:changed:{job_id}", 0)])

        await until(nobody_listens)


async def test_the_log_is_read_to_its_end_and_on(door: Door, redis: Redis) -> None:
    hand = Hand(redis)
    ended = []
    for _ in range(3):
        ended.append((await door.create())["id"])
        await hand.complete(ended[-1])
    first = (await door.client.get("/v1/events?limit=2")).json()
    assert [event["data"]["id"] for event in first["data"]] == ended[:2]
    assert [event["seq"] for event in first["data"]] == [1, 2]
    assert first["has_more"] is True
    rest = (await door.client.get("/v1/events", params={"cursor": first["next_cursor"]})).json()
    assert [event["data"]["id"] for event in rest["data"]] == ended[2:]
    assert rest["data"][0]["type"] == "job.succeeded"
    assert rest["has_more"] is False
    nothing = (await door.client.get("/v1/events", params={"cursor": rest["next_cursor"]})).json()
    assert nothing == {"data": [], "has_more": False, "next_cursor": rest["next_cursor"]}
    await door.client.post(f"/v1/jobs/{(await door.create())['id']}/cancel")
    news = (await door.client.get("/v1/events", params={"cursor": nothing["next_cursor"]})).json()
    assert [event["type"] for event in news["data"]] == ["job.cancelled"]


async def test_deliveries_are_listed_and_redelivered(door: Door, redis: Redis) -> None:
    job = await door.create(webhook_url=RECEIVER)
    await door.create()
    await door.client.post(f"/v1/jobs/{job['id']}/cancel")
    owed = (await door.client.get("/v1/deliveries", params={"job_id": job["id"], "status": "pending"})).json()["data"]
    assert [(delivery["job_id"], delivery["url"], delivery["attempts"]) for delivery in owed] == [
        (job["id"], RECEIVER, [])
    ]
    name = owed[0]["id"]
    assert await door.services.deliveries.claim(name, "token", 10)
    report = AttemptReport(status_code=204, error=None, latency_ms=12, response_excerpt="", retry_after=None)
    await door.services.deliveries.record(name, "token", report, DeliveryEvent.ACKNOWLEDGED, delay=0)
    done = (await door.client.get("/v1/deliveries?status=delivered")).json()["data"][0]
    assert [(attempt["status_code"], attempt["latency_ms"]) for attempt in done["attempts"]] == [(204, 12)]
    await redis.delete("dr:outbox")
    again = await door.client.post(f"/v1/deliveries/{name}/redeliver")
    assert (again.status_code, again.json()["status"], again.json()["event_id"]) == (
        202,
        "pending",
        owed[0]["event_id"],
    )
    assert await redis.lrange("dr:outbox", 0, -1) == [f"deliver::{name}"]


async def test_the_secret_is_the_accounts_and_stays(door: Door) -> None:
    secret = (await door.client.get("/v1/webhook-secret")).json()["secret"]
    assert secret.startswith("whsec_")
    assert (await door.client.get("/v1/webhook-secret")).json()["secret"] == secret


async def test_usage_adds_up(door: Door, redis: Redis) -> None:
    hand = Hand(redis)
    for _ in range(2):
        await hand.complete((await door.create())["id"])
    await door.client.post(f"/v1/jobs/{(await door.create())['id']}/cancel")
    today = datetime.now(UTC).date()
    usage = (
        await door.client.get("/v1/usage", params={"from": str(today - timedelta(days=1)), "to": str(today)})
    ).json()
    counts = {"jobs": 3, "succeeded": 2, "failed": 0, "cancelled": 1, "pictures": 2, "spend_usd": 0.016777216}
    assert usage["totals"] == counts
    assert [day["date"] for day in usage["data"]] == [str(today - timedelta(days=1)), str(today)]
    assert usage["data"][1] == {**counts, "date": str(today)}
    whole = (await door.client.get("/v1/usage")).json()
    assert (len(whole["data"]), whole["totals"]) == (30, counts)
