"""One scripted API for each test, and both clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from darkroom_client import AsyncClient, Client
from tests.client.kit import QUICK, SECRET_KEY, Clock, Run, Server


@pytest.fixture
def api() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["blocking", "awaiting"])
def run(request: pytest.FixtureRequest, api: Server) -> Run:
    """Runs a use of either client; what it gives (a result, or items one after another) is returned."""

    async def awaited(use: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any result
        async with AsyncClient(api.url, SECRET_KEY, patience=QUICK) as client:
            given = use(client)
            return await given if isinstance(given, Awaitable) else [item async for item in given]

    def blocking(use: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any result
        with Client(api.url, SECRET_KEY, patience=QUICK) as client:
            given = use(client)
            return list(given) if isinstance(given, Iterator) else given

    return blocking if request.param == "blocking" else lambda use: asyncio.run(awaited(use))
