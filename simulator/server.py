"""The simulator as one server: fal's queue, media host, platform interface and keys, and its own door under /_sim."""

from __future__ import annotations

import json
import socket
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from simulator import wire
from simulator.account import Account
from simulator.callbacks import Callbacks
from simulator.config import Config
from simulator.faults import Faults
from simulator.ledger import Ledger
from simulator.media import Media
from simulator.pictures import Studio
from simulator.queue import Queue
from simulator.submitting import Submitting
from simulator.watching import Watching

_WITHOUT_KEY = ("/files/", "/.well-known/", "/_sim/")
_SHUTDOWN_SECONDS = 1.0
_BACKLOG = 1024


class Simulator:
    """A fal of one's own, in this process and on this event loop.

    `start` returns the origin (`http://127.0.0.1:PORT`) once connections are taken; `stop` drops what is running and
    leaves no task, thread or socket behind. With a ledger's file, the next simulator on that file goes on where this
    one was stopped or killed; without one, all is forgotten.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or Config()
        self.faults = Faults(self._config.seed, self._config.faults)
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen.

        Raises:
            OSError: the address is taken, or the ledger's file cannot be opened.
            UnreadableLedgerError: the ledger's file holds something else.
        """
        config = self._config
        # Bound first: a second simulator at the same address ends here and leaves the ledger alone. Callers wait in the
        # backlog while it is read.
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listener = socket.create_server((config.host, config.port), family=family, backlog=_BACKLOG)
        try:
            self.ledger = Ledger(config.ledger_path)
        except BaseException:
            listener.close()
            raise
        self._studio = Studio(pool=config.pool)
        self._callbacks = Callbacks(
            faults=self.faults, ledger=self.ledger, retries=config.callback_retries, wait=config.callback_timeout
        )
        self._queue = Queue(
            concurrency=config.concurrency,
            latency=config.latency,
            sigma=config.latency_sigma,
            seed=config.seed,
            studio=self._studio,
            faults=self.faults,
            ledger=self.ledger,
            on_end=self._callbacks.announce,
        )
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        try:
            await self._runner.setup()
            self._go_on()
            await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        except OSError:
            await self.stop()
            raise
        port = self._runner.addresses[0][1]
        host = "127.0.0.1" if config.host in {"0.0.0.0", "::"} else config.host  # noqa: S104 - a comparison
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening, and drop what is queued, running and being sent. Open streams get a second to end."""
        if self._runner is None:
            return
        await self._runner.cleanup()
        await self._queue.clear()
        await self._callbacks.close()
        self._studio.close()
        self.ledger.close()
        self._runner = None

    def _go_on(self) -> None:
        """Take up what an earlier run on the same ledger left: what waited or ran, and callbacks not yet answered."""
        for request in self.ledger.ended:
            self._callbacks.announce(request)
        self._queue.resume(request for request in self.ledger.requests.values() if request.verdict is None)

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._authenticate])
        app.add_routes(Submitting(self._config, self._queue, self.faults, self.ledger).routes())
        app.add_routes(Watching(self._queue, self.faults, self.ledger, result_ttl=self._config.result_ttl).routes())
        app.add_routes(Media(self._studio, self.faults, self.ledger).routes())
        app.add_routes(Account(self.faults, self.ledger).routes())
        app.add_routes([web.get("/.well-known/jwks.json", self._jwks), *self._own_routes()])
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(_WITHOUT_KEY):
            return await handler(request)
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        wanted = self._config.require_key
        if scheme != "Key" or not key.strip() or (wanted is not None and key.strip() != wanted):
            return wire.unauthorized()
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return wire.not_found("Application")

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self._callbacks.jwks())

    def _own_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_sim/health", self._health),
            web.get("/_sim/inflight", self._inflight),
            web.get("/_sim/ledger", self._ledger_document),
            web.post("/_sim/reset", self._reset),
            web.get("/_sim/faults", self._list_faults),
            web.post("/_sim/faults", self._arm_fault),
            web.delete("/_sim/faults", self._disarm_faults),
        ]

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _inflight(self, _: web.Request) -> web.Response:
        return web.json_response({"queued": self._queue.queued, "running": self._queue.running})

    async def _ledger_document(self, request: web.Request) -> web.Response:
        """Everything, or with `?summary=1` all but the requests: many thousands take seconds to write out."""
        document = self.ledger.document(summary=request.query.get("summary") == "1")
        return web.json_response({**document, "faults": dict(self.faults.fired)})

    async def _reset(self, _: web.Request) -> web.Response:
        """Forget every request, count and fault on command; the faults of the start are back."""
        await self._queue.clear()
        await self._callbacks.clear()
        self.ledger.reset()
        self.faults.reset()
        return web.json_response({"status": "ok"})

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self.faults.document())

    async def _arm_fault(self, request: web.Request) -> web.Response:
        try:
            wish: dict[str, Any] = json.loads(await request.read())
            self.faults.arm(wish["name"], rate=wish.get("rate"), times=wish.get("times"), args=wish.get("args"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return web.json_response({"detail": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response(self.faults.document()["armed"])

    async def _disarm_faults(self, _: web.Request) -> web.Response:
        self.faults.disarm()
        return web.json_response({})
