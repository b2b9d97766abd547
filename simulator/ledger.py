"""The ledger: every request that was taken, in order, and what was counted. It is what promises are checked against."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from simulator.generation import GenerationRequest


class Ledger:
    """Keeps the requests and the counters of one run.

    With a path, each change of a request is also appended to that file as one JSON line, flushed at once: a request's
    last line is its newest.
    """

    def __init__(self, path: Path | None) -> None:
        self.requests: dict[str, GenerationRequest] = {}
        self.ended: list[GenerationRequest] = []
        self.counters: Counter[str] = Counter()
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path else None

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
        """Append a request's present state to the file, if there is one."""
        if self._file and not self._file.closed:
            self._file.write(json.dumps(request.entry()) + "\n")
            self._file.flush()

    def observe(self, *, queued: int, running: int) -> None:
        """Keep the highest tide."""
        self.counters["max_in_system"] = max(self.counters["max_in_system"], queued + running)
        self.counters["max_running"] = max(self.counters["max_running"], running)

    def reset(self) -> None:
        """Forget everything; the file keeps what was written."""
        self.requests.clear()
        self.ended.clear()
        self.counters.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

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
