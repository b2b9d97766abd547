"""fal's callback: only what fal signed, recently, about the request it names; and tokens that only we can make."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from darkroom.adapters.fal_callback import CallbackTokens, CallbackVerifier, VerifiedCallback
from darkroom.domain.errors import PermanentError, TransientError

BODY: dict[str, Any] = {
    "request_id": "req-1",
    "gateway_request_id": "gw-2",
    "status": "OK",
    "payload": {"images": [{"url": "https://v3.fal.media/a.png"}]},
}


class KeyServer:
    """A JWKS address on a real socket."""

    def __init__(self) -> None:
        self.keys = [Ed25519PrivateKey.generate()]
        self.padded = False
        self.broken = False
        self.fetches = 0
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        if self.broken:
            return web.Response(status=500)
        unreadable = [{"kty": "RSA", "n": "x"}, {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "odd"]
        return web.json_response({"keys": [*unreadable, *map(self._entry, self.keys)]})

    def _entry(self, key: Ed25519PrivateKey) -> dict[str, str]:
        x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x if self.padded else x.rstrip("=")}


class Clock:
    """Hands that are moved by the test; both clocks of the verifier."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def fal() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/jwks.json", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    yield server
    await runner.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(fal: KeyServer, clock: Clock) -> AsyncIterator[CallbackVerifier]:
    verifier = CallbackVerifier(fal.url, wall_clock=clock, clock=clock)
    yield verifier
    await verifier.close()


def signed(
    key: Ed25519PrivateKey, body: object = BODY, *, at: float | None = None, request_id: str = "req-1"
) -> tuple[dict[str, str], bytes]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    timestamp = str(int(time.time() if at is None else at))
    message = "\n".join([request_id, "user-1", timestamp, hashlib.sha256(raw).hexdigest()])
    headers = {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": "user-1",
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": key.sign(message.encode()).hex(),
    }
    return headers, raw


async def refused(verifier: CallbackVerifier, headers: dict[str, str], raw: bytes) -> None:
    with pytest.raises(PermanentError) as raised:
        await verifier.verify(headers, raw)
    assert raised.value.code == "callback_unverified"


@pytest.mark.parametrize("padded", [True, False])
async def test_what_fal_signed_is_read(fal: KeyServer, verifier: CallbackVerifier, *, padded: bool) -> None:
    fal.padded = padded
    callback = await verifier.verify(*signed(fal.keys[0]))
    assert callback == VerifiedCallback("req-1", "OK", BODY["payload"], None, None)


async def test_a_callback_without_its_payload(fal: KeyServer, verifier: CallbackVerifier) -> None:
    body = {"request_id": "req-1", "status": "OK", "payload": None, "payload_error": "too large"}
    callback = await verifier.verify(*signed(fal.keys[0], body))
    assert callback == VerifiedCallback("req-1", "OK", None, None, "too large")


async def test_a_callback_of_a_failure(fal: KeyServer, verifier: CallbackVerifier) -> None:
    body = {"request_id": "req-1", "status": "ERROR", "payload": {"detail": []}, "error": "Invalid status code: 422"}
    callback = await verifier.verify(*signed(fal.keys[0], body))
    assert callback == VerifiedCallback("req-1", "ERROR", {"detail": []}, "Invalid status code: 422", None)


async def test_header_names_of_any_case_are_read(fal: KeyServer, verifier: CallbackVerifier) -> None:
    headers, raw = signed(fal.keys[0])
    await verifier.verify({name.lower(): value for name, value in headers.items()}, raw)


@pytest.mark.parametrize("missing", ["Request-Id", "User-Id", "Timestamp", "Signature"])
async def test_each_header_is_needed(fal: KeyServer, verifier: CallbackVerifier, missing: str) -> None:
    headers, raw = signed(fal.keys[0])
    del headers[f"X-Fal-Webhook-{missing}"]
    await refused(verifier, headers, raw)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Request-Id", "req-2"),
        ("User-Id", "user-2"),
        ("Timestamp", "soon"),
        ("Timestamp", "٣"),
        ("Signature", "00" * 64),
        ("Signature", "00"),
        ("Signature", "no hex"),
        ("Signature", "é"),
    ],
)
async def test_whatever_was_changed_is_noticed(
    fal: KeyServer, verifier: CallbackVerifier, name: str, value: str
) -> None:
    headers, raw = signed(fal.keys[0])
    await refused(verifier, {**headers, f"X-Fal-Webhook-{name}": value}, raw)


async def test_a_changed_time_is_noticed_though_it_is_not_old(fal: KeyServer, verifier: CallbackVerifier) -> None:
    headers, raw = signed(fal.keys[0])
    later = str(int(headers["X-Fal-Webhook-Timestamp"]) + 1)
    await refused(verifier, {**headers, "X-Fal-Webhook-Timestamp": later}, raw)


async def test_a_changed_body_is_noticed(fal: KeyServer, verifier: CallbackVerifier) -> None:
    headers, raw = signed(fal.keys[0])
    await refused(verifier, headers, raw + b" ")


@pytest.mark.parametrize("off", [-302, 302])
async def test_old_and_future_callbacks_are_refused(
    fal: KeyServer, verifier: CallbackVerifier, clock: Clock, off: float
) -> None:
    await refused(verifier, *signed(fal.keys[0], at=clock.now + off))


async def test_a_callback_within_the_window_is_taken(fal: KeyServer, verifier: CallbackVerifier, clock: Clock) -> None:
    await verifier.verify(*signed(fal.keys[0], at=clock.now - 298))
    await verifier.verify(*signed(fal.keys[0], at=clock.now + 298))


@pytest.mark.parametrize("body", [{"request_id": "req-2"}, {}, [], b"{", b"[" * 100_000, b"\xff"])
async def test_a_signed_body_must_name_the_request_of_its_header(
    fal: KeyServer, verifier: CallbackVerifier, body: object
) -> None:
    await refused(verifier, *signed(fal.keys[0], body))


async def test_keys_are_fetched_once_for_many(fal: KeyServer, verifier: CallbackVerifier) -> None:
    await asyncio.gather(*(verifier.verify(*signed(fal.keys[0])) for _ in range(20)))
    assert fal.fetches == 1


async def test_a_new_key_is_found_once_it_may_be_looked_for(
    fal: KeyServer, verifier: CallbackVerifier, clock: Clock
) -> None:
    await verifier.verify(*signed(fal.keys[0]))
    fal.keys = [Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()]
    clock.now += 59
    await refused(verifier, *signed(fal.keys[1]))
    assert fal.fetches == 1
    clock.now += 2
    await verifier.verify(*signed(fal.keys[1]))
    assert fal.fetches == 2


async def test_forgeries_do_not_hammer_fals_key_server(fal: KeyServer, verifier: CallbackVerifier) -> None:
    forger = Ed25519PrivateKey.generate()
    for _ in range(10):
        await refused(verifier, *signed(forger))
    assert fal.fetches == 1


async def test_keys_are_forgotten_after_a_day(fal: KeyServer, verifier: CallbackVerifier, clock: Clock) -> None:
    revoked = fal.keys[0]
    await verifier.verify(*signed(revoked))
    fal.keys = [Ed25519PrivateKey.generate()]
    clock.now += 24 * 3600 + 1
    await refused(verifier, *signed(revoked, at=clock.now))
    assert fal.fetches == 2


async def test_without_keys_nothing_is_refused_for_good(
    fal: KeyServer, verifier: CallbackVerifier, clock: Clock
) -> None:
    fal.broken = True
    for _ in range(3):
        with pytest.raises(TransientError) as raised:
            await verifier.verify(*signed(fal.keys[0]))
        assert raised.value.code == "callback_keys_unavailable"
    assert fal.fetches == 1
    fal.broken = False
    clock.now += 6
    await verifier.verify(*signed(fal.keys[0]))


async def test_known_keys_go_on_while_the_key_server_is_away(
    fal: KeyServer, verifier: CallbackVerifier, clock: Clock
) -> None:
    await verifier.verify(*signed(fal.keys[0]))
    fal.broken = True
    clock.now += 120
    for _ in range(2):
        with pytest.raises(TransientError):
            await verifier.verify(*signed(Ed25519PrivateKey.generate()))
    await verifier.verify(*signed(fal.keys[0]))
    assert fal.fetches == 2


def test_keys_are_fetched_over_https_or_from_hosts_named() -> None:
    with pytest.raises(ValueError, match="plain http"):
        CallbackVerifier("http://rest.fal.ai/.well-known/jwks.json")
    CallbackVerifier("http://simulator:9000/jwks.json", allow_http_hosts=frozenset({"simulator"}))


# --- tokens --------------------------------------------------------------------------------------------------------

TOKENS = CallbackTokens(b"0123456789abcdef0123456789abcdef")


def test_a_token_names_its_submission() -> None:
    token = TOKENS.issue("sub_01J-x")
    assert TOKENS.read(token) == "sub_01J-x"
    assert TOKENS.issue("sub_01J-x") == token
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@pytest.mark.parametrize(
    "forged", ["", ".", "sub_1", "sub_1.", "sub_1.AAAA", ".AAAA", "sub_1.é", "\udc80.\udc80", "é.x"]
)
def test_a_forged_token_is_refused(forged: str) -> None:
    with pytest.raises(PermanentError) as raised:
        TOKENS.read(forged)
    assert raised.value.code == "callback_unverified"


def test_a_token_is_bound_to_its_submission_and_its_secret() -> None:
    mac = TOKENS.issue("sub_1").partition(".")[2]
    for forged in (f"sub_2.{mac}", f"sub_1.{mac}x", CallbackTokens(b"another secret, long enough").issue("sub_1")):
        with pytest.raises(PermanentError):
            TOKENS.read(forged)


def test_an_id_that_would_not_fit_a_url_gets_no_token() -> None:
    with pytest.raises(ValueError, match="letters"):
        TOKENS.issue("a/b")
    with pytest.raises(ValueError, match="16 bytes"):
        CallbackTokens(b"short")
