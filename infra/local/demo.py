"""`make demo`: one picture through the whole of Darkroom, from a prompt to a file, and proof of every step."""

from __future__ import annotations

import io
import os
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from infra.local.datadir import StackRunsError
from infra.local.ports import PortBusyError
from infra.local.program import ProgramFailedError
from infra.local.receiver import Received, Receiver
from infra.local.signals import AskedToStop, stop_on_signals
from infra.local.stack import Stack
from infra.local.terminal import Terminal

DATA = Path(".darkroom/demo")
PICTURES = Path("out")
PROMPT = "a vintage travel poster for Mars"

_SQUARE_HD = (1024, 1024)  # the model's default size
_SIMULATED_SECONDS = 90.0
_REAL_SECONDS = 900.0  # fal may queue a request for minutes
_WEBHOOK_SECONDS = 30.0
_FINAL = {"succeeded", "failed", "cancelled"}


class DemoFailedError(Exception):
    """Something that had to happen did not. The message says what, in plain words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the demo proved."""

    job: dict[str, Any]
    picture: Path
    received: Received


def main() -> int:
    """Returns the exit code: 0 only when the picture, the webhook and the bill are all there."""
    out = Terminal()
    stop_on_signals()
    prompt = os.environ.get("PROMPT") or PROMPT
    stack = Stack(DATA, environment=os.environ, workers=1, say=out.line)
    out.line(f"\n  {out.strong('Darkroom')}: {prompt}\n")
    started = time.monotonic()
    try:
        out.progress("stack", "starting", 0)
        with stack:
            programs = ", ".join(program.name for program in stack.programs)
            out.done("stack", f"ready in {time.monotonic() - started:.1f} s ({programs})")
            outcome = Demo(stack, out).run(prompt)
            out.progress("stack", "stopping", 0)
    except AskedToStop:
        out.failed("stopped", "before the picture was there")
        return 1
    except (StackRunsError, PortBusyError, ProgramFailedError, DemoFailedError, httpx.HTTPError) as error:
        out.failed("failed", str(error) or type(error).__name__)
        out.line(f"\n  logs: {stack.logs}/")
        return 1
    out.done("stack", "stopped")
    summarise(outcome, out)
    return 0


class Demo:
    """The way of one job, seen from outside."""

    def __init__(self, stack: Stack, out: Terminal) -> None:
        self._stack = stack
        self._out = out
        self._patience = _SIMULATED_SECONDS if stack.simulator else _REAL_SECONDS

    def run(self, prompt: str) -> Outcome:
        """Ask for a picture, watch it come, fetch it from S3, and hear of it.

        Raises:
            DemoFailedError: a step did not come true.
        """
        headers = {"Authorization": f"Bearer {self._stack.api_key}"}
        # trust_env: no proxy of the user's between us and this machine.
        with (
            httpx.Client(base_url=self._stack.url, headers=headers, timeout=30, trust_env=False) as api,
            Receiver(_expect(api.get("/v1/webhook-secret"), 200)["secret"]) as receiver,
        ):
            request = {"input": {"prompt": prompt}, "webhook_url": receiver.url}
            job = _expect(api.post("/v1/jobs", json=request), 202)
            self._out.done("accepted", job["id"])
            job = self._watch(api, job)
            picture = self._fetch(job)
            received = receiver.wait(job["id"], _WEBHOOK_SECONDS)
        if received is None:
            raise DemoFailedError(f"no webhook arrived within {_WEBHOOK_SECONDS:.0f} s")
        if not received.verified or received.type != "job.succeeded":
            raise DemoFailedError(f"the webhook was {received.type}, its signature right: {received.verified}")
        self._out.done("webhook", f"{received.type}, signature verified")
        return Outcome(job, picture, received)

    def _watch(self, api: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        while job["status"] not in _FINAL:
            passed = time.monotonic() - started
            if passed > self._patience:
                raise DemoFailedError(f"the job is still {_state(job)} after {passed:.0f} s")
            self._out.progress("job", _state(job), passed)
            time.sleep(0.1)
            job = _expect(api.get(f"/v1/jobs/{job['id']}"), 200)
        if job["status"] != "succeeded":
            error = job.get("error") or {}
            raise DemoFailedError(f"the job {job['status']}: {error.get('code')}: {error.get('message')}")
        self._out.done("rendered", f"in {time.monotonic() - started:.1f} s")
        return job

    def _fetch(self, job: dict[str, Any]) -> Path:
        image = job["images"][0]
        # An S3 elsewhere may need the user's proxy; ours is on this machine.
        answer = httpx.get(image["url"], timeout=60, trust_env=self._stack.s3 is None)
        if answer.status_code != 200:
            raise DemoFailedError(f"S3 answered {answer.status_code} to the picture's URL: {answer.text[:200]}")
        size, kind = measure(answer.content)
        if size != _SQUARE_HD or size != (image["width"], image["height"]):
            raise DemoFailedError(f"the picture is {size}, the job says {(image['width'], image['height'])}")
        PICTURES.mkdir(exist_ok=True)
        picture = PICTURES / f"{job['id']}-0.png"
        picture.write_bytes(answer.content)
        self._out.done("picture", f"{size[0]} x {size[1]} {kind}, {len(answer.content) / 1e6:.1f} MB, from S3")
        return picture


def measure(content: bytes) -> tuple[tuple[int, int], str]:
    """Width and height in pixels, and the format, of a picture that decodes to its last byte.

    Raises:
        DemoFailedError: it is not one.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture.size, str(picture.format)
    except OSError as error:
        raise DemoFailedError(f"what lies in S3 is not a readable picture: {error}") from error


def summarise(outcome: Outcome, out: Terminal) -> None:
    """Print what is there now."""
    job, image = outcome.job, outcome.job["images"][0]
    cost = job["cost"]
    out.line()
    out.fact("job", job["id"])
    out.fact("S3 key", f"s3://{image['bucket']}/{image['key']}")
    out.fact("webhook", f"{outcome.received.type} {outcome.received.id} (signature verified)")
    out.fact("cost", f"{dollars(cost['actual_usd'])} (estimated {dollars(cost['estimated_usd'])})")
    out.fact("picture", out.strong(f"./{outcome.picture}"))
    out.line()


def dollars(amount: str | float | None) -> str:
    """An amount with four decimals; fal may not have said one."""
    return "unknown" if amount is None else f"${Decimal(str(amount)):.4f}"


def _state(job: dict[str, Any]) -> str:
    return str(job.get("stage") or job["status"]).replace("_", " ")


def _expect(answer: httpx.Response, status: int) -> dict[str, Any]:
    if answer.status_code != status:
        raise DemoFailedError(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text[:500]}"
        )
    document = answer.json()
    if not isinstance(document, dict):
        raise DemoFailedError(f"{answer.request.url.path} answered with something that is no object")
    return document


if __name__ == "__main__":
    sys.exit(main())
