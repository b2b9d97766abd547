"""fal's callback to us: whose submission it speaks of, and whether fal really sent it.

Facts are from fal's webhook documentation: Ed25519 over request id, user id, timestamp and the body's SHA-256, each on
a line; keys at a JWKS address, to be cached for a day at most. No FAL_KEY and no fal-client is needed here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from darkroom.adapters.fal_origins import checked_base_url
from darkroom.domain.errors import PermanentError, TransientError

CODE = "callback_unverified"
TIMESTAMP_WINDOW = 300
KEYS_MAX_AGE = 24 * 3600.0
REFETCH_INTERVAL = 60.0
RETRY_INTERVAL = 5.0
MAX_KEYS = 32
JWKS_LIMIT = 256 * 1024

_SUBMISSION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True)
class VerifiedCallback:
    """What fal said, after its signature was checked. At least once, in any order, up to hours late; bills nothing.

    `status` is `OK` or `ERROR`. `payload` None with `payload_error` can come with OK: the work is done and billed, and
    the result is to be fetched from the queue.
    """

    request_id: str
    status: str
    payload: dict[str, Any] | None
    error: str | None
    payload_error: str | None


class CallbackTokens:
    """Names a submission in the callback's URL so that no one else can: `submission_id.HMAC`, safe in a URL's path.

    Readable without any record; the same secret (32 bytes, at least 16) must serve API and workers.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret is shorter than 16 bytes")
        self._secret = secret

    def issue(self, submission_id: str) -> str:
        """The token of a submission, always the same. Raises ValueError for an id beyond letters, digits, _ and -."""
        if not _SUBMISSION_ID.fullmatch(submission_id):
            raise ValueError("a submission id consists of letters, digits, _ and -")
        return f"{submission_id}.{self._mac(submission_id)}"

    def read(self, token: str) -> str:
        """The submission id of a token that `issue` made. Raises PermanentError, `callback_unverified`, otherwise."""
        submission_id, _, mac = token.partition(".")
        shaped = _SUBMISSION_ID.fullmatch(submission_id) and mac.isascii()
        if not shaped or not hmac.compare_digest(mac, self._mac(submission_id)):
            raise _unverified("the token is not one of ours")
        return submission_id

    def _mac(self, submission_id: str) -> str:
        # The purpose is part of the message: the same secret signs cursors too.
        digest = hmac.digest(self._secret, b"darkroom fal callback\n" + submission_id.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class CallbackVerifier:
    """Checks fal's signature. Belongs to one event loop; `close()` it there.

    Keys are fetched on first use, kept for 24 h at most, and fetched again when none of them matches, at most every
    60 s (5 s after a failed fetch), whoever sends what. `fetch_timeout` is in seconds. Raises ValueError when
    `jwks_url` is neither https nor plain http to loopback or to a host in `allow_http_hosts` (`host` or `host:port`).
    """

    def __init__(
        self,
        jwks_url: str,
        *,
        allow_http_hosts: frozenset[str] = frozenset(),
        fetch_timeout: float = 5.0,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jwks_url = checked_base_url(jwks_url, allow_http_hosts)
        self._fetch_timeout = fetch_timeout
        self._wall_clock = wall_clock
        self._clock = clock
        self._keys: list[Ed25519PublicKey] = []
        self._fetched_at = float("-inf")
        self._next_fetch_at = float("-inf")
        self._fetch_failed = False
        self._fetching = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connection to the key server."""
        if self._session is not None:
            await self._session.close()

    async def verify(self, headers: Mapping[str, str], raw_body: bytes) -> VerifiedCallback:
        """Check signature, age and ids of a callback and read it.

        Raises PermanentError with code `callback_unverified` for everything that fal cannot have signed, and
        TransientError with code `callback_keys_unavailable` while that cannot be told: fal sends it again.
        """
        signed = {name.lower(): value for name, value in headers.items()}
        request_id = _header(signed, "x-fal-webhook-request-id")
        user_id = _header(signed, "x-fal-webhook-user-id")
        timestamp = _header(signed, "x-fal-webhook-timestamp")
        signature = _signature(_header(signed, "x-fal-webhook-signature"))
        self._check_age(timestamp)
        lines = (request_id, user_id, timestamp, hashlib.sha256(raw_body).hexdigest())
        await self._check_signature(signature, "\n".join(lines).encode())
        return _read(raw_body, request_id)

    def _check_age(self, timestamp: str) -> None:
        if not re.fullmatch(r"[0-9]{1,12}", timestamp):
            raise _unverified("its timestamp cannot be read")
        if abs(self._wall_clock() - int(timestamp)) > TIMESTAMP_WINDOW:
            raise _unverified("its timestamp is more than 300 s off")

    async def _check_signature(self, signature: bytes, message: bytes) -> None:
        if _signed_by_one_of(self._fresh_keys(), signature, message):
            return
        await self._refetch()
        if not _signed_by_one_of(self._fresh_keys(), signature, message):
            raise _unverified("no key of fal's signed it")

    def _fresh_keys(self) -> list[Ed25519PublicKey]:
        return self._keys if self._clock() - self._fetched_at < KEYS_MAX_AGE else []

    async def _refetch(self) -> None:
        """Get the keys of now where it is time to; after a failed fetch nothing can be told.

        Those who wait for the lock meanwhile find it done, and the next one not yet due.
        """
        async with self._fetching:
            if self._clock() >= self._next_fetch_at:
                await self._fetch()
            elif self._fetch_failed:
                raise _keys_unavailable()

    async def _fetch(self) -> None:
        self._fetch_failed = True
        self._next_fetch_at = self._clock() + RETRY_INTERVAL
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with (
                asyncio.timeout(self._fetch_timeout),
                self._session.get(self._jwks_url, allow_redirects=False) as response,
            ):
                response.raise_for_status()
                document = json.loads(await _read_limited(response))
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as fault:
            raise _keys_unavailable() from fault
        keys = _keys_of(document)
        if not keys:
            raise _keys_unavailable()
        self._fetch_failed = False
        self._keys = keys
        self._fetched_at = self._clock()
        self._next_fetch_at = self._fetched_at + REFETCH_INTERVAL


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not value:
        raise _unverified(f"the header {name} is missing")
    return value


def _signature(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError as fault:
        raise _unverified("its signature is no hexadecimal number") from fault


def _signed_by_one_of(keys: list[Ed25519PublicKey], signature: bytes, message: bytes) -> bool:
    for key in keys:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(JWKS_LIMIT)
    while (more := await response.content.read(JWKS_LIMIT)) and len(body) <= JWKS_LIMIT:
        body += more
    if len(body) > JWKS_LIMIT:
        raise ValueError("the key document is too large")
    return body


def _keys_of(document: object) -> list[Ed25519PublicKey]:
    """Every Ed25519 key of a JWKS; what is none, or cannot be read, is passed over."""
    entries = document.get("keys") if isinstance(document, dict) else None
    keys = []
    for entry in entries[:MAX_KEYS] if isinstance(entries, list) else []:
        x = entry.get("x") if isinstance(entry, dict) else None
        if not isinstance(x, str) or entry.get("crv", "Ed25519") != "Ed25519":
            continue
        try:
            unpadded = x.rstrip("=")
            raw = base64.urlsafe_b64decode(unpadded + "=" * (-len(unpadded) % 4))
            keys.append(Ed25519PublicKey.from_public_bytes(raw))
        except ValueError:
            continue
    return keys


def _read(raw_body: bytes, signed_request_id: str) -> VerifiedCallback:
    try:
        body = json.loads(raw_body)
    except (ValueError, RecursionError) as fault:
        raise _unverified("its body is no JSON") from fault
    if not isinstance(body, dict) or body.get("request_id") != signed_request_id:
        raise _unverified("its header and its body name different requests")
    payload = body.get("payload")
    return VerifiedCallback(
        signed_request_id,
        str(body.get("status")),
        payload if isinstance(payload, dict) else None,
        _text(body.get("error")),
        _text(body.get("payload_error")),
    )


def _text(value: object) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _unverified(reason: str) -> PermanentError:
    return PermanentError(f"The callback was refused: {reason}.", code=CODE)


def _keys_unavailable() -> TransientError:
    return TransientError("fal's signing keys cannot be fetched now.", code="callback_keys_unavailable")
