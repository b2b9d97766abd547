"""`darkroom-worker`: Celery's thread pool in front, the engine's event loop behind, and an end by our own clock."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading

from celery.signals import setup_logging, worker_shutting_down
from prometheus_client import start_http_server

from darkroom import logs
from darkroom.adapters.celery import make_app
from darkroom.settings import WorkerSettings, load
from worker.loop import DRAIN_SECONDS, LoopThread
from worker.metrics import registry_of
from worker.tasks import register

logger = logging.getLogger(__name__)

_THREADS = 8
"""Celery's pool: its threads only hand ids over, and wait while the engine is full."""

_EXIT_SECONDS = DRAIN_SECONDS + 5.0
"""After SIGTERM the process is gone by then, whatever Celery's pool still waits for."""


def main() -> None:
    """Run a worker until SIGTERM or Ctrl-C; jobs that it held are finished or given back within 20 s."""
    settings = load(WorkerSettings)
    logs.configure(settings.log_format)
    # Whoever listens to this signal sets up logging: Celery then leaves it alone.
    setup_logging.connect(lambda **_: None, weak=False)
    app = make_app(settings.redis_url.get_secret_value())
    loop = LoopThread(settings, app, on_failure=lambda _: os._exit(1))
    try:
        rooms = loop.start()
    except (ValueError, OSError) as exc:
        sys.exit(f"darkroom-worker: {exc}")
    register(app, run_job=loop.take_job, deliver=loop.take_delivery)
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port, registry=registry_of(rooms.engine))

    asked = threading.Event()

    def begin_to_stop(**_: object) -> None:
        asked.set()
        # From a signal handler: the jobs are given back in another thread, while Celery stops consuming.
        threading.Thread(target=_leave, args=(loop,), daemon=True, name="leave").start()

    worker_shutting_down.connect(begin_to_stop, weak=False)
    worker = app.Worker(
        pool="threads",
        concurrency=_THREADS,
        queues=",".join(settings.worker_queues),
        hostname=f"darkroom-{os.getpid()}@{socket.gethostname()}",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    logger.info("working on %s, %d jobs at once", ", ".join(settings.worker_queues), settings.worker_concurrency)
    worker.start()
    if not asked.is_set():
        # Celery ends by itself on an answer of the broker that it does not know, and calls that a warm shutdown.
        logger.critical("Celery's consumer ended by itself: this worker ends")
    _leave(loop, exit_code=0 if asked.is_set() else 1)


def _leave(loop: LoopThread, *, exit_code: int = 0) -> None:
    """Give the jobs back and end the process: Celery's thread pool does not exit while its tasks run."""
    in_time = loop.stop(_EXIT_SECONDS)
    logger.info("every job is given back" if in_time else "some jobs are left to the rescue")
    logging.shutdown()
    os._exit(exit_code if in_time else 1)


if __name__ == "__main__":
    main()
