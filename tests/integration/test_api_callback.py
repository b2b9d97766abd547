"""fal's callback: only its own word is taken, once, and whoever watches is woken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis

from darkroom.adapters.fal_callback import CallbackTokens
from darkroom.domain.ids import new_id
from darkroom.ports import Wish
from tests.integration.api_door import Hand, is_problem, opened, until


class Fal:
    """Signs as fal does, and shows its keys."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.jwks_url = ""

    def signed(self, body: dict[str, Any], *, at: float | None = None) -> tuple[bytes, dict[str, str]]:
        raw = json.dumps(body).encode()
        request_id, sent = body["request_id"], str(int(at or time.time()))
        message = "\n".join([request_id, "user-1", sent, hashlib.sha256(raw).hexdigest()])
        return raw, {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": "user-1",
            "X-Fal-Webhook-Timestamp": sent,
            "X-Fal-Webhook-Signature": self._key.sign(message.encode()).hex(),
        }

    async def keys(self, _: web.Request) -> web.Response:
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).decode().rstrip("=")
        return web.json_response({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})


@asynccontextmanager
async def fal_listening() -> AsyncIterator[Fal]:
    fal = Fal()
    app = web.Application()
    app.router.add_get("/jwks", fal.keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fal.jwks_url = f"http://{host}:{port}/jwks"
    yield fal
    await runner.cleanup()


async def test_a_callback_tells_what_a_lost_reply_did_not(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with fal_listening() as fal, opened(valkey_url, fal_jwks_url=fal.jwks_url) as door:
        job_id = (await door.create())["id"]
        submission_id = await hand.submit(await hand.claim(job_id))
        token = CallbackTokens(await door.services.beginning.secret()).issue(submission_id)
        body, headers = fal.signed({"request_id": "req-1", "status": "OK", "payload": {"images": []}})
        async with hand.schedule.wishes() as wishes:
            listening = asyncio.ensure_future(anext(wishes))

            async def subscribed() -> bool:
                return bool(await redis.pubsub_numsub("dr:wake") == [("dr:wake", 1)])

            await until(subscribed)
            for _ in range(2):  # fal may say it more than once
                answer = await door.client.post(f"/v1/fal/callback/{token}", content=body, headers=headers)
                assert answer.status_code == 204, answer.text
            async with asyncio.timeout(5):
                assert await listening == Wish(job_id, cancel=False)
        job = (await door.client.get(f"/v1/jobs/{job_id}")).json()
        record = await door.services.jobs.get(job_id)
    assert job["fal_request_id"] == "req-1"
    assert job["stage"] == "generating"
    assert record is not None
    assert record.submission is not None
    assert record.submission.ref is not None
    assert record.submission.ref.status_url == "https://queue.fal.run/fal-ai/krea-2/requests/req-1/status"


async def test_what_fal_did_not_say_is_refused(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with fal_listening() as fal, opened(valkey_url, fal_jwks_url=fal.jwks_url) as door:
        job_id = (await door.create())["id"]
        submission_id = await hand.submit(await hand.claim(job_id))
        token = CallbackTokens(await door.services.beginning.secret()).issue(submission_id)
        body, headers = fal.signed({"request_id": "req-1", "status": "OK"})
        _, old = fal.signed({"request_id": "req-1", "status": "OK"}, at=time.time() - 400)
        for path, content, signed in (
            (token, body + b" ", headers),
            (token, body, {}),
            (token, body, old),
            (token, body, {**headers, "X-Fal-Webhook-Request-Id": "req-2"}),
            (token[:-1] + ("A" if token[-1] != "A" else "E"), body, headers),
            (submission_id, body, headers),
            ("%00", body, headers),
        ):
            answer = await door.client.post(f"/v1/fal/callback/{path}", content=content, headers=signed)
            is_problem(answer, 401, "callback_unverified")
        assert (await door.client.get(f"/v1/jobs/{job_id}")).json()["fal_request_id"] is None


async def test_a_callback_about_nothing_on_record_is_taken_and_ignored(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with fal_listening() as fal, opened(valkey_url, fal_jwks_url=fal.jwks_url) as door:
        token = CallbackTokens(await door.services.beginning.secret()).issue(new_id("sub"))
        for request_id in ("req-1", "../../etc", "a b"):
            body, headers = fal.signed({"request_id": request_id, "status": "ERROR"})
            answer = await door.client.post(f"/v1/fal/callback/{token}", content=body, headers=headers)
            assert answer.status_code == 204, answer.text


async def test_a_second_request_of_fals_is_a_charge_on_record(redis: Redis, valkey_url: str) -> None:
    hand = Hand(redis)
    async with fal_listening() as fal, opened(valkey_url, fal_jwks_url=fal.jwks_url) as door:
        job_id = (await door.create())["id"]
        submission_id = await hand.submit(await hand.claim(job_id))
        first = await hand.accept(submission_id)
        token = CallbackTokens(await door.services.beginning.secret()).issue(submission_id)
        body, headers = fal.signed({"request_id": "req-2", "status": "OK"})
        answer = await door.client.post(f"/v1/fal/callback/{token}", content=body, headers=headers)
        assert answer.status_code == 204
        assert (await door.client.get(f"/v1/jobs/{job_id}")).json()["fal_request_id"] == first
        assert "darkroom_double_charges 1.0" in (await door.client.get("/metrics")).text


async def test_while_fals_keys_are_away_a_callback_is_asked_again(redis: Redis, valkey_url: str) -> None:  # noqa: ARG001
    async with opened(valkey_url, fal_jwks_url="http://127.0.0.1:9/jwks") as door:
        token = CallbackTokens(await door.services.beginning.secret()).issue(new_id("sub"))
        body, headers = Fal().signed({"request_id": "req-1", "status": "OK"})
        answer = await door.client.post(f"/v1/fal/callback/{token}", content=body, headers=headers)
        is_problem(answer, 503, "callback_keys_unavailable")
