"""The account's queue: so many requests run at a time, the rest wait without bound, each lives to its verdict."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from simulator.faults import Faults
from simulator.generation import GenerationRequest, Verdict, failed, now, refused
from simulator.ledger import Ledger
from simulator.pictures import Order, Studio
from simulator.schema import Input, parse, policy_violation

logger = logging.getLogger(__name__)


def picture_order(request: GenerationRequest, index: int) -> Order:
    """Which picture stands at `index` of a request: image i uses seed + i (krea-2-turbo)."""
    assert request.input is not None, "only a request with a readable input has pictures"
    width, height = request.input.size
    return Order(request.input.prompt, request.seed + index, width, height, request.input.output_format, request.unsafe)


def _time_to_start(request: GenerationRequest) -> float | None:
    """Seconds until it ends if it has not begun by then; None when nothing limits that, or it had begun before."""
    if request.start_timeout is None or request.started_at is not None:
        return None
    return request.start_timeout - (now() - request.received_at).total_seconds()


class Queue:
    """Runs requests. `on_end` is called once for each, after its verdict is set; it must not block.

    Only running requests count against `concurrency` (fal-protocol §2). A running request takes a log-normal time of
    mean `latency` seconds, and at least as long as its pictures take to be drawn.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        latency: float,
        sigma: float,
        seed: int,
        studio: Studio,
        faults: Faults,
        ledger: Ledger,
        on_end: Callable[[GenerationRequest], None],
    ) -> None:
        self._concurrency, self._latency, self._sigma = concurrency, latency, sigma
        self._dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._studio, self._faults, self._ledger, self._on_end = studio, faults, ledger, on_end
        # Dictionaries as ordered sets: the oldest first, and anyone can leave from the middle.
        self._waiting: dict[GenerationRequest, asyncio.TimerHandle | None] = {}
        self._waiting_low: dict[GenerationRequest, asyncio.TimerHandle | None] = {}
        self._running: dict[GenerationRequest, asyncio.Task[None]] = {}

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting) + len(self._waiting_low)

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    def add(self, request: GenerationRequest) -> None:
        """Take a request. It runs, or ends as a timeout if it has not begun within its start timeout."""
        self._ledger.accept(request)
        self._enqueue(request)
        self._start_next()

    def resume(self, unfinished: Iterable[GenerationRequest]) -> None:
        """Go on with what an earlier run left, given in the order in which it was taken.

        What ran then runs again, before all others. What waited may have waited too long by now.
        """
        waiting: list[GenerationRequest] = []
        for request in unfinished:
            left = _time_to_start(request)
            if left is not None and left <= 0:
                self._time_out(request)
            else:
                waiting.append(request)
        for request in waiting:
            self._enqueue(request)
        self._start_next()

    def position(self, request: GenerationRequest) -> int:
        """How many wait before this one, from 0."""
        for place, waiting in enumerate((*self._waiting, *self._waiting_low)):
            if waiting is request:
                return place
        return 0

    def cancel(self, request: GenerationRequest) -> bool:
        """Remove or stop a request; False when it had already ended. A cancelled one is not billed."""
        if request.verdict is not None:
            return False
        if request.state == "running" and self._faults.take("cancel_ignored") is not None:
            return True
        self._end(request, failed(499, "Request was cancelled", "client_cancelled", state="cancelled"))
        return True

    async def clear(self) -> None:
        """Drop everything that waits or runs, without a verdict, and wait until the runs have stopped."""
        for lane in (self._waiting, self._waiting_low):
            for timer in lane.values():
                if timer:
                    timer.cancel()
            lane.clear()
        runs = list(self._running.values())
        self._running.clear()
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _enqueue(self, request: GenerationRequest) -> None:
        # One that has run before comes first in its lane: it is older than all that waited there when it began.
        lane = self._waiting_low if request.low_priority and request.started_at is None else self._waiting
        left = _time_to_start(request)
        lane[request] = None if left is None else asyncio.get_running_loop().call_later(left, self._time_out, request)

    def _start_next(self) -> None:
        self._ledger.observe(queued=self.queued, running=self.running)
        while len(self._running) < self._concurrency and self.queued:
            lane = self._waiting or self._waiting_low
            request = next(iter(lane))
            self._leave_queue(request)
            request.started_at = now()
            request.move("running")
            self._ledger.note(request)
            self._running[request] = asyncio.get_running_loop().create_task(self._run(request))
        self._ledger.observe(queued=self.queued, running=self.running)

    async def _run(self, request: GenerationRequest) -> None:
        try:
            loop = asyncio.get_running_loop()
            ready_at = loop.time() + self._draw_latency()
            verdict = await self._generate(request)
            await asyncio.sleep(max(0.0, ready_at - loop.time()))
        except Exception:  # a runner's crash is fal's 500, and must not take a slot with it
            logger.exception("rendering %s failed", request.request_id)
            verdict = failed(500, "Internal server error", "runner_server_error", state="failed")
        self._end(request, verdict)

    async def _generate(self, request: GenerationRequest) -> Verdict:
        if args := self._faults.take("result_failed"):
            return failed(args["status"], "The runner went away", args["error_type"], state="failed")
        if args := self._faults.take("result_422"):
            return refused([policy_violation(request.arguments)], billed=args["billed"])
        if request.input is None:
            details = parse(request.arguments)
            assert isinstance(details, list), "a readable input is parsed at the submit"
            return refused(details)
        request.unsafe = request.input.enable_safety_checker and self._faults.take("unsafe") is not None
        request.seed = self._dice.getrandbits(32) if request.input.seed is None else request.input.seed
        images = [await self._image(request, request.input, index) for index in range(request.input.num_images)]
        output = {
            "images": images,
            "timings": {},  # known at the end
            "seed": request.seed,
            "has_nsfw_concepts": [request.unsafe] * len(images),
            "prompt": request.input.prompt,
        }
        return Verdict("completed", 200, output, billed=True)

    async def _image(self, request: GenerationRequest, wanted: Input, index: int) -> dict[str, Any]:
        order = picture_order(request, index)
        data = await self._studio.picture(order)
        content_type, name = f"image/{order.output_format}", f"{index}.{order.output_format}"
        url = f"{request.origin}/files/{request.request_id}/{name}"
        if wanted.sync_mode:
            url = f"data:{content_type};base64,{base64.b64encode(data).decode()}"
        return {
            "url": url,
            "content_type": content_type,
            "file_name": name,
            "file_size": len(data),
            "width": order.width,
            "height": order.height,
        }

    def _draw_latency(self) -> float:
        if self._latency <= 0 or self._sigma <= 0:
            return max(0.0, self._latency)
        return self._dice.lognormvariate(math.log(self._latency) - self._sigma**2 / 2, self._sigma)

    def _time_out(self, request: GenerationRequest) -> None:
        self._end(request, failed(504, "Request timed out before it started", "request_timeout", state="timeout"))

    def _leave_queue(self, request: GenerationRequest) -> None:
        for lane in (self._waiting, self._waiting_low):
            timer = lane.pop(request, None)
            if timer:
                timer.cancel()

    def _end(self, request: GenerationRequest, verdict: Verdict) -> None:
        self._leave_queue(request)
        run = self._running.pop(request, None)
        if run is not None and run is not asyncio.current_task():
            run.cancel()
        request.ended_at, request.verdict = now(), verdict
        if verdict.state == "completed":
            verdict.body["timings"]["inference"] = round(request.inference_seconds, 3)
        request.move(verdict.state)
        self._ledger.end(request)
        self._start_next()
        self._on_end(request)
