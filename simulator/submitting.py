"""The submit: authentication, validation, the request's birth, and everything that can happen to the answer."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from simulator import wire
from simulator.config import MODEL, Config
from simulator.faults import Faults
from simulator.generation import GenerationRequest
from simulator.ledger import Ledger
from simulator.queue import Queue
from simulator.schema import Detail, parse

_START_TIMEOUT_HEADERS = ("X-Fal-Request-Start-Timeout", "X-Fal-Request-Timeout")
_LOST = frozenset({"submit_lost_after", "submit_lost_before", "submit_reset"})

Args = dict[str, Any]


def _redirect(request: web.Request, args: Args) -> web.Response:
    # Whoever follows posts to the same endpoint again, and the ledger shows it.
    return web.Response(status=args["status"], headers={"Location": args["location"] or str(request.url)})


# What the caller sees instead of the answer. A fault whose `enqueued` is true strikes after fal took the request.
_ANSWERS: dict[str, Callable[[web.Request, Args], web.Response]] = {
    "submit_lost_before": lambda request, _: wire.hang_up(request),
    "submit_lost_after": lambda request, _: wire.hang_up(request),
    "submit_reset": lambda request, _: wire.reset(request),
    "submit_429": lambda _, args: wire.too_many(args["retry_after"]),
    "submit_5xx": lambda _, args: wire.ingress_error(args["status"]),
    "submit_fal_5xx": lambda _, args: wire.fal_error(
        args["status"], "Could not schedule the request", args["error_type"], retryable=True
    ),
    "submit_malformed": lambda _, args: web.Response(text=args["body"], content_type="application/json"),
    "submit_401": lambda _request, _args: wire.unauthorized(),
    "submit_403": lambda _request, _args: wire.locked(),
    "submit_408": lambda _request, _args: wire.fal_error(408, "Request timeout"),
    "submit_redirect": _redirect,
}


class Submitting:
    """POST /fal-ai/krea-2/turbo."""

    def __init__(self, config: Config, queue: Queue, faults: Faults, ledger: Ledger) -> None:
        self._config, self._queue, self._faults, self._ledger = config, queue, faults, ledger

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.post(f"/{MODEL}", self.submit)]

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Take one request, or refuse it, or be struck by a fault before or after taking it."""
        self._ledger.counters["posts"] += 1
        raw = await request.read()
        struck = self._faults.first(*_ANSWERS, "submit_slow")
        if struck and not struck[1]["enqueued"]:
            return await self._spoil(request, *struck, None)
        generation = self._take(request, raw)
        if isinstance(generation, list):
            self._ledger.counters["refused"] += 1
            return wire.fal_error(422, generation)
        self._queue.add(generation)
        if struck:
            return await self._spoil(request, *struck, generation)
        return self._answer(request, generation)

    def _take(self, request: web.Request, raw: bytes) -> GenerationRequest | list[Detail]:
        try:
            arguments = json.loads(raw)
        except ValueError:
            return [{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]
        parsed = parse(arguments)
        if isinstance(parsed, list) and self._config.validate_at == "submit":
            return parsed
        return GenerationRequest(
            request_id=str(uuid.uuid4()),
            model=MODEL,
            arguments=arguments,
            input=None if isinstance(parsed, list) else parsed,
            origin=wire.origin(request, self._config.public_origin),
            callback_url=request.query.get("fal_webhook"),
            start_timeout=_start_timeout(request),
            low_priority=request.headers.get("X-Fal-Queue-Priority") == "low",
        )

    def _answer(self, request: web.Request, generation: GenerationRequest) -> web.Response:
        there = request.transport is not None and not request.transport.is_closing()
        self._replied(generation, "sent" if there else "lost")
        body = generation.taken(self._queue.position(generation))
        return web.json_response(body, headers={"X-Fal-Request-Id": generation.request_id})

    async def _spoil(
        self, request: web.Request, name: str, args: Args, generation: GenerationRequest | None
    ) -> web.Response:
        if name == "submit_slow":
            await asyncio.sleep(args["seconds"])
            if generation is None:  # slow and never taken: the proxy gives up
                return wire.ingress_error(504)
            return self._answer(request, generation)
        response = _ANSWERS[name](request, args)
        if generation is not None:
            self._replied(generation, "lost" if name in _LOST else name)
            if args.get("request_id"):
                response.headers["X-Fal-Request-Id"] = generation.request_id
        return response

    def _replied(self, generation: GenerationRequest, reply: str) -> None:
        generation.reply = reply
        self._ledger.note(generation)


def _start_timeout(request: web.Request) -> float | None:
    for name in _START_TIMEOUT_HEADERS:
        try:
            return float(request.headers[name])
        except (KeyError, ValueError):
            continue
    return None
