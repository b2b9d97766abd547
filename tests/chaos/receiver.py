"""A webhook receiver that believes only what is signed, remembers all of it, and fails as often as it is told to."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from infra.local.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class Moods:
    """How often the receiver fails, as shares of the webhooks that arrive. `hang` outlasts the sender's patience."""

    error: float = 0.0
    reset: float = 0.0
    hang: float = 0.0
    hang_seconds: float = 5.0


@dataclass(slots=True)
class Received:
    """All that arrived under one webhook-id: what it says of which job or batch, how often, and our thanks."""

    type: str
    subject: str
    status: str
    arrivals: int = 0
    acknowledged: int = 0


@dataclass(slots=True)
class Inbox:
    """What the receiver knows. `contradictions` are webhook-ids that came with different contents."""

    by_id: dict[str, Received] = field(default_factory=dict)
    arrivals: int = 0
    bad_signatures: list[str] = field(default_factory=list)
    wrong_clock: int = 0
    contradictions: list[str] = field(default_factory=list)

    def note(self, webhook_id: str, body: dict[str, Any]) -> Received:
        """Remember one verified webhook."""
        data = body.get("data") or {}
        said = Received(str(body.get("type")), str(data.get("id")), str(data.get("status")))
        known = self.by_id.setdefault(webhook_id, said)
        if (known.type, known.subject, known.status) != (said.type, said.subject, said.status):
            self.contradictions.append(webhook_id)
        known.arrivals += 1
        return known


class Receiver:
    """To be entered with `async with`: listens at `url` on a port of its own."""

    def __init__(self, secret: str, *, moods: Moods, dice: random.Random) -> None:
        """`secret` is the account's, `whsec_…`."""
        self.inbox = Inbox()
        self.moods = moods
        self._webhook = Webhook(secret)
        self._dice = dice
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/webhook", self._receive)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0, backlog=1024).start()
        self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}/webhook"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.inbox.arrivals += 1
        webhook_id = request.headers.get("webhook-id", "")
        try:
            self._webhook.verify(body, {name.lower(): value for name, value in request.headers.items()})
        except WebhookVerificationError as error:
            if "timestamp" in str(error).lower():
                self.inbox.wrong_clock += 1
            else:
                self.inbox.bad_signatures.append(webhook_id)
            return web.Response(status=401)
        received = self.inbox.note(webhook_id, json.loads(body))
        answer = await self._in_a_mood(request)
        if answer.status < 300:
            received.acknowledged += 1
        return answer

    async def _in_a_mood(self, request: web.Request) -> web.Response:
        roll, moods = self._dice.random(), self.moods
        if roll < moods.error:
            return web.Response(status=self._dice.choice((500, 502, 503)))
        if roll < moods.error + moods.reset:
            _reset(request)
            return web.Response(status=500)
        if roll < moods.error + moods.reset + moods.hang:
            await asyncio.sleep(moods.hang_seconds)
            return web.Response(status=500)
        return web.Response(status=204)


def _reset(request: web.Request) -> None:
    """Tear the connection down: lingering for 0 seconds makes the kernel send RST instead of FIN."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
