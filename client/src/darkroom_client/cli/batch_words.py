"""Batches in words: what a person wants to know at a glance."""

from __future__ import annotations

from typing import Final

from darkroom_client.batch_models import Batch, BatchCost, LineError
from darkroom_client.cli.out import Out, dollars

STYLES: Final = {
    "running": "cyan",
    "paused": "yellow",
    "cancelling": "yellow",
    "completed": "green",
    "cancelled": "yellow",
    "failed": "red",
    "expired": "red",
}
_STATES: Final = {"validating": "its lines are being checked", "queued": "waiting for its turn"}
_REASONS: Final = {
    "requested": "as asked",
    "budget": "its budget is reached",
    "canary": "its canary has run",
    "bill_above_bound": "a bill was higher than the most that was expected",
    "not_before": "until its not-before",
    "finish_by": "its finish-by has passed",
    "invalid_lines": "lines with mistakes, so nothing was started",
    "empty": "there are no lines",
}
_MISTAKES_SHOWN: Final = 5


def state(batch: Batch) -> str:
    """Where the batch is, and why."""
    words = _STATES.get(batch.status, batch.status)
    if batch.status == "running" and batch.status_reason == "budget":
        return "running: its budget has room again when what fal works on is billed"
    reason = _REASONS.get(batch.status_reason or "", batch.status_reason or "")
    return f"{words}: {reason}" if reason else words


def done_of(batch: Batch) -> str:
    """How many of its jobs have ended."""
    return f"{batch.counts.ended:,} of {batch.counts.total:,}"


def spent(cost: BatchCost) -> str:
    """What was billed, of how much."""
    return f"{dollars(cost.spent_usd)} spent" + (f" of ${cost.budget_usd:,.2f}" if cost.budget_usd is not None else "")


def causes(batch: Batch) -> str:
    """Its failed jobs, by cause."""
    listed = sorted(batch.failures, key=lambda cause: -cause.count)
    return "  ".join(f"{cause.code} {cause.count:,}" for cause in listed if cause.count)


def way_on(batch: Batch) -> str:
    """The command that lets a paused batch go on."""
    command = f"darkroom batch resume {batch.id}"
    if batch.status_reason != "budget":
        return command
    wanted = max(batch.cost.expected_usd or 0.0, (batch.cost.budget_usd or 0.0) * 1.25)
    return f"{command} --budget {wanted + 0.005:.2f}"


def tell_mistakes(out: Out, errors: list[LineError], invalid: int) -> None:
    """The first lines with mistakes."""
    for error in errors[:_MISTAKES_SHOWN]:
        out.hint(f"line {error.line:<6} {error.pointer or 'the line'}: {error.detail}")
    if len({error.line for error in errors[:_MISTAKES_SHOWN]}) < invalid:
        out.hint(f"… {invalid:,} lines in all")
