"""Writing what must not be lost: a fact is logged first, and its write is repeated until the store has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from darkroom.domain.errors import UnavailableError
from darkroom.domain.policy import Backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRIES = Backoff(base=0.2, cap=2, floor=0.1)


async def persist(write: Callable[[], Awaitable[T]], fact: str, **names: str) -> T:
    """Repeat `write` until the store of records took it, however long that is; returns its answer.

    `fact` and `names` say in the log what would be lost with this process: enough to record it by hand. The writes
    are scripts that may be repeated.
    """
    failures = 0
    while True:
        try:
            answer = await write()
        except UnavailableError:
            failures += 1
            if failures == 1:
                logger.warning("the store is away; still to be written: %s", fact, extra=names)
            await asyncio.sleep(_RETRIES.delay(failures))
        else:
            if failures:
                logger.info("written after %d tries: %s", failures + 1, fact, extra=names)
            return answer
