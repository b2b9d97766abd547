"""What the account can read about its past: the request listing and the billing events (fal-protocol §6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from simulator import wire
from simulator.faults import Faults
from simulator.generation import GenerationRequest, now, timestamp
from simulator.ledger import Ledger

_MOST = 100  # items a page
_MOST_IDS = 50
_UNIT_PRICE = 0.008  # US dollars a megapixel


class Account:
    """The routes of fal's platform interface that reconciling reads."""

    def __init__(self, faults: Faults, ledger: Ledger) -> None:
        self._faults, self._ledger = faults, ledger

    def routes(self) -> list[web.RouteDef]:
        """Listing and billing."""
        return [
            web.get("/v1/models/requests/by-endpoint", self.requests),
            web.get("/v1/models/billing-events", self.billing),
        ]

    async def requests(self, request: web.Request) -> web.StreamResponse:
        """Requests that ended within the window, the latest end first; those still running are not there."""
        self._ledger.counters["listing_gets"] += 1
        if self._faults.take("listing_403") is not None:
            return wire.fal_error(403, "This endpoint needs an API key with the ADMIN scope")
        if args := self._faults.take("listing_5xx"):
            return wire.ingress_error(args["status"])
        query = request.query
        try:
            endpoints = set(query.getall("endpoint_id"))
            end = _moment(query["end"]) if "end" in query else now()
            start = _moment(query["start"]) if "start" in query else end - timedelta(days=1)
            limit, before = int(query.get("limit", 50)), int(query.get("cursor", len(self._ledger.ended)))
        except (KeyError, ValueError) as error:
            return wire.fal_error(422, f"Unreadable query: {error}")
        if not (1 <= limit <= _MOST and 0 <= before <= len(self._ledger.ended)):
            return wire.fal_error(422, f"limit is 1 to {_MOST}, cursor is a next_cursor of an earlier page")
        payloads = "payloads" in query.get("expand", "")
        # `ended` only grows, in the order of ends: a place in it stays valid while newer requests end.
        items: list[dict[str, Any]] = []
        for place in range(before - 1, -1, -1):
            found = self._ledger.ended[place]
            if found.model in endpoints and found.ended_at and start <= found.ended_at <= end:
                if len(items) == limit:
                    return web.json_response({"items": items, "has_more": True, "next_cursor": str(place + 1)})
                items.append(_item(found, payloads=payloads))
        return web.json_response({"items": items, "has_more": False, "next_cursor": None})

    async def billing(self, request: web.Request) -> web.StreamResponse:
        """What was charged for up to 50 requests, named by `request_id` (repeated, or with commas)."""
        ids = [one for value in request.query.getall("request_id", []) for one in value.split(",") if one]
        if not 1 <= len(ids) <= _MOST_IDS:
            return wire.fal_error(422, f"request_id is needed, at most {_MOST_IDS} times")
        found = (self._ledger.requests.get(one) for one in ids)
        items = [_charge(one) for one in found if one and one.verdict and one.verdict.billed]
        return web.json_response({"items": items, "has_more": False, "next_cursor": None})


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _item(request: GenerationRequest, *, payloads: bool) -> dict[str, Any]:
    verdict = request.verdict
    assert verdict is not None, "only requests that ended are listed"
    item: dict[str, Any] = {
        "request_id": request.request_id,
        "endpoint_id": request.model,
        "sent_at": timestamp(request.received_at),
        "started_at": timestamp(request.started_at),
        "ended_at": timestamp(request.ended_at),
        "status_code": verdict.http_status,
        "duration": request.inference_seconds,
    }
    # With sync_mode the output is not available in the history (krea-2-turbo).
    hidden = request.input is not None and request.input.sync_mode
    return (
        item | {"json_input": request.arguments, "json_output": None if hidden else verdict.body} if payloads else item
    )


def _charge(request: GenerationRequest) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "endpoint_id": request.model,
        "timestamp": timestamp(request.ended_at),
        "output_units": float(request.units),
        "unit_price": _UNIT_PRICE,
    }
