"""What the tests share: an API that says what a test wants, on a real socket, and jobs as the API shows them."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from darkroom_client.patience import Patience
from darkroom_client.steps import Answer, Emit, Sleep

JOB_ID = "job_01m82mv3xn5ah36j5nkskpc6ff"
BATCH_ID = "batch_01m82mv3xn5ah36j5nkskpc6ff"
SECRET_KEY = "dk_recognisable"
QUICK = Patience(retries=2, first_delay=0.01, longest_delay=2.0)
Run = Callable[[Callable[[Any], Any]], Any]
"""Runs a use of a client, and gives what that gives."""

PICTURE = b"\x89PNG not really, but bytes" * 5000


def job_document(status: str = "succeeded", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A job as the API shows it."""
    return {
        "id": JOB_ID,
        "object": "job",
        "status": status,
        "stage": None if status in {"succeeded", "failed", "cancelled"} else "generating",
        "model": "fal-ai/krea-2/turbo",
        "input": {"prompt": "a fox", "seed": 7},
        "lane": "interactive",
        "cost": {"estimated_usd": 0.0084, "actual_usd": 0.0084, "billable_units": 1.05},
        "created_at": "2026-11-22T22:06:24Z",
        **more,
    }


def batch_document(status: str = "running", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A batch as the API shows it: of 60 jobs, where not said otherwise. `counts` and `cost` name what differs."""
    ended = status in {"completed", "cancelled", "failed", "expired"}
    counts = dict.fromkeys(("total", "queued", "running", "retrying", "held", "succeeded", "failed", "cancelled"), 0)
    return {
        "id": BATCH_ID,
        "object": "batch",
        "name": "prompts.jsonl",
        "status": status,
        "status_reason": None,
        "valid": 60,
        "invalid": 0,
        "errors": [],
        "failures": [],
        "rate_per_minute": 0.0,
        "eta": None,
        "forecast": None,
        "on_invalid": "reject",
        "created_at": "2026-11-25T18:00:00Z",
        "started_at": "2026-11-25T18:00:01Z",
        "finished_at": "2026-11-25T18:01:00Z" if ended else None,
        **more,
        "counts": counts | {"total": 60} | more.get("counts", {}),
        "cost": {"spent_usd": 0.0, "reserved_usd": 0.0, "expected_usd": 0.5033, "budget_usd": None}
        | more.get("cost", {}),
    }


def result_document(line: int, url: str, *, picture: bytes = PICTURE, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A row of a batch's results, with one picture and its thumbnail below that URL."""
    path, thumb = f"images/{line}-0.png", f"thumbs/{line}-0.jpg"
    image = image_document(f"{url}/{path}", bytes=len(picture), sha256=hashlib.sha256(picture).hexdigest())
    return {
        "line": line,
        "custom_id": None,
        "job_id": f"job_{line}",
        "status": "succeeded",
        "input": {"prompt": f"number {line}", "seed": line},
        "metadata": {},
        "images": [image | {"path": path, "thumbnail": {"path": thumb, "key": f"b/{thumb}", "url": f"{url}/{thumb}"}}],
        "warnings": [],
        "cost_usd": 0.0084,
        "finished_at": "2026-11-25T18:00:30Z",
        **more,
    }


def lines(*documents: object, **more: Any) -> Said:  # noqa: ANN401 - Said's
    """Lines of JSON."""
    return Said(body="".join(json.dumps(document) + "\n" for document in documents).encode(), **more)


def image_document(url: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A stored picture, whose bytes are PICTURE."""
    return {
        "index": 0,
        "url": url,
        "bucket": "darkroom",
        "key": f"renders/{JOB_ID}/0.png",
        "content_type": "image/png",
        "width": 1024,
        "height": 1024,
        "bytes": len(PICTURE),
        "sha256": hashlib.sha256(PICTURE).hexdigest(),
        "seed": 7,
        **more,
    }


def answer(status: int, document: object = None, **headers: str) -> Answer:
    """An answer for a plan that is driven by hand. `Retry_After="3"` is that header."""
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Answer(status, named, json.dumps(document).encode())


def problem(status: int, code: str, **more: object) -> dict[str, object]:
    """A problem document."""
    return {
        "type": f"/problems/{code}",
        "title": code,
        "status": status,
        "detail": f"it is {code}",
        "code": code,
        **more,
    }


class Clock:
    """Stands still unless told. Its patience takes all of each backoff."""

    def __init__(self) -> None:
        self.now = 100.0

    def patience(self, **more: Any) -> Patience:  # noqa: ANN401 - Patience's fields
        """A Patience by this clock."""
        return Patience(**{"jitter": lambda: 1.0, "clock": lambda: self.now, **more})


@dataclass
class Driven:
    """A plan that a test drives: `steps` it took but sleeps, `sleeps`, `items` it emitted, and its `result`."""

    plan: Generator[Any, Any, Any]
    clock: Clock
    steps: list[Any] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    result: Any = None

    def give(self, *outcomes: Any) -> Self:  # noqa: ANN401 - what steps bring back
        """Run it with these outcomes; a callable is called for one. It must need them all, and no more."""
        waiting = deque(outcomes)
        outcome: Any = None
        while True:
            try:
                step = self.plan.send(outcome)
            except StopIteration as end:
                self.result = end.value
                break
            outcome = None
            if isinstance(step, Sleep):
                self.sleeps.append(step.seconds)
                self.clock.now += step.seconds
            elif isinstance(step, Emit):
                self.items.append(step.item)
            else:
                self.steps.append(step)
                assert waiting, f"one more step than expected: {step}"
                outcome = waiting.popleft()
                outcome = outcome() if callable(outcome) else outcome
        assert not waiting, f"not needed: {list(waiting)}"
        return self


@dataclass(frozen=True)
class Said:
    """What the server says to one request. `cut` bytes of the body are held back and the connection is closed."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    drop: bool = False
    """Close without any answer."""


def says(document: object, status: int = 200, **headers: str) -> Said:
    """JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Said(status, json.dumps(document).encode(), {"Content-Type": "application/json", **named})


@dataclass(frozen=True)
class Heard:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Entered, listens at `url`, and says to each request what comes next in `script`; to those beyond it, 500.

    A path in `places` has words of its own, whenever it is asked for.
    """

    def __init__(self) -> None:
        self.script: deque[Said] = deque()
        self.places: dict[str, Callable[[Heard], Said]] = {}
        self.heard: list[Heard] = []
        self.arrived = threading.Semaphore(0)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                heard = Heard(self.command, self.path, headers, self._body())
                server.heard.append(heard)
                server.arrived.release()
                said = server.say(heard)
                if said.drop:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body[: len(said.body) - said.cut])
                if said.cut:
                    self.close_connection = True

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length", 0)))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the parent's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name for it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def say(self, heard: Heard) -> Said:
        """What is said to a request."""
        place = self.places.get(heard.target.partition("?")[0])
        if place is not None:
            return place(heard)
        return self.script.popleft() if self.script else Said(500)

    def then(self, *said: Said) -> None:
        """Say these next."""
        self.script.extend(said)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
