"""What is asked about a request that fal took: its status, the stream of its changes, its result, its end on demand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from simulator import wire
from simulator.config import MODEL
from simulator.faults import Faults
from simulator.generation import GenerationRequest, now
from simulator.ledger import Ledger
from simulator.queue import Queue

_PING_SECONDS = 15.0
_APP = "/".join(MODEL.split("/")[:2])
_STATUS_FAULTS = ("status_5xx", "status_429", "status_401", "status_403", "status_404", "status_reset")
_RESULT_FAULTS = ("result_5xx", "result_expired", "result_pending")


class Watching:
    """The routes under /fal-ai/krea-2/requests; the same under the full slug answer 405, as fal's do."""

    def __init__(self, queue: Queue, faults: Faults, ledger: Ledger, *, result_ttl: float) -> None:
        self._queue, self._faults, self._ledger, self._result_ttl = queue, faults, ledger, result_ttl

    def routes(self) -> list[web.RouteDef]:
        """Status, stream, result and cancel."""
        base = f"/{_APP}/requests/{{request_id}}"
        return [
            web.get(base, self.result),
            web.get(f"{base}/status", self.status),
            web.get(f"{base}/status/stream", self.stream),
            web.put(f"{base}/cancel", self.cancel),
            web.route("*", f"/{MODEL}/requests/{{tail:.*}}", self.wrong_slug),
        ]

    async def status(self, request: web.Request) -> web.StreamResponse:
        """202 while it waits or runs, 200 when it is COMPLETED."""
        self._ledger.counters["status_gets"] += 1
        if struck := self._faults.first(*_STATUS_FAULTS):
            return _status_fault(request, *struck)
        generation = self._find(request)
        if generation is None:
            return wire.not_found("Request")
        code = 202 if generation.verdict is None else 200
        return web.json_response(self._status(request, generation), status=code, headers=_named(generation))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the status now and after each change, until COMPLETED."""
        self._ledger.counters["status_streams"] += 1
        if struck := self._faults.first(*_STATUS_FAULTS):
            return _status_fault(request, *struck)
        generation = self._find(request)
        if generation is None:
            return wire.not_found("Request")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        while True:
            change = asyncio.ensure_future(generation.changed())
            ended = generation.verdict is not None
            try:
                await response.write(f"data: {json.dumps(self._status(request, generation))}\n\n".encode())
                while not ended and not change.done():
                    await asyncio.wait({change}, timeout=_PING_SECONDS)
                    if not change.done():
                        await response.write(b": ping\n\n")
            finally:
                change.cancel()
            if ended:
                return response

    async def result(self, request: web.Request) -> web.StreamResponse:
        """The model's own status code, headers and JSON; 400 while there is none, 404 when it has expired."""
        self._ledger.counters["result_gets"] += 1
        generation = self._find(request)
        if generation is None:
            return wire.not_found("Request")
        verdict = generation.verdict
        if verdict is None or generation.ended_at is None:
            return wire.fal_error(400, "Request is still in progress")
        if (now() - generation.ended_at).total_seconds() > self._result_ttl:
            return wire.not_found("Result")
        if struck := self._faults.first(*_RESULT_FAULTS):
            return _result_fault(*struck)
        headers = (
            {**_named(generation), "X-Fal-Billable-Units": str(generation.units)}
            if verdict.billed
            else _named(generation)
        )
        if verdict.error_type:
            headers |= {
                "X-Fal-Error-Type": verdict.error_type,
                "X-Fal-Retryable": "true" if verdict.http_status == 503 else "false",
            }
        if generation.state == "timeout":
            headers["X-Fal-Request-Timeout-Type"] = "user"
        return web.json_response(verdict.body, status=verdict.http_status, headers=headers)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """202 when the wish was taken, 400 when it came too late, 404 for what is unknown."""
        self._ledger.counters["cancel_puts"] += 1
        generation = self._find(request)
        if generation is None or self._faults.take("cancel_404") is not None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        if not self._queue.cancel(generation):
            return web.json_response({"status": "ALREADY_COMPLETED"}, status=400, headers=_named(generation))
        return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202, headers=_named(generation))

    async def wrong_slug(self, _: web.Request) -> web.StreamResponse:
        """Request URLs leave the nested path out; those that do not are refused."""
        return wire.fal_error(405, "Method Not Allowed")

    def _find(self, request: web.Request) -> GenerationRequest | None:
        return self._ledger.requests.get(request.match_info["request_id"])

    def _status(self, request: web.Request, generation: GenerationRequest) -> dict[str, Any]:
        logs = request.query.get("logs", "").lower() in {"1", "true"}
        position = self._queue.position(generation) if generation.state == "queued" else 0
        return generation.status(position, logs=logs)


def _named(generation: GenerationRequest) -> dict[str, str]:
    return {"X-Fal-Request-Id": generation.request_id}


def _status_fault(request: web.Request, name: str, args: dict[str, Any]) -> web.Response:
    match name:
        case "status_reset":
            return wire.reset(request)
        case "status_429":
            return wire.too_many(args["retry_after"])
        case "status_401":
            return wire.unauthorized()
        case "status_403":
            return wire.locked()
        case "status_404":
            return wire.not_found("Request")
        case _:
            return wire.ingress_error(args["status"])


def _result_fault(name: str, args: dict[str, Any]) -> web.Response:
    match name:
        case "result_expired":
            return wire.not_found("Result")
        case "result_pending":
            return wire.fal_error(args["status"], "Request is still in progress")
        case _:
            return wire.ingress_error(args["status"])
