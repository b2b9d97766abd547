"""The paid POST on the wire: sent once, on a connection of its own, with certain knowledge of whether it left.

fal-client 1.0.3 repeats a submission up to ten times on transport errors, 408, 409, 429 and ingress 5xx (measured).
`PaidPost` sits inside its httpx client as the transport and gives that loop nothing to work with: what is not a plain
acceptance leaves as an exception that httpx does not know, and those pass straight through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from darkroom.adapters.fal_answers import Answer
from darkroom.domain.errors import DarkroomError, NotSentError, UncertainError

BODY_LIMIT = 1024 * 1024
# httpcore's trace names: the connection stands, TLS included, and the next thing is the request's first byte.
HEADERS_NEXT = "http11.send_request_headers.started"
BODY_NEXT = "http11.send_request_body.started"


class UnusualAnswerError(Exception):
    """fal answered with something other than a 2xx that names the request and its three URLs."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"fal answered {answer.status}")
        self.answer = answer


class PaidPost(httpx.AsyncBaseTransport):
    """Carries one POST; a second one through the same object is refused.

    A 2xx with a request id and three URLs goes back to fal-client. UnusualAnswerError carries every other answer.
    NotSentError means that nothing was sent: `fal_unreachable` (DNS, connect, TLS) or `not_sent` (past `send_by`, a
    reading of `clock`). UncertainError means that bytes may have left and no answer came. An answer whose body breaks
    off still counts with its status and headers. On cancellation the connection is closed and nothing is known.
    """

    def __init__(
        self,
        network: httpx.AsyncBaseTransport,
        base_url: str,
        *,
        send_by: float,
        time_limit: float,
        secrets: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._base_url = base_url
        self._send_by = send_by
        self._time_limit = time_limit
        self._secrets = tuple(secrets)
        self._clock = clock
        self._used = False
        self._leaving = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the POST to the configured origin and read the answer to its end."""
        if self._used:
            raise UncertainError("The fal client tried to repeat a paid request; it was sent once.")
        self._used = True
        self._check_time()
        end = asyncio.get_running_loop().time() + self._time_limit
        try:
            async with asyncio.timeout_at(end):
                response = await self._network.handle_async_request(self._addressed(request))
        except DarkroomError:
            raise
        except Exception as fault:  # whatever broke, the one question is whether bytes may have left
            if not self._leaving:
                raise NotSentError("fal could not be reached; nothing was sent.") from fault
            raise UncertainError("The request was sent to fal and the reply was lost.") from fault
        answer = await self._read(response, end)
        if not _is_plain_acceptance(answer):
            raise UnusualAnswerError(answer)
        return httpx.Response(answer.status, text=answer.text)

    def _addressed(self, request: httpx.Request) -> httpx.Request:
        """The same request for the configured origin. fal-client's own is fixed at import, its scheme always https."""
        url = httpx.URL(self._base_url + request.url.raw_path.decode("ascii"))
        headers = request.headers.copy()
        headers["Host"] = url.netloc.decode("ascii")
        headers["Connection"] = "close"
        # httpcore 1.0.9 closes a socket whose handshake ran out of its own time, and leaks one that is cancelled from
        # outside: the connect phase's limit (TCP and TLS each) stays well below ours.
        timeouts = httpx.Timeout(self._time_limit, connect=self._time_limit / 3).as_dict()
        extensions = {**request.extensions, "timeout": timeouts, "trace": self._before_bytes_leave}
        return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)

    async def _before_bytes_leave(self, event: str, _info: dict[str, Any]) -> None:
        """Called by httpcore between the connect and the request: the last moment at which the clock can say no.

        Asked again before the body: headers alone start nothing, their Content-Length is not met.
        """
        if event in (HEADERS_NEXT, BODY_NEXT):
            self._check_time()
            self._leaving = True

    def _check_time(self) -> None:
        if self._clock() > self._send_by:
            raise NotSentError("The time to send this request had passed; nothing was sent.", code="not_sent")

    async def _read(self, response: httpx.Response, end: float) -> Answer:
        """Status and headers have arrived and may hold all that matters: a body that breaks off is read as empty."""
        try:
            async with asyncio.timeout_at(end):
                body = await _read_body(response)
        except Exception:  # noqa: BLE001 - a reset, a timeout, a broken encoding: the same missing body
            body = b""
        return Answer.read(response.status_code, response.headers, body, secrets=self._secrets)


async def _read_body(response: httpx.Response) -> bytes:
    """Read the body, up to its limit (the answer to a submission has a few hundred bytes), and close the connection."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > BODY_LIMIT:
                break
    finally:
        await response.aclose()
    return bytes(body)


def _is_plain_acceptance(answer: Answer) -> bool:
    urls = (answer.fields.get(name) for name in ("status_url", "response_url", "cancel_url"))
    named = answer.fields.get("request_id") is not None and answer.fields.get("request_id") == answer.request_id
    return answer.succeeded and named and all(isinstance(url, str) for url in urls)
