"""What a caller gets: a picture in the bucket, a signed webhook, a bill; and ways to wait for them."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from infra.local.sigv4 import signed_request
from tests.e2e.studio import Receiver, Studio, eventually

pytestmark = pytest.mark.timeout(180)


def fetch(studio: Studio, key: str) -> bytes:
    """An object as the bucket's owner reads it."""
    s3 = studio.stack.s3
    assert s3 is not None
    path = f"/{s3.bucket}/{key}"
    status, body = signed_request(
        "GET", "127.0.0.1", s3.port, path, b"", access_key=s3.access_key, secret_key=s3.secret_key
    )
    assert status == 200, (status, body)
    return body


def test_a_job_becomes_pictures_in_the_bucket_a_webhook_and_a_bill(house: Studio) -> None:
    secret = house.api.get("/v1/webhook-secret").json()["secret"]
    with Receiver() as receiver:
        job_id = house.ask(
            "a whole job",
            size={"width": 320, "height": 200},
            webhook_url=receiver.url,
            metadata={"order": "4711"},
        )
        job = house.ended(job_id)
        hook = receiver.next()
    assert job["status"] == "succeeded"
    assert (job["stage"], job["error"], job["attempts"], job["metadata"]) == (None, None, 1, {"order": "4711"})
    (image,) = job["images"]
    content = httpx.get(image["url"], trust_env=False).content
    assert content == fetch(house, image["key"])
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert (picture.size, picture.format) == ((320, 200), "PNG")
    assert (image["width"], image["height"], image["bytes"]) == (320, 200, len(content))
    assert image["sha256"] == hashlib.sha256(content).hexdigest()
    assert image["seed"] == job["input"]["seed"]

    (request,) = house.requests("a whole job")
    (submission,) = job["submissions"]
    assert submission["fal_request_id"] == job["fal_request_id"] == request["request_id"]
    assert submission["status"] == "done"
    assert job["cost"] == {"estimated_usd": 0.000512, "actual_usd": 0.000512, "billable_units": 0.064}

    sidecar = json.loads(fetch(house, image["key"].rpartition("/")[0] + "/job.json"))
    assert (sidecar["id"], sidecar["input"], sidecar["cost_usd"]) == (job_id, job["input"], 0.000512)
    assert sidecar["fal_request_id"] == request["request_id"]
    assert sidecar["images"][0]["sha256"] == image["sha256"]

    event = hook.verified(secret)
    assert event["type"] == "job.succeeded"
    volatile = {"url", "url_expires_at"}
    assert _without(event["data"]["images"][0], volatile) == _without(image, volatile)
    assert {name: value for name, value in event["data"].items() if name != "images"} == {
        name: value for name, value in job.items() if name != "images"
    }


def test_every_way_to_wait_sees_the_end(house: Studio) -> None:
    """Prefer: wait, the long poll and the event stream, all at once."""
    job_id = house.ask("watched")

    def prefer() -> httpx.Response:
        return house.api.post("/v1/jobs", json={"input": {"prompt": "preferred"}}, headers={"Prefer": "wait=60"})

    def stream() -> list[dict[str, Any]]:
        with house.api.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]

    with ThreadPoolExecutor(3) as callers:
        preferred = callers.submit(prefer)
        streamed = callers.submit(stream)
        polled = callers.submit(house.job, job_id, wait=60)
        assert preferred.result().status_code == 200
        assert preferred.result().headers["preference-applied"] == "wait=60"
        assert preferred.result().json()["status"] == "succeeded"
        assert polled.result()["status"] == "succeeded"
        seen = streamed.result()
    assert seen[-1]["status"] == "succeeded"
    assert {job["id"] for job in seen} == {job_id}
    assert "generating" in {job["stage"] for job in seen}
    assert [job["status"] for job in seen].count("succeeded") == 1


def test_a_receiver_that_fails_at_first_gets_the_same_webhook_later(house: Studio) -> None:
    secret = house.api.get("/v1/webhook-secret").json()["secret"]
    with Receiver(500, 503) as receiver:
        job_id = house.ask("told thrice", webhook_url=receiver.url)
        hooks = [receiver.next() for _ in range(3)]
        assert [hook.answered for hook in hooks] == [500, 503, 204]
        assert {hook.id for hook in hooks} == {hooks[0].id}
        assert all(hook.verified(secret)["data"]["id"] == job_id for hook in hooks)

        def delivered() -> dict[str, Any] | None:
            (delivery,) = house.api.get("/v1/deliveries", params={"job_id": job_id}).json()["data"]
            return delivery if delivery["status"] == "delivered" else None

        delivery = eventually(delivered, "the delivery's record")
        assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500, 503, 204]

        assert house.api.post(f"/v1/deliveries/{delivery['id']}/redeliver").status_code == 202
        assert receiver.next().id == hooks[0].id


def test_a_deleted_job_takes_its_pictures_with_it(house: Studio) -> None:
    job_id = house.ask("gone soon")
    job = house.ended(job_id)
    url = job["images"][0]["url"]
    assert httpx.get(url, trust_env=False).status_code == 200
    assert house.api.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert httpx.get(url, trust_env=False).status_code == 404
    assert house.api.get(f"/v1/jobs/{job_id}").status_code == 404


def _without(document: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}
