"""For machines: readiness, metrics, the access log, and the OpenAPI document."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from darkroom.domain.ids import new_id
from tests.integration.api_door import Door, opened


@pytest.fixture
async def door(redis: Redis, valkey_url: str) -> AsyncIterator[Door]:  # noqa: ARG001 - an empty database
    async with opened(valkey_url) as it:
        yield it


async def test_ready_names_what_makes_jobs_wait(door: Door, redis: Redis) -> None:
    assert (await door.client.get("/readyz")).json() == {"status": "ok", "degraded": []}
    await redis.hset("dr:gate:fal", mapping={"reason": "fal_key_refused"})
    await redis.set("dr:gate:s3", "s3_unavailable")
    await redis.zadd("dr:workers", {"worker-1": (time.time() - 120) * 1000})
    answer = await door.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "degraded": ["fal: key refused", "s3: unavailable", "workers: none seen"],
    }
    await redis.zadd("dr:workers", {"worker-2": time.time() * 1000})
    assert "workers: none seen" not in (await door.client.get("/readyz")).json()["degraded"]


async def test_metrics_count_requests_by_route_and_jobs_by_status(door: Door) -> None:
    for lane in ("interactive", "bulk", "bulk"):
        await door.create(lane=lane)
    await door.client.get(f"/v1/jobs/{new_id('job')}")
    await door.client.get("/nowhere/at/all")
    text = (await door.client.get("/metrics", headers={"Authorization": ""})).text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    requests = "darkroom_http_requests_total"
    assert samples[requests, ("method", "POST"), ("route", "/v1/jobs"), ("status", "202")] == 3
    assert samples[requests, ("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "404")] == 1
    assert samples[requests, ("method", "GET"), ("route", "unmatched"), ("status", "404")] == 1
    assert samples["darkroom_jobs", ("status", "queued")] == 3
    assert samples["darkroom_jobs_ready", ("lane", "bulk")] == 2
    assert samples["darkroom_store_up",] == 1


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO):
        yield caplog


async def test_the_access_log_holds_no_key_no_query_and_no_token(door: Door, said: pytest.LogCaptureFixture) -> None:
    await door.client.get("/v1/jobs?cursor=SECRET-QUERY")
    await door.client.post("/v1/fal/callback/SECRET-TOKEN", content=b"{}")
    job_id = (await door.create())["id"]
    await door.client.get(f"/v1/jobs/{job_id}")
    lines = [record for record in said.records if record.name == "api.access"]
    everything = " ".join(str(vars(record)) for record in lines)
    assert len(lines) == 4
    assert "SECRET" not in everything
    assert "a-key-that-exists" not in everything
    assert vars(lines[-1])["job_id"] == job_id
    assert vars(lines[0])["status"] == 422


async def test_answers_of_an_account_are_not_kept_by_caches(door: Door) -> None:
    assert (await door.client.get("/v1/webhook-secret")).headers["cache-control"] == "no-store"
    assert (await door.client.get("/docs")).status_code == 200


async def test_the_document_is_openapi_31_and_complete(door: Door) -> None:
    answer = await door.client.get("/openapi.json", headers={"Authorization": ""})
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert {"JobRequest", "KreaInput", "JobView", "Problem"} <= set(schemas)
    text = json.dumps(document)
    assert {ref.split('"')[0] for ref in text.split('"#/components/schemas/')[1:]} <= set(schemas)
    assert "HTTPValidationError" not in text
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, described in operation["responses"].items():
                contents = described.get("content", {})
                if int(status) >= 400:
                    assert set(contents) == {"application/problem+json"}, (path, method, status)
                    assert contents["application/problem+json"]["examples"], (path, method, status)
            assert path.startswith("/v1/fal") or not path.startswith("/v1/") or operation["security"], (path, method)
