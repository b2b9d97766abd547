"""How much a caller may send, and how often."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.adapters.redis.account_rate import Allowance, RedisAccountRate
from darkroom.domain.errors import PermanentError, RateLimitedError

_DRAIN_BYTES: Final = 64 * 1024 * 1024
_DRAIN_SECONDS: Final = 10.0


class BodyTooLargeError(PermanentError):
    """The body is over the limit."""

    code = "body_too_large"


class AccountRateError(RateLimitedError):
    """The account asks too often; `headers` say when it may again."""

    def __init__(self, message: str, *, retry_after: float, headers: dict[str, str]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.headers = headers


class BodyLimit:
    """Refuses a body while it arrives, whether or not its length was announced; never holds more than the limit.

    Only an endpoint that reads its body meets the limit. What is over it is read and thrown away, up to 64 MB or 10 s,
    because a client that is still sending would see a broken connection instead of the answer.
    """

    def __init__(self, app: ASGIApp, *, limit: Callable[[str], int]) -> None:
        """`limit` gives the bytes allowed for a path."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        too_long = announced.isdigit() and int(announced) > limit
        received = 0

        async def limited() -> Message:
            nonlocal received
            if too_long and headers.get("expect", "").lower() == "100-continue":
                raise _too_large(limit)  # nothing was sent yet, and nothing will be
            message = await receive()
            received += len(message.get("body", b""))
            if message["type"] == "http.request" and (too_long or received > limit):
                await _drain(receive, message, _DRAIN_BYTES)
                raise _too_large(limit)
            return message

        await self._app(scope, limited, send)


async def _drain(receive: Receive, message: Message, room: int) -> None:
    give_up_at = time.monotonic() + _DRAIN_SECONDS
    while message.get("more_body") and room > 0 and time.monotonic() < give_up_at:
        message = await receive()
        room -= len(message.get("body", b""))


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"a body may have at most {limit} bytes")


async def take_turn(rate: RedisAccountRate | None, account_id: str, response: Response) -> None:
    """Count one request of the account. Raises AccountRateError; headers say what is left (RateLimit, IETF draft)."""
    if rate is None:
        return
    allowance = await rate.take(account_id)
    headers = _rate_headers(rate, allowance)
    if not allowance.allowed:
        raise AccountRateError(
            f"this account may ask {rate.burst} times in {rate.window:g} s",
            retry_after=allowance.retry_after,
            headers=headers,
        )
    response.headers.update(headers)


def _rate_headers(rate: RedisAccountRate, allowance: Allowance) -> dict[str, str]:
    wait = allowance.reset if allowance.allowed else allowance.retry_after
    return {
        "RateLimit-Policy": f'"account";q={rate.burst};w={math.ceil(rate.window)}',
        "RateLimit": f'"account";r={allowance.remaining};t={math.ceil(wait)}',
    }
