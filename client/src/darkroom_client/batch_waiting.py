"""Waiting for a batch by looking at it, whatever becomes of the connection meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from darkroom_client.batch_models import Batch
from darkroom_client.batches import get_batch
from darkroom_client.errors import DarkroomError, WaitTimeoutError
from darkroom_client.patience import Patience
from darkroom_client.steps import Emit, Plan, Sleep, Stream
from darkroom_client.waiting import Trouble

EVERY: Final = 2.0
"""Seconds between two looks."""


def wait_for_batch(
    patience: Patience, batch_id: str, timeout: float | None = None, *, every: float = EVERY
) -> Plan[Batch]:
    """The batch once it has ended, well or not: look at its status. A paused one has not ended.

    Bears dropped connections, 429 and 503 for `patience.outage` seconds.

    Args:
        patience: set by the client.
        batch_id: the batch's.
        timeout: seconds; None waits for as long as it takes.
        every: seconds between two looks.

    Raises:
        WaitTimeoutError: it has not ended in that time. It goes on.
        UnreachableError: the API was away for longer than is borne.
        ApiError: refused, such as NotFoundError.
    """
    give_up_at = patience.clock() + (math.inf if timeout is None else timeout)
    once = replace(patience, retries=0)
    trouble = Trouble(patience)
    batch: Batch | None = None
    while True:
        try:
            batch = yield from get_batch(once, batch_id)
        except DarkroomError as fault:
            pause = trouble.met(fault)
        else:
            if batch.ended:
                return batch
            trouble.over()
            pause = every
        left = give_up_at - patience.clock()
        if left <= 0:
            state = "has not been seen" if batch is None else f"is {batch.status}"
            raise WaitTimeoutError(f"{batch_id} {state} after {timeout:g} s; it goes on", batch=batch)
        yield Sleep(min(pause, left))


def follow_batch(
    patience: Patience,
    batch_id: str,
    *,
    every: float = EVERY,
    on_trouble: Callable[[DarkroomError], None] | None = None,
) -> Stream[Batch]:
    """The batch at each look; the last one has ended.

    Bears an outage of `patience.outage` seconds, and tells `on_trouble` of each look that failed.

    Raises:
        UnreachableError: the API was away for longer than is borne.
        ApiError: refused, such as NotFoundError.
    """
    once = replace(patience, retries=0)
    trouble = Trouble(patience)
    while True:
        try:
            batch = yield from get_batch(once, batch_id)
        except DarkroomError as fault:
            pause = trouble.met(fault)
            if on_trouble is not None:
                on_trouble(fault)
        else:
            yield Emit(batch)
            if batch.ended:
                return
            trouble.over()
            pause = every
        yield Sleep(pause)
