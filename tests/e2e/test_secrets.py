"""Nothing secret in logs, in records, or in what receivers get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from tests.e2e.conftest import API_KEY, SECRET
from tests.e2e.studio import Receiver, Studio, eventually

pytestmark = pytest.mark.timeout(180)

DECLARED = {"webhook secret": "dr:account:"}
"""Where a secret is kept on purpose: what it is, and how the key's name begins."""


def test_secrets_are_nowhere_they_should_not_be(house: Studio) -> None:
    webhook_secret = str(house.api.get("/v1/webhook-secret").json()["secret"])
    s3, simulator, valkey = house.stack.s3, house.stack.simulator, house.stack.valkey
    assert s3 is not None
    assert simulator is not None
    assert valkey is not None
    secrets = {
        "fal key": simulator.client_environment()["FAL_KEY"],
        "API key": API_KEY,
        "S3 secret": s3.secret_key,
        "webhook secret": webhook_secret.removeprefix("whsec_"),
        "deployment secret": SECRET,
    }
    with Receiver(500) as receiver:
        trouble(house, receiver.url)
        bodies = [receiver.next().body.decode() for _ in range(4)]
    tokens = {
        f"callback token {number}": str(entry["callback_url"]).rpartition("/")[2]
        for number, entry in enumerate(house.ledger()["requests"])
    }
    assert len(tokens) >= 3, "each accepted submission of `trouble` had one"
    texts = dict(enumerate(bodies))
    assert found(secrets | tokens, {f"webhook {number}": body for number, body in texts.items()}) == set()
    logs = {file.name: file.read_text(errors="replace") for file in house.stack.logs.iterdir()}
    assert {"api.log", "worker-1.log", "simulator.log", "valkey.log", "seaweedfs.log"} <= logs.keys()
    assert "job_" in logs["worker-1.log"]
    assert found(secrets | tokens, logs) == set()
    with Redis.from_url(valkey.url, decode_responses=True) as redis:
        records = dict(everything(redis))
    assert any(webhook_secret in value for value in records.values()), "this looks where secrets are"
    places = found(secrets | tokens, records)
    assert {(what, where) for what, where in places if not where.startswith(DECLARED.get(what, "nowhere"))} == set()


def trouble(house: Studio, url: str) -> None:
    """What makes programs write about what they hold: refusals, lost replies, a refused webhook, wrong requests."""
    house.arm("result_422", times=1)
    assert house.ended(house.ask("secrets: refused", webhook_url=url))["status"] == "failed"
    house.arm("submit_lost_after", times=1)
    assert house.ended(house.ask("secrets: lost", webhook_url=url))["status"] == "succeeded"
    house.arm("submit_401", times=1)
    assert house.ended(house.ask("secrets: key refused", webhook_url=url))["status"] == "succeeded"
    eventually(lambda: not house.degraded, "the gate is open")
    assert house.api.get("/v1/jobs", headers={"Authorization": f"Bearer {API_KEY}x"}).status_code == 401
    assert house.api.post("/v1/jobs", content=API_KEY).status_code == 422
    assert house.api.post("/v1/fal/callback/not-a-token", json={}).status_code >= 400


def found(secrets: dict[str, str], texts: dict[str, str]) -> set[tuple[str, str]]:
    """Which secret is in which text."""
    return {
        (what, where)
        for what, secret in secrets.items()
        for where, text in texts.items()
        if secret in text or json.dumps(secret)[1:-1] in text
    }


def everything(redis: Redis) -> Iterator[tuple[str, str]]:
    """Every key of the database with its value as text."""
    readers: dict[str, Any] = {
        "string": redis.get,
        "hash": redis.hgetall,
        "set": redis.smembers,
        "list": lambda key: redis.lrange(key, 0, -1),
        "zset": lambda key: redis.zrange(key, 0, -1),
        "stream": redis.xrange,
    }
    for key in redis.scan_iter(count=1000):
        value = readers[str(redis.type(key))](key)
        yield str(key), f"{key} {value}"
