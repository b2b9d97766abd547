"""The Celery tasks: each hands one id to the engine and is done. `hand_over` blocks while the engine is full."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from darkroom.adapters.celery import DELIVER_TASK, RUN_TASK


def register(app: Celery, *, run_job: Callable[[str], None], deliver: Callable[[str], None]) -> None:
    """Bind the messages' task names to this process's engine."""

    @app.task(name=RUN_TASK, ignore_result=True)
    def _run_job(job_id: str) -> None:
        run_job(job_id)

    @app.task(name=DELIVER_TASK, ignore_result=True)
    def _deliver(delivery_id: str) -> None:
        deliver(delivery_id)
