"""What the API can do with batches, one operation each (see operations.py). Waiting: batch_waiting.py."""

from __future__ import annotations

import itertools
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

from darkroom_client.batch_models import (
    AcceptedBatch,
    Batch,
    BatchErrorRow,
    BatchFile,
    BatchResult,
    DryRun,
    Links,
    OnInvalid,
)
from darkroom_client.errors import ConflictError, MisuseError
from darkroom_client.models import Listed
from darkroom_client.operations import checked_key, route
from darkroom_client.patience import Patience, ask
from darkroom_client.steps import Answer, Call, Emit, Plan, Sleep, Stream, Upload, read
from darkroom_client.uploads import Source, UploadFormat, upload_of

R = TypeVar("R", BatchResult, BatchErrorRow)
Usd = float | Decimal

_UPLOAD_SECONDS: Final = 120.0
"""The longest silence after an upload: a hundred thousand lines are judged in a dry run."""

_PAGE: Final = 500
"""Rows of an outcome that are asked for at a time."""


def create_batch(  # noqa: PLR0913 - by name: the fields of the request
    patience: Patience,
    source: Source,
    *,
    format: UploadFormat | None = None,  # noqa: A002 - what a caller calls it
    name: str | None = None,
    on_invalid: OnInvalid | None = None,
    budget_usd: Usd | None = None,
    not_before: datetime | None = None,
    finish_by: datetime | None = None,
    webhook_url: str | None = None,
    job_events: bool = False,
    canary: int | None = None,
    canary_max_failures: float | None = None,
    idempotency_key: str | None = None,
) -> Plan[AcceptedBatch]:
    """Send a file of jobs; returns the batch once its upload is stored. Then it is validated, and starts or fails.

    The upload is not held in memory, and is sent again from its start when the connection breaks. Repeating with the
    same `idempotency_key` gives the same batch, `replayed`: one is generated per call, so that the call itself is safe
    to retry. Give your own to be safe across restarts of your program too.

    Args:
        patience: set by the client.
        source: a file's path (.jsonl, .ndjson, .csv, .json, or .txt with a prompt a line; each also .gz), or lines: a
            mapping with `input` (and `custom_id`, `metadata`), or a prompt. Lines are kept until they are sent.
        format: the file's, where its name does not tell it.
        name: yours, for people.
        on_invalid: "reject" (default: nothing starts when a line has mistakes) or "skip".
        budget_usd: never exceeded; the batch pauses when it is reached.
        not_before: nothing is submitted before; aware of its time zone, as finish_by is.
        finish_by: what is not paid by then is cancelled.
        webhook_url: told when the batch pauses or ends.
        job_events: the webhook_url is told of each job too.
        canary: so many jobs first, then it pauses until it is resumed.
        canary_max_failures: goes on by itself when at most this share of the canary failed.
        idempotency_key: 1 to 255 printable ASCII characters.

    Raises:
        MisuseError: there is no such file, or a line cannot be sent.
        ApiError: refused; see its subclasses.
        UnreachableError: no answer came. The batch may exist: repeat with the same idempotency_key, if you gave one.
        OSError: the file cannot be read.
    """
    query = _query(
        on_invalid=on_invalid,
        budget_usd=budget_usd,
        not_before=not_before,
        finish_by=finish_by,
        webhook_url=webhook_url,
        canary=canary,
        canary_max_failures=canary_max_failures,
    )
    query |= {"name": name, "job_events": "true" if job_events else None}
    key = str(uuid.uuid4()) if idempotency_key is None else checked_key(idempotency_key)
    with upload_of(source, format) as upload:
        answer = yield from _submit(patience, _upload_call(upload, query, {"Idempotency-Key": key}))
    accepted = read(AcceptedBatch, answer.body)
    return accepted.model_copy(update={"replayed": answer.headers.get("idempotent-replayed") == "true"})


def dry_run(
    patience: Patience,
    source: Source,
    *,
    format: UploadFormat | None = None,  # noqa: A002 - what a caller calls it
    on_invalid: OnInvalid | None = None,
    budget_usd: Usd | None = None,
    not_before: datetime | None = None,
    finish_by: datetime | None = None,
    webhook_url: str | None = None,
    canary: int | None = None,
    canary_max_failures: float | None = None,
) -> Plan[DryRun]:
    """What `create` would come to: lines with mistakes, cost, and when it would be finished. Nothing is stored.

    Takes and raises what `create` does.
    """
    query = _query(
        on_invalid=on_invalid,
        budget_usd=budget_usd,
        not_before=not_before,
        finish_by=finish_by,
        webhook_url=webhook_url,
        canary=canary,
        canary_max_failures=canary_max_failures,
    )
    with upload_of(source, format) as upload:
        answer = yield from ask(patience, _upload_call(upload, {**query, "dry_run": "true"}, {}))
    return read(DryRun, answer.body)


def get_batch(patience: Patience, batch_id: str) -> Plan[Batch]:
    """One batch: how far, how fast, how much."""
    answer = yield from ask(patience, Call("GET", route("/v1/batches/{}", batch_id)))
    return read(Batch, answer.body)


def list_batches(patience: Patience, *, page_size: int = 20, timeout: float = 30.0) -> Stream[Batch]:
    """Batches, newest first, page by page as they are asked for. `timeout` is the longest silence in seconds."""
    cursor: str | None = None
    while True:
        query: dict[str, str | int | None] = {"limit": page_size, "cursor": cursor}
        answer = yield from ask(patience, Call("GET", "/v1/batches", query=query, timeout=timeout))
        page = read(Listed[Batch], answer.body)
        for batch in page.data:
            yield Emit(batch)
        if not page.has_more or page.next_cursor is None:
            return
        cursor = page.next_cursor


# changing its course --------------------------------------------------------------------------------------------------


def pause_batch(patience: Patience, batch_id: str) -> Plan[Batch]:
    """Submit nothing more until it is resumed; repeatable. What runs finishes."""
    answer = yield from ask(patience, Call("POST", route("/v1/batches/{}/pause", batch_id)))
    return read(Batch, answer.body)


def resume_batch(patience: Patience, batch_id: str, *, budget_usd: Usd | None = None) -> Plan[Batch]:
    """Go on, with a new budget where one is given; repeatable. This also approves a canary.

    Raises ConflictError: `budget_used_up`, or `batch_state` for what has ended.
    """
    call = Call("POST", route("/v1/batches/{}/resume", batch_id), query={"budget_usd": _usd(budget_usd)})
    answer = yield from ask(patience, call)
    return read(Batch, answer.body)


def cancel_batch(patience: Patience, batch_id: str) -> Plan[Batch]:
    """End what is not paid; repeatable. What fal is working on finishes, and its pictures are kept."""
    answer = yield from ask(patience, Call("POST", route("/v1/batches/{}/cancel", batch_id)))
    return read(Batch, answer.body)


def retry_failed(
    patience: Patience, batch_id: str, *, code: str | None = None, accept_charge: bool = False
) -> Plan[Batch]:
    """Give its failed jobs a new life, or those with one error code; the batch goes on soon after.

    What was or may have been charged is left, so repeating a lost answer costs nothing twice. With `accept_charge` that
    is tried again too, and a lost answer is not repeated: what failed in between would be charged once more.

    Raises:
        ConflictError: `batch_state` while it is validated or cancelled, and when it never started.
        UnreachableError: it may have happened: look at the batch first.
    """
    query = {"code": code, "accept_charge": "true" if accept_charge else None}
    call = Call("POST", route("/v1/batches/{}/retry-failed", batch_id), query=query, repeatable=not accept_charge)
    answer = yield from ask(patience, call)
    return read(Batch, answer.body)


# its outcome ----------------------------------------------------------------------------------------------------------


def read_results(patience: Patience, batch_id: str, *, after: int = 0, page_size: int = _PAGE) -> Stream[BatchResult]:
    """Jobs that have succeeded by now, in line order, page by page as they are asked for: URLs are fresh.

    To go on later: `after` the last row's `line`. While the batch runs, lines may also be added before that.
    """
    return _read_rows(BatchResult, patience, route("/v1/batches/{}/results", batch_id), after, page_size)


def read_errors(patience: Patience, batch_id: str, *, after: int = 0, page_size: int = _PAGE) -> Stream[BatchErrorRow]:
    """Jobs that failed or were cancelled, and lines that could not become jobs, as `results` does."""
    return _read_rows(BatchErrorRow, patience, route("/v1/batches/{}/errors", batch_id), after, page_size)


def results_page(patience: Patience, batch_id: str, *, after: int, limit: int) -> Plan[list[BatchResult]]:
    """At most so many results behind that line."""
    return _read_page(BatchResult, patience, route("/v1/batches/{}/results", batch_id), after, limit)


def list_files(patience: Patience, batch_id: str) -> Plan[list[BatchFile]]:
    """The batch's files that are in the bucket by now: its upload, and its outcome once it has ended."""
    answer = yield from ask(patience, Call("GET", route("/v1/batches/{}/files", batch_id)))
    return read(Listed[BatchFile], answer.body).data


def contact_sheet(patience: Patience, batch_id: str, *, links: Links = "signed") -> Plan[str]:
    """A page of HTML that shows its pictures: by signed links, or by those into a downloaded copy."""
    answer = yield from ask(patience, contact_sheet_call(batch_id, links))
    return answer.body.decode()


def contact_sheet_call(batch_id: str, links: Links) -> Call:
    """How the page is asked for."""
    return Call("GET", route("/v1/batches/{}/contact-sheet", batch_id), query={"links": links}, timeout=_UPLOAD_SECONDS)


# ----------------------------------------------------------------------------------------------------------------------


def _query(
    *,
    on_invalid: OnInvalid | None,
    budget_usd: Usd | None,
    not_before: datetime | None,
    finish_by: datetime | None,
    webhook_url: str | None,
    canary: int | None,
    canary_max_failures: float | None,
) -> dict[str, str | int | None]:
    return {
        "on_invalid": on_invalid,
        "budget_usd": _usd(budget_usd),
        "not_before": _moment("not_before", not_before),
        "finish_by": _moment("finish_by", finish_by),
        "webhook_url": webhook_url,
        "canary": canary,
        "canary_max_failures": None if canary_max_failures is None else str(canary_max_failures),
    }


def _usd(amount: Usd | None) -> str | None:
    return None if amount is None else str(amount)


def _moment(name: str, moment: datetime | None) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise MisuseError(f"{name} has no time zone")
    return moment.isoformat() if moment else None


def _upload_call(upload: Upload, query: dict[str, str | int | None], headers: dict[str, str]) -> Call:
    return Call("POST", "/v1/batches", query=query, upload=upload, headers=headers, timeout=_UPLOAD_SECONDS)


def _submit(patience: Patience, call: Call) -> Plan[Answer]:
    """Waits for an upload with the same key to pass: the API forgets one whose sender is gone after a minute."""
    give_up_at = patience.clock() + patience.outage
    for number in itertools.count():
        try:
            return (yield from ask(patience, call))
        except ConflictError as refusal:
            if refusal.code != "upload_in_progress" or patience.clock() > give_up_at:
                raise
            yield Sleep(max(patience.first_delay, patience.delay(number, refusal.retry_after)))
    raise AssertionError("unreachable")


def _read_rows(model: type[R], patience: Patience, path: str, after: int, page_size: int) -> Stream[R]:
    while True:
        rows = yield from _read_page(model, patience, path, after, page_size)
        for row in rows:
            yield Emit(row)
        if len(rows) < page_size:
            return
        after = rows[-1].line


def _read_page(model: type[R], patience: Patience, path: str, after: int, limit: int) -> Plan[list[R]]:
    answer = yield from ask(
        patience, Call("GET", path, query={"after": after, "limit": limit}, timeout=_UPLOAD_SECONDS)
    )
    return [read(model, line) for line in answer.body.splitlines() if line]
