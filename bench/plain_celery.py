"""The usual way, measured by bench/lost_replies.py: a Celery task around fal_client.submit, retried on any fault.

Reads BROKER_URL, QUEUE_URL and FAL_KEY from the environment.
"""

from __future__ import annotations

import os

import fal_client
import fal_client.client
from celery import Celery

fal_client.client.QUEUE_URL_FORMAT = os.environ["QUEUE_URL"].rstrip("/") + "/"

app = Celery("plain", broker=os.environ["BROKER_URL"], set_as_current=False)
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@app.task(name="render", autoretry_for=(Exception,), retry_backoff=True, max_retries=10)
def render(arguments: dict[str, object]) -> None:
    """Submit, wait, done."""
    fal_client.submit("fal-ai/krea-2/turbo", arguments).get()
