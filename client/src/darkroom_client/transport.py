"""Carrying out the steps of operations with httpx: once blocking, once awaiting. Nothing else does I/O here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from ssl import SSLContext
from threading import Event
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
    Together,
    Upload,
    Work,
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
        timeout = httpx.Timeout(call.timeout, connect=min(call.timeout, _CONNECT_SECONDS))
        if isinstance(call, Fetch):
            # httpx logs the URL at INFO. A signature must not be in a log: it is in the request's target only.
            url = httpx.URL(call.url)
            extensions = {"target": url.raw_path, "timeout": timeout.as_dict()}
            return client.build_request("GET", url.copy_with(query=None), extensions=extensions)
        upload = call.upload
        try:
            return client.build_request(
                call.method,
                self.url.rstrip("/") + call.path,
                params={name: value for name, value in call.query.items() if value is not None},
                json=call.json,
                content=None if upload is None else _body(client, upload),
                headers={
                    "Authorization": f"Bearer {self.api_key}",
                    **(upload.headers if upload else {}),
                    **call.headers,
                },
                timeout=timeout,
            )
        except ValueError as error:  # a lone surrogate, a NaN
            raise MisuseError(f"this cannot be sent as JSON: {error}") from None


def _options() -> dict[str, Any]:
    """No redirects: the key is for one server. No proxy for what is on this machine."""
    headers = {"User-Agent": f"darkroom-client/{version('darkroom-client')}"}
    return {"headers": headers, "follow_redirects": False, "mounts": dict.fromkeys(_HERE), "verify": _tls()}


@cache
def _tls() -> SSLContext:
    """Reading the machine's certificates takes longer than all else about a client: once a process is enough."""
    return httpx.create_ssl_context()


def _body(client: httpx.Client | httpx.AsyncClient, upload: Upload) -> Iterator[bytes] | AsyncIterator[bytes]:
    """The upload from its start, as that client wants it."""
    pieces = upload.pieces()
    return _Pieces(pieces) if isinstance(client, httpx.AsyncClient) else pieces


class _Pieces(AsyncIterator[bytes]):
    """Pieces that are read as they are asked for: a local disk is not waited for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


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
        return self._run(plan, Event())

    def iterate(self, plan: Stream[T]) -> Iterator[T]:
        """Run an operation as far as its items are asked for."""
        with closing(plan), closing(self._carrier(Event())) as carrier:
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

    def _run(self, plan: Plan[T], stop: Event) -> T:
        with closing(plan), closing(self._carrier(stop)) as carrier:
            step = _advance(plan)
            while not isinstance(step, _Result):
                if stop.is_set():
                    raise _StoppedError
                step = _advance(plan, carrier.carry_out(step))
            return step.value

    def _run_together(self, plans: Sequence[Plan[Any]], limit: int) -> None:
        stop = Event()
        with ThreadPoolExecutor(limit) as pool:
            running = [pool.submit(self._run, plan, stop) for plan in plans]
            try:
                for done in wait(running, return_when=FIRST_EXCEPTION).done:
                    done.result()
            finally:  # nothing is left to stop, unless there was a fault or a Ctrl-C
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _carrier(self, stop: Event) -> _BlockingCarrier:
        return _BlockingCarrier(self._http, self._address, stop, self._run_together)


class _StoppedError(Exception):
    """Another of the operations that run together has failed."""


class _BlockingCarrier:
    """Carries out the steps of one operation, and holds the answer that it is reading. `stop` ends a sleep."""

    def __init__(
        self,
        http: httpx.Client,
        address: Address,
        stop: Event,
        run_together: Callable[[Sequence[Plan[Any]], int], None],
    ) -> None:
        self._http = http
        self._address = address
        self._stop = stop
        self._run_together = run_together
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
                    self._stop.wait(seconds)
                case Work(function):
                    return function()
                case Together(plans, limit):
                    self._run_together(plans, limit)
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
            async with aclosing(self._carrier()) as carrier:
                step = _advance(plan)
                while not isinstance(step, _Result):
                    step = _advance(plan, await carrier.carry_out(step))
                return step.value

    async def iterate(self, plan: Stream[T]) -> AsyncIterator[T]:
        """Run an operation as far as its items are asked for."""
        with closing(plan):
            async with aclosing(self._carrier()) as carrier:
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

    async def _run_together(self, plans: Sequence[Plan[Any]], limit: int) -> None:
        room = asyncio.Semaphore(limit)

        async def run(plan: Plan[Any]) -> None:
            async with room:
                await self.run(plan)

        try:
            async with asyncio.TaskGroup() as group:
                for plan in plans:
                    group.create_task(run(plan))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None

    def _carrier(self) -> _AwaitingCarrier:
        return _AwaitingCarrier(self._http, self._address, self._run_together)


class _AwaitingCarrier:
    """As _BlockingCarrier."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        address: Address,
        run_together: Callable[[Sequence[Plan[Any]], int], Coroutine[Any, Any, None]],
    ) -> None:
        self._http = http
        self._address = address
        self._run_together = run_together
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
                case Work(function):
                    return await asyncio.to_thread(function)
                case Together(plans, limit):
                    await self._run_together(plans, limit)
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
