"""What the simulator's tests share: a running one with an HTTP client, bare sockets, a receiver of callbacks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from simulator.config import Config
from simulator.server import Simulator

MODEL = "fal-ai/krea-2/turbo"
SMALL = {"prompt": "a lighthouse", "seed": 7, "image_size": {"width": 64, "height": 48}}
QUICK = Config(latency=0.01, callback_retries=(0.02, 0.02))
SLOW = Config(latency=60.0, latency_sigma=0.0)

StartSimulator = Callable[[Config], Awaitable["Fal"]]


@dataclass
class Fal:
    """A running simulator and a plain HTTP client that makes a fresh connection for each request."""

    origin: str
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        url = path if path.startswith("http") else self.origin + path
        async with self.http.get(url) as response:
            return response.status, await response.json()

    async def submit(self, body: object = SMALL, query: str = "", **headers: str) -> tuple[int, Any]:
        url = f"{self.origin}/{MODEL}{query}"
        async with self.http.post(url, json=body, headers=headers, allow_redirects=False) as response:
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    async def finished(self, taken: dict[str, Any]) -> dict[str, Any]:
        """Follow the status stream to its end; the last event."""
        async with self.http.get(taken["status_url"] + "/stream") as response:
            assert response.content_type == "text/event-stream"
            events = [json.loads(line[5:]) async for line in response.content if line.startswith(b"data:")]
        assert events[-1]["status"] == "COMPLETED"
        return dict(events[-1])

    async def generated(self, body: object = SMALL, query: str = "") -> dict[str, Any]:
        """Submit, wait, and return what the submit answered."""
        status, taken = await self.submit(body, query)
        assert status == 200, taken
        await self.finished(taken)
        return dict(taken)

    async def arm(self, name: str, **wish: object) -> None:
        async with self.http.post(f"{self.origin}/_sim/faults", json={"name": name, **wish}) as response:
            assert response.status == 200, await response.text()

    async def ledger(self) -> dict[str, Any]:
        return dict((await self.get("/_sim/ledger"))[1])


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Fal]:
    """A simulator on this event loop, stopped at the end."""
    simulator = Simulator(config)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers={"Authorization": "Key test"}, connector=connector) as http:
        try:
            yield Fal(await simulator.start(), http)
        finally:
            await simulator.stop()


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[tuple[Fal, asyncio.subprocess.Process]]:
    """A simulator as a process of its own, killed at the end if it still runs."""
    command = [sys.executable, "-m", "simulator.main", *arguments]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        line = (await child.stdout.readline()).decode()
        assert line.startswith("simulator listening on http://127.0.0.1:")
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(headers={"Authorization": "Key test"}, connector=connector) as http:
            yield Fal(line.split()[-1], http), child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def exchange(fal: Fal, request: str) -> bytes:
    """What comes back on a bare socket; raises ConnectionResetError. A client of aiohttp's would repeat a GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fal.origin.rpartition(":")[2]))
    try:
        line, _, body = request.partition("\n")
        head = f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Key t\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        return await reader.read()
    finally:
        writer.transport.abort()


@dataclass
class Receiver:
    """Takes callbacks, answers them with the statuses it was told (then 200)."""

    origin: str = ""
    statuses: list[int] = field(default_factory=list)
    got: asyncio.Queue[tuple[dict[str, str], bytes]] = field(default_factory=asyncio.Queue)

    @property
    def query(self) -> str:
        return f"?fal_webhook={self.origin}/callback/token"

    async def take(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(5):
            return await self.got.get()

    async def receive(self, request: web.Request) -> web.Response:
        assert request.path == "/callback/token"
        self.got.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)
