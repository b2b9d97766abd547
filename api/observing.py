"""Around every request: one access line, the metrics, and the headers that all answers carry."""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import HttpMetrics

logger = logging.getLogger("api.access")

_SILENT: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_CLIENT_GONE: Final = 499


class Observing:
    """Logs without query strings and without the callback's token: the path is replaced by its route's template."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CLIENT_GONE
        private = scope["path"].startswith("/v1/")

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if private:
                    headers["Cache-Control"] = "no-store"  # signed URLs and secrets
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.observe(scope["method"], route, status, seconds)
        if route not in _SILENT:
            facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            named = scope.get("path_params", {})
            facts |= {name: value for name, value in named.items() if name in {"job_id", "batch_id", "delivery_id"}}
            logger.info("%s %s %d", scope["method"], route, status, extra=facts)
