"""What an end-to-end test does with a running stack: ask for pictures, trouble the simulator, read its ledger."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from standardwebhooks import Webhook

from infra.local.ports import LOOPBACK
from infra.local.stack import Stack
from tests.e2e.test_local_commands import bare_environment

ENDED = {"succeeded", "failed", "cancelled"}

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    """The first answer of `look` that is true. What other processes do sets no event of ours, so this looks again."""
    give_up_at = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
    return found


class Studio:
    """A stack with its API, and fal behind it. Jobs are told apart in fal's ledger by their prompt."""

    def __init__(self, stack: Stack, api: httpx.Client, fal: httpx.Client) -> None:
        self.stack = stack
        self.api = api
        self.fal = fal

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def ask(self, prompt: str, *, size: object = "square", **more: Any) -> str:  # noqa: ANN401 - any JSON
        """Post a job; its id."""
        answer = self.api.post("/v1/jobs", json={"input": {"prompt": prompt, "image_size": size}, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str, *, wait: int = 0) -> dict[str, Any]:
        """The job as the API shows it."""
        answer = self.api.get(f"/v1/jobs/{job_id}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """The job once it has ended."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id, wait=10)
            return job if job["status"] in ENDED else None

        return eventually(look, f"the end of {job_id}, which is {self.job(job_id)}", seconds)

    def in_stage(self, job_id: str, *stages: str) -> dict[str, Any]:
        """The job once it is in one of these stages."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            assert job["status"] not in ENDED, job
            return job if job["stage"] in stages else None

        return eventually(look, f"{job_id} in {stages}")

    # -- fal -----------------------------------------------------------------------------------------------------------

    def arm(self, name: str, *, times: int | None = None, rate: float | None = None, **args: object) -> None:
        """Let a fault strike at fal."""
        wish = {"name": name, "times": times, "rate": rate, "args": args}
        assert self.fal.post("/_sim/faults", json=wish).status_code == 200

    def disarm(self) -> None:
        """No fault strikes any more."""
        assert self.fal.delete("/_sim/faults").status_code == 200

    def requests(self, prompt: str) -> list[dict[str, Any]]:
        """What fal took with that prompt, in order."""
        return [entry for entry in self.ledger()["requests"] if entry["input"]["prompt"] == prompt]

    def ledger(self) -> dict[str, Any]:
        """The whole ledger of fal."""
        document: dict[str, Any] = self.fal.get("/_sim/ledger").json()
        return document

    def rendering(self, prompt: str) -> list[dict[str, Any]]:
        """What fal is working on with that prompt."""
        return [entry for entry in self.requests(prompt) if entry["outcome"] == "running"]

    # -- processes -----------------------------------------------------------------------------------------------------

    def kill_workers(self) -> None:
        """End all of them with kill -9; they stay down."""
        for worker in self.stack.workers:
            worker.kill()

    def start_workers(self) -> None:
        """Start those that are down."""
        for worker in self.stack.workers:
            worker.start()
        for worker in self.stack.workers:
            worker.wait_ready()

    @property
    def degraded(self) -> list[str]:
        """What /readyz complains of."""
        answer = self.api.get("/readyz")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["degraded"])


@contextmanager
def studio(
    path: Path, *, workers: int = 1, simulator: tuple[str, ...] = (), environment: Mapping[str, str]
) -> Iterator[Studio]:
    """A stack of one's own. `simulator` are arguments, `environment` is added to a bare one."""
    own = bare_environment(DARKROOM_LEASE_SECONDS="3", **environment)
    with Stack(path, environment=own, workers=workers, simulator_arguments=simulator) as stack:
        assert stack.simulator is not None
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        with (
            httpx.Client(base_url=stack.url, headers=headers, timeout=90, trust_env=False) as api,
            httpx.Client(base_url=stack.simulator.url, timeout=30, trust_env=False) as fal,
        ):
            yield Studio(stack, api, fal)


# a receiver of webhooks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hook:
    """One POST as it arrived, and what it was answered."""

    headers: dict[str, str]
    body: bytes
    answered: int

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """Its document, if it was signed with that secret; raises otherwise."""
        document: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return document


class Receiver:
    """Entered, listens at `url`. Answers `first` to as many POSTs as that has entries, then 204."""

    def __init__(self, *first: int) -> None:
        answers = iter(first)
        self.hooks: queue.Queue[Hook] = queue.Queue()
        received = self.hooks

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = next(answers, 204)
                self.send_response(status)
                self.end_headers()
                received.put(Hook({name.lower(): value for name, value in self.headers.items()}, body, status))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name for it
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/hooks"

    def next(self, seconds: float = 30) -> Hook:
        """The next one to arrive; raises queue.Empty when none does in time."""
        return self.hooks.get(timeout=seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
