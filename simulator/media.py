"""The media host: pictures by URL, without a key, and the ways in which a download goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from simulator import wire
from simulator.faults import Faults
from simulator.ledger import Ledger
from simulator.pictures import Studio
from simulator.queue import picture_order

_FAULTS = ("media_404", "media_5xx", "media_not_image", "media_truncated", "media_slow")


class Media:
    """GET /files/{request_id}/{index}.{format}."""

    def __init__(self, studio: Studio, faults: Faults, ledger: Ledger) -> None:
        self._studio, self._faults, self._ledger = studio, faults, ledger

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.get(r"/files/{request_id}/{index:\d}.{format:png|jpeg}", self.picture)]

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """One picture of a completed request."""
        self._ledger.counters["media_gets"] += 1
        generation = self._ledger.requests.get(request.match_info["request_id"])
        index, wanted = int(request.match_info["index"]), request.match_info["format"]
        if generation is None or generation.state != "completed" or generation.input is None:
            return wire.not_found("File")
        if wanted != generation.input.output_format or index >= generation.input.num_images:
            return wire.not_found("File")
        data = await self._studio.picture(picture_order(generation, index))
        if struck := self._faults.first(*_FAULTS):
            return await _spoiled(request, *struck, data, f"image/{wanted}")
        return web.Response(body=data, content_type=f"image/{wanted}")


async def _spoiled(
    request: web.Request, name: str, args: dict[str, Any], data: bytes, content_type: str
) -> web.StreamResponse:
    half = data[: len(data) // 2]
    match name:
        case "media_404":
            return wire.not_found("File")
        case "media_5xx":
            return wire.ingress_error(args["status"])
        case "media_not_image":
            return web.Response(body=b"<html><body>Not today.</body></html>", content_type=content_type)
        case "media_truncated" if args["variant"] == "silent":
            return web.Response(body=half, content_type=content_type)
    response = web.StreamResponse(headers={"Content-Type": content_type, "Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(half)
    if name == "media_slow":
        await asyncio.sleep(args["seconds"])
        await response.write(data[len(half) :])
    elif request.transport is not None:
        request.transport.close()  # what is buffered still goes out; the rest of the announced length never does
    return response
