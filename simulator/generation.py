"""One generation request, as fal knows it: what was asked, where it stands, and what fal says about it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from simulator.schema import Detail, Input

State = Literal["queued", "running", "completed", "failed", "cancelled", "timeout"]


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 with microseconds, or None."""
    return moment.isoformat().replace("+00:00", "Z") if moment else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a request ended: the model's status code and body, and whether it is billed.

    `error` and `error_type` are what the COMPLETED status and the callback say; a 422 of the model has neither in its
    status (there is no FAILED status: a failure is also a result that is not a 2xx).
    """

    state: Literal["completed", "failed", "cancelled", "timeout"]
    http_status: int
    body: dict[str, Any]
    billed: bool = False
    error: str | None = None
    error_type: str | None = None


def failed(
    http_status: int, message: str, error_type: str, *, state: Literal["failed", "cancelled", "timeout"]
) -> Verdict:
    """A failure in fal's own words; never billed."""
    body = {"detail": message, "error_type": error_type}
    return Verdict(state, http_status, body, error=message, error_type=error_type)


def refused(details: list[Detail], *, billed: bool = False) -> Verdict:
    """The model's own 422."""
    return Verdict("failed", 422, {"detail": details}, billed=billed)


@dataclass(slots=True, eq=False)
class GenerationRequest:
    """A request that fal took. `arguments` is the JSON as sent; `input` is None where only the runner will find it bad.

    `reply` is what became of the answer to the submit: `sent`, `lost`, or the name of the fault that spoiled it. `told`
    says that its callback was answered, or given up. `started_at` of a queued one: it ran when the simulator died.
    """

    request_id: str
    model: str
    arguments: Any
    input: Input | None
    origin: str
    callback_url: str | None = None
    start_timeout: float | None = None
    low_priority: bool = False
    received_at: datetime = field(default_factory=now)
    state: State = "queued"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    verdict: Verdict | None = None
    unsafe: bool = False
    seed: int = 0
    reply: str = "pending"
    told: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where fal answers for it. Nested paths are left out: owner and app only (fal-protocol §2)."""
        owner, app = self.model.split("/")[:2]
        return f"{self.origin}/{owner}/{app}/requests/{self.request_id}"

    @property
    def units(self) -> Decimal:
        """Megapixels, the model's billing unit, not rounded up; 0 when it is not billed."""
        if self.input is None or self.verdict is None or not self.verdict.billed:
            return Decimal(0)
        width, height = self.input.size
        return Decimal(width * height * self.input.num_images) / 1_000_000

    @property
    def inference_seconds(self) -> float:
        """How long it ran; 0 when it never started."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else 0.0

    def move(self, state: State) -> None:
        """Set the state and wake whoever waits for a change."""
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> Coroutine[Any, Any, Literal[True]]:
        """To be awaited: returns at the first change of state after this call, even if it came before the await."""
        return self._changed.wait()

    def status(self, position: int, *, logs: bool) -> dict[str, Any]:
        """The queue's status object. `queue_position` and `logs` are always there: fal-client 1.0.3 insists on them."""
        if self.state == "queued":
            return self.taken(position)
        body = self._named()
        lines = self._logs() if logs else None
        if self.verdict is None:
            return {"status": "IN_PROGRESS", "logs": lines, **body}
        body |= {"status": "COMPLETED", "logs": lines, "metrics": {"inference_time": self.inference_seconds}}
        if self.verdict.error:
            body |= {"error": self.verdict.error, "error_type": self.verdict.error_type}
        return body

    def taken(self, position: int) -> dict[str, Any]:
        """The answer to its submit: IN_QUEUE, even when it has begun to run."""
        return {"status": "IN_QUEUE", "queue_position": position, **self._named()}

    def _named(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "response_url": self.url,
            "status_url": f"{self.url}/status",
            "cancel_url": f"{self.url}/cancel",
        }

    def _logs(self) -> list[dict[str, Any]]:
        moments = (("rendering", self.started_at), (f"finished: {self.state}", self.ended_at))
        return [
            {"message": message, "level": "INFO", "source": "simulator", "timestamp": timestamp(moment)}
            for message, moment in moments
            if moment
        ]

    def entry(self) -> dict[str, Any]:
        """Its line in the ledger."""
        verdict = self.verdict
        return {
            "request_id": self.request_id,
            "model": self.model,
            "received_at": timestamp(self.received_at),
            "input": self.arguments,
            "outcome": self.state,
            "http_status": verdict.http_status if verdict else None,
            "error_type": verdict.error_type if verdict else None,
            "billed": bool(verdict and verdict.billed),
            "billable_units": str(self.units),
            "started_at": timestamp(self.started_at),
            "ended_at": timestamp(self.ended_at),
            "reply": self.reply,
            "callback_url": self.callback_url,
        }
