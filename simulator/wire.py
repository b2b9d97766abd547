"""Answers as they look on the wire: fal's own words, the ingress's HTML, and connections that die."""

from __future__ import annotations

import socket
import struct
from typing import Any

from aiohttp import web


def fal_error(status: int, detail: object, error_type: str | None = None, *, retryable: bool = False) -> web.Response:
    """An error in fal's own words: JSON with `detail`, and with `error_type` also the X-Fal-Error-Type header."""
    body: dict[str, Any] = {"detail": detail}
    headers = {}
    if error_type:
        body["error_type"] = error_type
        headers = {"X-Fal-Error-Type": error_type, "X-Fal-Retryable": "true" if retryable else "false"}
    return web.json_response(body, status=status, headers=headers)


def ingress_error(status: int) -> web.Response:
    """An error of the proxy before fal: HTML that says nothing about what happened behind it."""
    reason = web.Response(status=status).reason
    text = f"<html><head><title>{status} {reason}</title></head><body><center><h1>{status} {reason}</h1></center>"
    return web.Response(status=status, content_type="text/html", text=f"{text}<hr><center>nginx</center></body></html>")


def too_many(retry_after: float | None) -> web.Response:
    """A 429 as fal words it; Retry-After is not documented there, and comes only if asked for."""
    response = fal_error(429, "Too many concurrent requests", "concurrent_requests_limit")
    if retry_after is not None:
        response.headers["Retry-After"] = f"{retry_after:g}"
    return response


def unauthorized() -> web.Response:
    """A missing or wrong key."""
    return fal_error(401, "Authentication is required to access this application. Please provide a valid API key.")


def locked() -> web.Response:
    """An account without balance."""
    message = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
    return fal_error(403, message)


def not_found(what: str) -> web.Response:
    """What fal does not know, or no longer."""
    return fal_error(404, f"{what} not found")


def hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer; the response that is returned can no longer be written."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.Response:
    """Tear the connection down with a TCP reset; the response that is returned can no longer be written."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        # Lingering for 0 seconds makes the kernel send RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def origin(request: web.Request, public_origin: str | None) -> str:
    """What URLs for this caller begin with, without a slash at the end."""
    return (public_origin or f"{request.scheme}://{request.host}").rstrip("/")
