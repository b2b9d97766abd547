"""The ledger: every request that was taken, in order, and what was counted. It is what promises are checked against."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

from simulator.generation import GenerationRequest
from simulator.memory import Memory


class Ledger:
    """Keeps the requests in the order in which they were taken, and the counters of this run.

    With a path, each change of a request is also kept in that file, and the requests of earlier runs are there again:
    those that had ended as they were, the others queued. Raises what `Memory` raises.
    """

    def __init__(self, path: Path | None) -> None:
        self._memory = Memory(path) if path else None
        recalled = self._memory.recalled if self._memory else []
        self.requests = {request.request_id: request for request in recalled}
        self.ended = sorted((request for request in recalled if request.ended_at), key=attrgetter("ended_at"))
        self.counters: Counter[str] = Counter()

    def accept(self, request: GenerationRequest) -> None:
        """Note a request that was taken."""
        self.requests[request.request_id] = request
        self.counters["accepted"] += 1
        self.note(request)

    def end(self, request: GenerationRequest) -> None:
        """Note that a request ended; `ended` stays in the order of ends."""
        self.ended.append(request)
        self.note(request)

    def note(self, request: GenerationRequest) -> None:
        """Keep a request's present state in the file, if there is one; not what a reset has made it forget."""
        if self._memory and request.request_id in self.requests:
            self._memory.note(request)

    def observe(self, *, queued: int, running: int) -> None:
        """Keep the highest tide."""
        self.counters["max_in_system"] = max(self.counters["max_in_system"], queued + running)
        self.counters["max_running"] = max(self.counters["max_running"], running)

    def reset(self) -> None:
        """Forget everything, in the file too."""
        if self._memory:
            self._memory.forget()
        self.requests.clear()
        self.ended.clear()
        self.counters.clear()

    def close(self) -> None:
        """Close the file."""
        if self._memory:
            self._memory.close()

    def document(self, *, summary: bool = False) -> dict[str, Any]:
        """The ledger; a `summary` leaves the requests out.

        Counters that never counted are there as 0, so that no check passes by a typing error.
        """
        requests = list(self.requests.values())
        units = sum((request.units for request in requests), Decimal(0))
        return {
            **({} if summary else {"requests": [request.entry() for request in requests]}),
            "counters": {**dict.fromkeys(_COUNTERS, 0), **self.counters},
            "totals": {
                "billed": sum(1 for request in requests if request.verdict and request.verdict.billed),
                "billable_units": str(units),
                "outcomes": dict(Counter(request.state for request in requests)),
            },
        }


_COUNTERS = (
    "posts",
    "accepted",
    "refused",
    "max_in_system",
    "max_running",
    "status_gets",
    "status_streams",
    "result_gets",
    "cancel_puts",
    "media_gets",
    "listing_gets",
    "callback_posts",
    "callbacks_acknowledged",
)
