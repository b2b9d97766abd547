"""fal's webhook to whoever asked for one (fal-protocol §3): Ed25519-signed, repeated until it is answered 2xx."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import time
import uuid
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from simulator.faults import Faults
from simulator.generation import GenerationRequest
from simulator.ledger import Ledger

logger = logging.getLogger(__name__)

_USER_ID = "simulated-user"


def sign(key: Ed25519PrivateKey, *, request_id: str, sent_at: int, body: bytes) -> dict[str, str]:
    """The four headers by which fal signs a body; `sent_at` in unix seconds."""
    digest = hashlib.sha256(body).hexdigest()
    message = "\n".join((request_id, _USER_ID, str(sent_at), digest)).encode()
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": _USER_ID,
        "X-Fal-Webhook-Timestamp": str(sent_at),
        "X-Fal-Webhook-Signature": key.sign(message).hex(),
    }


class Callbacks:
    """Sends callbacks in the background, each with its own repeats; a receiver that never answers is given up."""

    def __init__(self, *, faults: Faults, ledger: Ledger, retries: tuple[float, ...], wait: float) -> None:
        self._faults, self._ledger, self._retries = faults, ledger, retries
        self._key, self._forger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=wait))
        self._sending: set[asyncio.Task[None]] = set()

    def jwks(self) -> dict[str, Any]:
        """The public keys as fal publishes them."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "simulator", "use": "sig", "alg": "EdDSA", "x": x}]}

    def announce(self, request: GenerationRequest) -> None:
        """Begin to tell the receiver how a request ended. A cancelled one is not told: nobody has seen fal do it."""
        if request.callback_url is None or request.state == "cancelled" or request.told:
            return
        if self._faults.take("callback_never") is not None:
            self._settle(request)
            return
        for _ in range(1 if self._faults.take("callback_twice") is None else 2):
            task = asyncio.get_running_loop().create_task(self._deliver(request, request.callback_url))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def clear(self) -> None:
        """Give up what is still being sent."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    async def close(self) -> None:
        """Give up what is still being sent, and close the connections."""
        await self.clear()
        await self._session.close()

    async def _deliver(self, request: GenerationRequest, url: str) -> None:
        if args := self._faults.take("callback_late"):
            await asyncio.sleep(args["seconds"])
        body = json.dumps(self._body(request)).encode()
        stale = self._faults.take("callback_stale")
        key = self._key if self._faults.take("callback_forged") is None else self._forger
        for pause in (*self._retries, None):
            sent_at = int(time.time() - (stale["seconds"] if stale else 0))
            if await self._post(url, body, sign(key, request_id=request.request_id, sent_at=sent_at, body=body)):
                self._ledger.counters["callbacks_acknowledged"] += 1
                break
            if pause is not None:
                await asyncio.sleep(pause)
        self._settle(request)

    def _settle(self, request: GenerationRequest) -> None:
        request.told = True
        self._ledger.note(request)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> bool:
        self._ledger.counters["callback_posts"] += 1
        headers = {**headers, "Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # Not the URL: its path holds the receiver's token.
            logger.info("a callback was not delivered: %s", type(error).__name__)
            return False

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        verdict = request.verdict
        assert verdict is not None, "only a request that ended is announced"
        body = {"request_id": request.request_id, "gateway_request_id": str(uuid.uuid4())}
        if verdict.state != "completed":
            error = verdict.error or f"Unexpected status code: {verdict.http_status}"
            return {**body, "status": "ERROR", "payload": verdict.body, "error": error}
        if self._faults.take("callback_no_payload") is not None:
            return {
                **body,
                "status": "OK",
                "payload": None,
                "payload_error": "Response payload is not JSON serializable",
            }
        return {**body, "status": "OK", "payload": verdict.body}
