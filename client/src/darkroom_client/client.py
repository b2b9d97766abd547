"""The two clients. Both have the same operations: `Client` blocks, `AsyncClient` is awaited.

What an operation does is written once, with its documentation: in operations.py, batches.py, waiting.py,
batch_waiting.py, downloading.py and batch_download.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from darkroom_client import batch_download, batch_waiting, batches, downloading, operations, waiting
from darkroom_client.patience import Patience
from darkroom_client.steps import Plan, Stream
from darkroom_client.transport import Address, AwaitingTransport, BlockingTransport

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8000"
"""Where `make up` serves."""


class _BlockingRoom:
    def __init__(self, transport: BlockingTransport, patience: Patience) -> None:
        self.transport = transport
        self.patience = patience


class _AwaitingRoom:
    def __init__(self, transport: AwaitingTransport, patience: Patience) -> None:
        self.transport = transport
        self.patience = patience


# an operation as a method ---------------------------------------------------------------------------------------------


def _blocking(operation: Callable[Concatenate[Patience, P], Plan[T]]) -> Callable[Concatenate[_BlockingRoom, P], T]:
    @wraps(operation)
    def method(room: _BlockingRoom, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return room.transport.run(operation(room.patience, *args, **kwargs))

    return method


def _iterating(
    operation: Callable[Concatenate[Patience, P], Stream[T]],
) -> Callable[Concatenate[_BlockingRoom, P], Iterator[T]]:
    @wraps(operation)
    def method(room: _BlockingRoom, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return room.transport.iterate(operation(room.patience, *args, **kwargs))

    return method


def _awaiting(
    operation: Callable[Concatenate[Patience, P], Plan[T]],
) -> Callable[Concatenate[_AwaitingRoom, P], Coroutine[Any, Any, T]]:
    @wraps(operation)
    async def method(room: _AwaitingRoom, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await room.transport.run(operation(room.patience, *args, **kwargs))

    return method


def _aiterating(
    operation: Callable[Concatenate[Patience, P], Stream[T]],
) -> Callable[Concatenate[_AwaitingRoom, P], AsyncIterator[T]]:
    @wraps(operation)
    def method(room: _AwaitingRoom, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return room.transport.iterate(operation(room.patience, *args, **kwargs))

    return method


# blocking -------------------------------------------------------------------------------------------------------------


class Jobs(_BlockingRoom):
    """Jobs: ask, look, wait, follow, list, cancel, replay, delete."""

    create = _blocking(operations.create_job)
    get = _blocking(operations.get_job)
    wait = _blocking(waiting.wait_for_job)
    events = _iterating(waiting.follow_job)
    list = _iterating(operations.list_jobs)
    cancel = _blocking(operations.cancel_job)
    replay = _blocking(operations.replay_job)
    delete = _blocking(operations.delete_job)


class Batches(_BlockingRoom):
    """Batches: send, look, wait, follow, list, change their course, read and download their outcome."""

    create = _blocking(batches.create_batch)
    dry_run = _blocking(batches.dry_run)
    get = _blocking(batches.get_batch)
    wait = _blocking(batch_waiting.wait_for_batch)
    follow = _iterating(batch_waiting.follow_batch)
    list = _iterating(batches.list_batches)
    pause = _blocking(batches.pause_batch)
    resume = _blocking(batches.resume_batch)
    cancel = _blocking(batches.cancel_batch)
    retry_failed = _blocking(batches.retry_failed)
    results = _iterating(batches.read_results)
    errors = _iterating(batches.read_errors)
    files = _blocking(batches.list_files)
    contact_sheet = _blocking(batches.contact_sheet)
    contact_sheet_to = _blocking(batch_download.contact_sheet_to)
    download = _blocking(batch_download.download_batch)


class Events(_BlockingRoom):
    """The account's log."""

    list = _iterating(operations.list_events)


class Deliveries(_BlockingRoom):
    """What became of webhooks."""

    list = _blocking(operations.list_deliveries)
    redeliver = _blocking(operations.redeliver)


class Client(_BlockingRoom):
    """Darkroom's API, blocking. A context manager; threads may share it.

    with Client() as darkroom:
        job = darkroom.jobs.wait(darkroom.jobs.create("a vintage travel poster for Mars").id)
        darkroom.download_to(job.images[0], "mars.png")
    """

    usage = _blocking(operations.get_usage)
    readiness = _blocking(operations.get_readiness)
    webhook_secret = _blocking(operations.get_webhook_secret)
    download = _blocking(downloading.download)
    download_to = _blocking(downloading.download_to)

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, patience: Patience | None = None
    ) -> None:
        """What is not given is read from DARKROOM_URL (else http://127.0.0.1:8000) and DARKROOM_API_KEY.

        Raises:
            MisuseError: there is no key, or the URL is none.
        """
        super().__init__(BlockingTransport(_address(base_url, api_key)), patience or Patience())
        self.jobs = Jobs(self.transport, self.patience)
        self.batches = Batches(self.transport, self.patience)
        self.events = Events(self.transport, self.patience)
        self.deliveries = Deliveries(self.transport, self.patience)

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# awaiting -------------------------------------------------------------------------------------------------------------


class AsyncJobs(_AwaitingRoom):
    """As Jobs."""

    create = _awaiting(operations.create_job)
    get = _awaiting(operations.get_job)
    wait = _awaiting(waiting.wait_for_job)
    events = _aiterating(waiting.follow_job)
    list = _aiterating(operations.list_jobs)
    cancel = _awaiting(operations.cancel_job)
    replay = _awaiting(operations.replay_job)
    delete = _awaiting(operations.delete_job)


class AsyncBatches(_AwaitingRoom):
    """As Batches."""

    create = _awaiting(batches.create_batch)
    dry_run = _awaiting(batches.dry_run)
    get = _awaiting(batches.get_batch)
    wait = _awaiting(batch_waiting.wait_for_batch)
    follow = _aiterating(batch_waiting.follow_batch)
    list = _aiterating(batches.list_batches)
    pause = _awaiting(batches.pause_batch)
    resume = _awaiting(batches.resume_batch)
    cancel = _awaiting(batches.cancel_batch)
    retry_failed = _awaiting(batches.retry_failed)
    results = _aiterating(batches.read_results)
    errors = _aiterating(batches.read_errors)
    files = _awaiting(batches.list_files)
    contact_sheet = _awaiting(batches.contact_sheet)
    contact_sheet_to = _awaiting(batch_download.contact_sheet_to)
    download = _awaiting(batch_download.download_batch)


class AsyncEvents(_AwaitingRoom):
    """As Events."""

    list = _aiterating(operations.list_events)


class AsyncDeliveries(_AwaitingRoom):
    """As Deliveries."""

    list = _awaiting(operations.list_deliveries)
    redeliver = _awaiting(operations.redeliver)


class AsyncClient(_AwaitingRoom):
    """Darkroom's API, awaited. An async context manager; for one event loop.

    async with AsyncClient() as darkroom:
        job = await darkroom.jobs.create("a vintage travel poster for Mars")
        async for job in darkroom.jobs.events(job.id):
            print(job.stage or job.status)
    """

    usage = _awaiting(operations.get_usage)
    readiness = _awaiting(operations.get_readiness)
    webhook_secret = _awaiting(operations.get_webhook_secret)
    download = _awaiting(downloading.download)
    download_to = _awaiting(downloading.download_to)

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, patience: Patience | None = None
    ) -> None:
        """As Client."""
        super().__init__(AwaitingTransport(_address(base_url, api_key)), patience or Patience())
        self.jobs = AsyncJobs(self.transport, self.patience)
        self.batches = AsyncBatches(self.transport, self.patience)
        self.events = AsyncEvents(self.transport, self.patience)
        self.deliveries = AsyncDeliveries(self.transport, self.patience)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _address(base_url: str | None, api_key: str | None) -> Address:
    return Address(
        url=base_url or os.environ.get("DARKROOM_URL") or DEFAULT_URL,
        api_key=api_key or os.environ.get("DARKROOM_API_KEY") or "",
    )
