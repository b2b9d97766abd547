"""The simulator's callbacks: signed as fal's, repeated until they are answered, and what goes wrong with them."""

from __future__ import annotations

import base64
import hashlib
import json
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.contract.simulator.kit import Fal, Receiver


async def _verify(fal: Fal, headers: dict[str, str], body: bytes) -> None:
    """As fal's documentation has it; raises InvalidSignature."""
    _, jwks = await fal.get("/.well-known/jwks.json")
    x = jwks["keys"][0]["x"]
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    parts = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*parts, hashlib.sha256(body).hexdigest()]).encode()
    key.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)


def _age(headers: dict[str, str]) -> float:
    return time.time() - int(headers["X-Fal-Webhook-Timestamp"])


async def test_a_callback_is_signed_and_brings_the_result(fal: Fal, receiver: Receiver) -> None:
    taken = await fal.generated(query=receiver.query)
    headers, raw = await receiver.take()
    await _verify(fal, headers, raw)
    body = json.loads(raw)
    assert body["request_id"] == headers["X-Fal-Webhook-Request-Id"] == taken["request_id"]
    assert (body["status"], body["payload"]) == ("OK", (await fal.get(taken["response_url"]))[1])
    assert body["gateway_request_id"]
    assert -2 < _age(headers) < 30


async def test_a_failure_is_told_as_an_error(fal: Fal, receiver: Receiver) -> None:
    await fal.arm("result_failed")
    await fal.submit(query=receiver.query)
    body = json.loads((await receiver.take())[1])
    assert (body["status"], bool(body["error"]), "detail" in body["payload"]) == ("ERROR", True, True)


async def test_a_callback_is_repeated_until_it_is_answered_2xx(fal: Fal, receiver: Receiver) -> None:
    receiver.statuses = [503, 302]
    await fal.generated(query=receiver.query)
    for _ in range(3):
        await _verify(fal, *await receiver.take())
    assert (await fal.ledger())["counters"]["callback_posts"] == 3


async def test_callbacks_go_wrong(fal: Fal, receiver: Receiver) -> None:
    await fal.arm("callback_twice")
    await fal.generated(query=receiver.query)
    assert json.loads((await receiver.take())[1])["payload"] == json.loads((await receiver.take())[1])["payload"]

    await fal.arm("callback_stale")
    await fal.generated(query=receiver.query)
    headers, body = await receiver.take()
    await _verify(fal, headers, body)
    assert _age(headers) > 300

    await fal.arm("callback_forged")
    await fal.generated(query=receiver.query)
    headers, body = await receiver.take()
    with pytest.raises(InvalidSignature):
        await _verify(fal, headers, body)

    await fal.arm("callback_no_payload")
    await fal.generated(query=receiver.query)
    told = json.loads((await receiver.take())[1])
    assert (told["status"], told["payload"], bool(told["payload_error"])) == ("OK", None, True)

    await fal.arm("callback_never")
    await fal.generated(query=receiver.query)
    await fal.arm("callback_late", args={"seconds": 0.1})
    began = time.monotonic()
    late = await fal.generated(query=receiver.query)
    assert (
        json.loads((await receiver.take())[1])["request_id"] == late["request_id"]
    )  # and none came for the one before
    assert time.monotonic() - began >= 0.1
