"""Celery over Redis: how messages travel. Losing or doubling one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from darkroom.domain.errors import UnavailableError
from darkroom.ports import Message

RUN_TASK: Final = "darkroom.run_job"
DELIVER_TASK: Final = "darkroom.deliver"
DELIVERIES_QUEUE: Final = "deliveries"
QUEUES: Final = ("interactive", "bulk", DELIVERIES_QUEUE)


def make_app(broker_url: str) -> Celery:
    """A Celery app without tasks. The reasons for each option are in docs/adr/0003-celery-carries-hints.md."""
    app = Celery("darkroom", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue="interactive",
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=2,
        worker_eta_task_limit=100,
        worker_enable_remote_control=True,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_transport_options={
            "visibility_timeout": 600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
    )
    return app


class CeleryPublisher:
    """Implements `ports.Publisher`. Publishing blocks in kombu, so it happens in one thread of its own."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publisher")

    async def publish(self, messages: Sequence[Message]) -> None:
        """See `ports.Publisher`."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, messages)
        except (KombuError, OperationalError, RedisError, OSError) as exc:
            raise UnavailableError("the broker is away") from exc

    def _publish(self, messages: Sequence[Message]) -> None:
        # `batch` is new in kombu 5.7, and the published types do not know it yet.
        with self._app.producer_pool.acquire(block=True) as producer, producer.batch():  # type: ignore[attr-defined]
            for message in messages:
                self._app.send_task(
                    RUN_TASK if message.kind == "run" else DELIVER_TASK,
                    args=(message.id,),
                    queue=message.lane.value if message.lane else DELIVERIES_QUEUE,
                    producer=producer,
                    retry=False,
                )

    async def close(self) -> None:
        """Let the thread finish and close its connections."""
        self._thread.shutdown(wait=True)
        self._app.close()
