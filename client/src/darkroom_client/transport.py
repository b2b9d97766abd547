"""Carrying out the steps of operations with httpx: once blocking, once awaiting. Nothing else does I/O here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Generic, TypeVar

import httpx

from darkroom_client.errors import MisuseError
from darkroom_client.steps import (
    Answer,
    Call,
    Emit,
    Fetch,
    Open,
    Opened,
    Outcome,
    Plan,
    Read,
    Send,
    Sleep,
    Step,
    Stream,
)

T = TypeVar("T")
S = TypeVar("S")

_CONNECT_SECONDS: Final = 10.0
_HERE: Final = ("all://127.0.0.1", "all://localhost", "all://[::1]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API is, and the key that opens it. The key is in no repr."""

    url: str
    api_key: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises MisuseError for what is no http(s) URL, and for a key that no header can carry."""
        try:
            parsed = httpx.URL(self.url)
            parsed.host.encode("idna")
        except (httpx.InvalidURL, ValueError) as error:
            raise MisuseError(f"{self.url!r} is not a URL: {error}") from None
        if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > 65535:
            raise MisuseError(f"{self.url!r} is not the URL of an API, such as http://127.0.0.1:8000")
        if not self.api_key:
            raise MisuseError("no API key: set DARKROOM_API_KEY, or give api_key")
        if not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            raise MisuseError("the API key has characters that no key has (a line end or a space, perhaps)")

    def request(self, client: httpx.Client | httpx.AsyncClient, call: Call | Fetch) -> httpx.Request:
        """The request as httpx sends it. The key goes to the API only."""
        timeout = httpx.Timeout(call.timeout, connect=_CONNECT_SECONDS)
        if isinstance(call, Fetch):
            # httpx logs the URL at INFO. A signature must not be in a log: it is in the request's target only.
            url = httpx.URL(call.url)
            extensions = {"target": url.raw_path, "timeout": timeout.as_dict()}
            return client.build_request("GET", url.copy_with(query=None), extensions=extensions)
        try:
            return client.build_request(
                call.method,
                self.url.rstrip("/") + call.path,
                params={name: value for name, value in call.query.items() if value is not None},
                json=call.json,
                headers={"Authorization": f"Bearer {self.api_key}", **call.headers},
                timeout=timeout,
            )
        except ValueError as error:  # a lone surrogate, a NaN
            raise MisuseError(f"this cannot be sent as JSON: {error}") from None


def _options() -> dict[str, Any]:
    """No redirects: the key is for one server. No proxy for what is on this machine."""
    headers = {"User-Agent": f"darkroom-client/{version('darkroom-client')}"}
    return {"headers": headers, "follow_redirects": False, "mounts": dict.fromkeys(_HERE)}


@dataclass(frozen=True, slots=True)
class _Result(Generic[T]):
    value: T


def _advance(plan: Generator[S, Any, T], outcome: Outcome = None) -> S | _Result[T]:
    """The plan's next step after that outcome, or its result."""
    try:
        return plan.send(outcome)
    except StopIteration as end:
        return _Result(end.value)


# blocking -------------------------------------------------------------------------------------------------------------


class BlockingTransport:
    """Runs operations in the calling thread. Any number of threads may use it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._http = httpx.Client(**_options())

    def run(self, plan: Plan[T]) -> T:
        """Run an operation to its result."""
        with closing(plan), closing(_BlockingCarrier(self._http, self._address)) as carrier:
            step = _advance(plan)
            while not isinstance(step, _Result):
                step = _advance(plan, carrier.carry_out(step))
            return step.value

    def iterate(self, plan: Stream[T]) -> Iterator[T]:
        """Run an operation as far as its items are asked for."""
        with closing(plan), closing(_BlockingCarrier(self._http, self._address)) as carrier:
            step = _advance(plan)
            while not isinstance(step, _Result):
                if isinstance(step, Emit):
                    yield step.item
                    step = _advance(plan)
                else:
                    step = _advance(plan, carrier.carry_out(step))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


class _BlockingCarrier:
    """Carries out the steps of one operation, and holds the answer that it is reading."""

    def __init__(self, http: httpx.Client, address: Address) -> None:
        self._http = http
        self._address = address
        self._response: httpx.Response | None = None
        self._data: Iterator[bytes] = iter(())

    def carry_out(self, step: Step) -> Outcome:
        try:
            match step:
                case Send(call):
                    answer = self._http.send(self._address.request(self._http, call))
                    return Answer(answer.status_code, answer.headers, answer.content)
                case Open(call):
                    return self._open(self._address.request(self._http, call))
                case Read():
                    return next(self._data, b"")
                case Sleep(seconds):
                    time.sleep(seconds)
        except httpx.RequestError as error:
            return error
        return None

    def _open(self, request: httpx.Request) -> Opened | Answer:
        self.close()
        self._response = response = self._http.send(request, stream=True)
        if response.status_code != 200:
            return Answer(response.status_code, response.headers, response.read())
        self._data = response.iter_bytes()
        return Opened()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


# awaiting -------------------------------------------------------------------------------------------------------------


class AwaitingTransport:
    """Runs operations on the event loop that it is first used on."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._http = httpx.AsyncClient(**_options())

    async def run(self, plan: Plan[T]) -> T:
        """Run an operation to its result."""
        with closing(plan):
            async with aclosing(_AwaitingCarrier(self._http, self._address)) as carrier:
                step = _advance(plan)
                while not isinstance(step, _Result):
                    step = _advance(plan, await carrier.carry_out(step))
                return step.value

    async def iterate(self, plan: Stream[T]) -> AsyncIterator[T]:
        """Run an operation as far as its items are asked for."""
        with closing(plan):
            async with aclosing(_AwaitingCarrier(self._http, self._address)) as carrier:
                step = _advance(plan)
                while not isinstance(step, _Result):
                    if isinstance(step, Emit):
                        yield step.item
                        step = _advance(plan)
                    else:
                        step = _advance(plan, await carrier.carry_out(step))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()


class _AwaitingCarrier:
    """As _BlockingCarrier."""

    def __init__(self, http: httpx.AsyncClient, address: Address) -> None:
        self._http = http
        self._address = address
        self._response: httpx.Response | None = None
        self._data: AsyncIterator[bytes] | None = None

    async def carry_out(self, step: Step) -> Outcome:
        try:
            match step:
                case Send(call):
                    answer = await self._http.send(self._address.request(self._http, call))
                    return Answer(answer.status_code, answer.headers, answer.content)
                case Open(call):
                    return await self._open(self._address.request(self._http, call))
                case Read():
                    return await anext(self._data, b"") if self._data is not None else b""
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
        except httpx.RequestError as error:
            return error
        return None

    async def _open(self, request: httpx.Request) -> Opened | Answer:
        await self.aclose()
        self._response = response = await self._http.send(request, stream=True)
        if response.status_code != 200:
            return Answer(response.status_code, response.headers, await response.aread())
        self._data = response.aiter_bytes()
        return Opened()

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
