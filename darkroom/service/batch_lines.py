"""Reading an upload from the bucket as numbered lines, a bounded slice at a time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

_HOLD_SECONDS: Final = 2.0


async def numbered_lines(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Lines with their numbers from 1, in slices of at most `size`; empty lines are passed over, but counted."""
    number = 0
    rest = b""
    ready: list[tuple[int, bytes]] = []
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if line:
                ready.append((number, line))
            if len(ready) >= size:
                yield ready
                ready = []
    if rest:
        ready.append((number + 1, rest))
    if ready:
        yield ready


class Alive:
    """Says every two seconds that a long piece of work is going on; `say` answers whether it is still wanted."""

    def __init__(self, say: Callable[[], Awaitable[bool]]) -> None:
        self._say = say
        self._next = 0.0

    async def still_wanted(self) -> bool:
        """Whether to go on. Raises UnavailableError."""
        if time.monotonic() < self._next:
            return True
        self._next = time.monotonic() + _HOLD_SECONDS
        return await self._say()
