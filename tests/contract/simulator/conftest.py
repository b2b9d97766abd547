"""Simulators on free ports, stopped after each test, and a receiver of their callbacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from simulator.config import Config
from tests.contract.simulator.kit import QUICK, Fal, Receiver, StartSimulator, running


@pytest.fixture
async def start() -> AsyncIterator[StartSimulator]:
    async with AsyncExitStack() as exits:

        async def start_one(config: Config) -> Fal:
            return await exits.enter_async_context(running(config))

        yield start_one


@pytest.fixture
async def fal(start: StartSimulator) -> Fal:
    return await start(QUICK)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receiver.receive)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()
