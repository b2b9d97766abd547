"""The thread that runs the worker's event loop, and the way into it from Celery's threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

from celery import Celery

from darkroom.domain.errors import UnavailableError
from darkroom.settings import WorkerSettings
from worker.compose import Rooms, compose

logger = logging.getLogger(__name__)


class LoopThread:
    """Owns the event loop and the rooms on it. `on_failure` is called from the loop's thread when it cannot go on."""

    def __init__(self, settings: WorkerSettings, app: Celery, on_failure: Callable[[BaseException], object]) -> None:
        self._settings = settings
        self._app = app
        self._on_failure = on_failure
        self._loop = asyncio.new_event_loop()
        self._ready: Future[Rooms] = Future()
        self._stop = asyncio.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def start(self) -> Rooms:
        """Start the thread; returns when the rooms are built. Waits while Redis is away."""
        self._thread.start()
        return self._ready.result()

    def take_job(self, job_id: str) -> None:
        """Hand a job over; blocks until it is claimed, or the message proved stale."""
        self._call(self._rooms.engine.take_job(job_id))

    def take_delivery(self, delivery_id: str) -> None:
        """Hand a delivery over; blocks while the engine is full."""
        self._call(self._rooms.engine.take_delivery(delivery_id))

    def stop(self, grace: float) -> bool:
        """Give every job back and end the loop. False when that took longer than `grace` seconds.

        What a paid POST takes, or the saving of its reply, is not counted.
        """
        self._loop.call_soon_threadsafe(self._stop.set)
        while not self._ended.wait(grace):
            if not self._rooms.engine.saving:
                return False
        return True

    @property
    def _rooms(self) -> Rooms:
        return self._ready.result()

    def _call(self, step: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(step, self._loop).result()
        except (CancelledError, RuntimeError):
            # The loop is ending; the message's timer sends it again, to another worker.
            step.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as exc:
            if not self._ready.done():
                self._ready.set_exception(exc)
            else:
                logger.exception("the event loop broke")
                self._on_failure(exc)
        finally:
            self._ended.set()

    async def _main(self) -> None:
        rooms = await self._compose()
        self._ready.set_result(rooms)
        engine = rooms.engine
        loops = [
            asyncio.create_task(step)
            for step in (rooms.ticker.run(), engine.keep_leases(), engine.heed_wishes(), rooms.watchdog.run())
        ]
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stop, *loops}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            task.result()
        # Leases are kept while jobs are given back: what is being saved must not be taken for dead.
        # The ticker is gone before: what it takes from the outbox on its way out would be lost until its timer.
        for task in (loops[0], loops[3]):
            task.cancel()
        await asyncio.wait({loops[0], loops[3]})
        await engine.drain(DRAIN_SECONDS)
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await rooms.close()

    async def _compose(self) -> Rooms:
        said = False
        while True:
            try:
                return await compose(self._settings, self._app)
            except UnavailableError as error:
                if not said:
                    logger.warning("waiting for Redis: %s", error.message)
                said = True
                await asyncio.sleep(0.5)


DRAIN_SECONDS = 15.0
