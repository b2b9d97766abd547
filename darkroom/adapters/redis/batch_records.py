"""Reads the records of batches."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from darkroom.adapters.redis.records import NANO
from darkroom.domain.batch import Batch, Cause, OnInvalid, counts_of
from darkroom.domain.lifecycle import BatchStatus


def _int(text: str) -> int | None:
    return int(text) if text else None


def _usd(text: str) -> Decimal:
    return Decimal(text or 0) / NANO


def parse_batch(batch_id: str, record: Mapping[str, str], causes: Mapping[str, str]) -> Batch:
    """A batch's hash, and its failures by cause."""
    return Batch(
        id=batch_id,
        account_id=record["account"],
        name=record["name"],
        status=BatchStatus(record["status"]),
        status_reason=record["reason"] or None,
        on_invalid=OnInvalid(record["on_invalid"]),
        created_at=int(record["created"]),
        started_at=_int(record["started"]),
        finished_at=_int(record["finished"]),
        not_before=_int(record["not_before"]),
        finish_by=_int(record["finish_by"]),
        webhook_url=record["webhook"] or None,
        canary=_int(record["canary"]),
        canary_max_failures=float(record["canary_max"]) if record["canary_max"] else None,
        budget_usd=_usd(record["budget"]) if record["budget"] else None,
        spent_usd=_usd(record["spent"]),
        reserved_usd=_usd(record["reserved"]),
        estimate_usd=_usd(record["est"]),
        pictures=int(record["pictures"]),
        lines=int(record["lines"]),
        bytes=int(record["bytes"]),
        judged=record["judged"] == "1",
        valid=_int(record["valid"]),
        invalid=_int(record["invalid"]),
        last_line=int(record["last_line"]),
        added=int(record["added"]),
        cursor=int(record["cursor"]),
        counts=counts_of(record),
        rate=float(record["rate"]) * 1000,
        rate_at=_int(record["rate_at"]) or None,
        version=int(record["rev"]),
        job_events=record.get("job_events") == "1",
        causes=_causes(causes),
    )


def _causes(record: Mapping[str, str]) -> tuple[Cause, ...]:
    counted = ((code, int(n)) for code, n in record.items() if not code.endswith(".example"))
    found = (Cause(code, count, record.get(f"{code}.example", "")) for code, count in counted if count > 0)
    return tuple(sorted(found, key=lambda cause: (-cause.count, cause.code)))
