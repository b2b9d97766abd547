"""A server on a real socket that answers as told, misbehaves as told, and remembers every request that reached it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request, as it arrived. Header names are in lower case; `connection` counts from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """An answer. `cut` promises more bytes than it sends and hangs up."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class HangUp:
    """The whole request is read, then the connection is closed without a word."""


class Silence:
    """The whole request is read, and nothing follows until the client gives up."""


Script = Callable[[Seen], "Reply | HangUp | Silence"]


class Wire:
    """The server. `refuse` closes each connection before anything is read from it."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.script: Script = lambda _: Reply()
        self.received = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0
        self._refuse = refuse

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]

    def always(self, status: int = 200, body: object = None, headers: Mapping[str, str] | None = None) -> None:
        self.script = lambda _: Reply(status, {} if body is None else body, headers or {})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while not self._refuse and (seen := await self._read(reader, number)) is not None:
                self.seen.append(seen)
                self.received.set()
                if not await self._act(self.script(seen), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.gone.set()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Seen | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(method, target, headers, body, number)

    async def _act(
        self, reply: Reply | HangUp | Silence, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if isinstance(reply, HangUp):
            return False
        if isinstance(reply, Silence):
            await reader.read()
            return False
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        length = len(body) + (100 if reply.cut else 0)
        head = [f"HTTP/1.1 {reply.status} Because", f"Content-Length: {length}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return not reply.cut


@asynccontextmanager
async def listening(*, refuse: bool = False) -> AsyncIterator[Wire]:
    """A Wire on a free port of this machine."""
    wire = Wire(refuse=refuse)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
