"""A webhook receiver on loopback that believes only what is signed, as a caller of Darkroom would write it."""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

from infra.local.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook: its `webhook-id`, its body, and whether its signature was right."""

    id: str
    body: dict[str, Any]
    verified: bool

    @property
    def type(self) -> str:
        """The event's type, such as job.succeeded."""
        return str(self.body.get("type"))


class Receiver:
    """Entered, it listens at `url` on a port of its own. Answers 204 to a right signature and 401 to a wrong one."""

    def __init__(self, secret: str) -> None:
        """`secret` is the account's, `whsec_…`."""
        self._arrived: queue.Queue[Received] = queue.Queue()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(Webhook(secret), self._arrived))
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook-receiver", daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/webhook"

    def wait(self, job_id: str, seconds: float) -> Received | None:
        """The first webhook about that job, or None when none came in time."""
        try:
            while True:
                received = self._arrived.get(timeout=seconds)
                if received.body.get("data", {}).get("id") == job_id:
                    return received
        except queue.Empty:
            return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(webhook: Webhook, arrived: queue.Queue[Received]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for one request to arrive

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
            except WebhookVerificationError:
                verified = False
            else:
                verified = True
            self.send_response(204 if verified else 401)
            self.end_headers()
            try:
                document = json.loads(body)
            except ValueError:
                return
            if isinstance(document, dict):
                arrived.put(Received(self.headers.get("webhook-id", ""), document, verified))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the parent's name for it
            """Say nothing: the demo's terminal is for a person."""

    return Handler
