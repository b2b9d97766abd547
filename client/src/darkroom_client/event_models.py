"""A fact of the account's log, as it is listed and as webhooks tell it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import model_validator

from darkroom_client.batch_models import Batch
from darkroom_client.models import Job, Model


class Event(Model):
    """A fact. In a webhook `id` is its `webhook-id` (the same on every attempt) and `seq` is None.

    `data` is the job that it is about; an event of a batch has the batch in `batch` instead.
    """

    id: str
    seq: int | None = None
    type: str
    timestamp: datetime
    data: Job | None = None
    batch: Batch | None = None

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if isinstance(value, dict) and isinstance(data := value.get("data"), dict) and data.get("object") == "batch":
            return {**value, "data": None, "batch": data}
        return value
