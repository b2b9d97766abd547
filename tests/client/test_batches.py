"""Batches: what is sent, what is sent again, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from darkroom_client import ConflictError, InvalidRequestError, MisuseError, UnavailableError, UnreachableError
from darkroom_client import batches as operations
from darkroom_client.patience import Patience
from tests.client.kit import (
    BATCH_ID,
    Clock,
    Driven,
    Run,
    Said,
    Server,
    answer,
    batch_document,
    lines,
    problem,
    result_document,
    says,
)

LOST = httpx.ReadError("reset")
BUSY = answer(409, problem(409, "upload_in_progress"))
STORED = answer(202, batch_document("validating"))


def target(api: Server, number: int = 0) -> httpx.URL:
    return httpx.URL(api.heard[number].target)


# uploading ------------------------------------------------------------------------------------------------------------


def test_the_whole_upload_is_sent_again_with_the_same_key(api: Server, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'{"input":{"prompt":"a fox"}}\n' * 30_000)
    api.then(Said(drop=True), says({}, 503, Retry_After="0"), says(batch_document("validating"), 202))
    batch = run(lambda client: client.batches.create(file, name="tonight"))
    assert (batch.id, batch.status, batch.replayed) == (BATCH_ID, "validating", False)
    assert [heard.body == file.read_bytes() for heard in api.heard] == [True] * 3
    assert {heard.headers["content-type"] for heard in api.heard} == {"application/jsonl"}
    assert len({heard.headers["idempotency-key"] for heard in api.heard}) == 1
    assert target(api) == target(api, 2) == "/v1/batches?name=tonight"


def test_lines_go_the_same_way(api: Server, run: Run) -> None:
    api.then(Said(drop=True), says(batch_document("validating"), 202))
    run(lambda client: client.batches.create(prompt for prompt in ("a fox", "an owl")))
    body = b'{"input":{"prompt":"a fox"}}\n{"input":{"prompt":"an owl"}}\n'
    assert [heard.body for heard in api.heard] == [body] * 2


def test_everything_asked_is_said(api: Server, run: Run) -> None:
    api.then(says(batch_document("validating"), 202))
    night = datetime(2026, 11, 26, 7, 0, tzinfo=timezone(timedelta(hours=1)))
    run(
        lambda client: client.batches.create(
            ["x"],
            name="ä&b",
            on_invalid="skip",
            budget_usd=Decimal("0.10"),
            not_before=night - timedelta(hours=8),
            finish_by=night,
            webhook_url="https://x.example/?a=b",
            job_events=True,
            canary=5,
            canary_max_failures=0.25,
            idempotency_key="tonight",
        )
    )
    assert dict(target(api).params) == {
        "name": "ä&b",
        "on_invalid": "skip",
        "budget_usd": "0.10",
        "not_before": "2026-11-25T23:00:00+01:00",
        "finish_by": "2026-11-26T07:00:00+01:00",
        "webhook_url": "https://x.example/?a=b",
        "job_events": "true",
        "canary": "5",
        "canary_max_failures": "0.25",
    }
    assert api.heard[0].headers["idempotency-key"] == "tonight"


def test_a_batch_that_was_there_already_is_replayed(api: Server, run: Run) -> None:
    api.then(says(batch_document("running"), 202, Idempotent_Replayed="true"))
    assert run(lambda client: client.batches.create(["x"])).replayed


def test_a_dry_run_stores_nothing_and_says_what_it_would_come_to(api: Server, run: Run) -> None:
    api.then(
        says(
            {
                "valid": 2,
                "invalid": 1,
                "errors": [{"line": 3, "pointer": "/input/seed", "detail": "no"}],
                "counts": {"lines": 3, "jobs": 2, "pictures": 5, "duplicate_inputs": 1},
                "cost": {"min_usd": 0, "expected_usd": 0.04, "max_usd": 0.04},
                "forecast": {"finish_at": "2026-11-26T07:00:00Z", "meets_finish_by": False},
            }
        )
    )
    tried = run(lambda client: client.batches.dry_run(["x", "y", "z"], budget_usd=1))
    assert (tried.counts.duplicate_inputs, tried.errors[0].line, tried.forecast.meets_finish_by) == (1, 3, False)
    assert dict(target(api).params) == {"budget_usd": "1", "dry_run": "true"}
    assert "idempotency-key" not in api.heard[0].headers


def test_an_upload_in_progress_passes(clock: Clock) -> None:
    driven = Driven(operations.create_batch(clock.patience(), ["x"]), clock).give(LOST, BUSY, BUSY, BUSY, STORED)
    assert driven.result.id == BATCH_ID
    assert driven.sleeps == [0.5, 0.5, 1.0, 2.0]
    assert len({step.call.headers["Idempotency-Key"] for step in driven.steps}) == 1


def test_an_upload_in_progress_is_not_waited_for_for_ever(clock: Clock) -> None:
    with pytest.raises(ConflictError):
        Driven(operations.create_batch(clock.patience(outage=10), ["x"]), clock).give(*[BUSY] * 6)


@pytest.mark.parametrize("code", ["batch_removed", "conflict"])
def test_another_conflict_is_final(clock: Clock, code: str) -> None:
    with pytest.raises(ConflictError):
        Driven(operations.create_batch(clock.patience(), ["x"]), clock).give(answer(409, problem(409, code)))


def test_a_moment_without_a_zone_is_misuse(clock: Clock) -> None:
    plan = operations.create_batch(clock.patience(), ["x"], finish_by=datetime(2026, 11, 26, 7))  # noqa: DTZ001 - that is it
    with pytest.raises(MisuseError, match="finish_by has no time zone"):
        Driven(plan, clock).give()


def test_a_file_that_vanishes_is_told(api: Server, run: Run, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no file"):
        run(lambda client: client.batches.create(tmp_path / "prompts.jsonl"))
    assert api.heard == []


# changing its course --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [operations.pause_batch, operations.resume_batch, operations.cancel_batch])
@pytest.mark.parametrize("trouble", [LOST, answer(503)], ids=repr)
def test_pausing_resuming_and_cancelling_are_repeatable(
    clock: Clock, operation: Callable[[Patience, str], Any], trouble: object
) -> None:
    driven = Driven(operation(clock.patience(), BATCH_ID), clock).give(trouble, answer(202, batch_document()))
    assert driven.result.id == BATCH_ID


@pytest.mark.parametrize("trouble", [LOST, answer(503)], ids=repr)
def test_a_retry_is_repeated_only_where_nothing_is_charged_twice(clock: Clock, trouble: object) -> None:
    again = answer(202, batch_document())
    Driven(operations.retry_failed(clock.patience(), BATCH_ID, code="x"), clock).give(trouble, again)
    charged = operations.retry_failed(clock.patience(), BATCH_ID, accept_charge=True)
    with pytest.raises((UnreachableError, UnavailableError)):
        Driven(charged, clock).give(trouble)


@pytest.mark.parametrize(
    ("use", "asked"),
    [
        (lambda batches: batches.pause(BATCH_ID), "/pause"),
        (lambda batches: batches.resume(BATCH_ID, budget_usd=2.5), "/resume?budget_usd=2.5"),
        (lambda batches: batches.cancel(BATCH_ID), "/cancel"),
        (lambda batches: batches.retry_failed(BATCH_ID), "/retry-failed"),
        (
            lambda batches: batches.retry_failed(BATCH_ID, code="request_timeout", accept_charge=True),
            "/retry-failed?code=request_timeout&accept_charge=true",
        ),
    ],
)
def test_each_change_goes_to_its_route(api: Server, run: Run, use: Callable[[Any], Any], asked: str) -> None:
    api.then(says(batch_document(), 202))
    assert run(lambda client: use(client.batches)).id == BATCH_ID
    assert (api.heard[0].method, api.heard[0].target) == ("POST", f"/v1/batches/{BATCH_ID}{asked}")


@pytest.mark.parametrize("batch_id", ["", "..", "a/b", "a?b"])
def test_what_is_no_id_leads_nowhere(clock: Clock, batch_id: str) -> None:
    for operation in (operations.get_batch, operations.list_files, operations.read_results):
        with pytest.raises(MisuseError):
            Driven(operation(clock.patience(), batch_id), clock).give()


# reading --------------------------------------------------------------------------------------------------------------


def test_batches_are_listed_page_by_page(api: Server, run: Run) -> None:
    api.then(
        says({"data": [batch_document(), batch_document("completed")], "has_more": True, "next_cursor": "c"}),
        says({"data": [batch_document("failed")], "has_more": False, "next_cursor": None}),
    )
    assert [batch.status for batch in run(lambda client: client.batches.list())] == ["running", "completed", "failed"]
    assert target(api, 1) == "/v1/batches?limit=20&cursor=c"


def test_results_are_read_in_parts_and_a_broken_part_is_read_again(api: Server, run: Run) -> None:
    first, second, third = (result_document(line, api.url) for line in (3, 9, 12))
    api.then(lines(first, second), lines(third, cut=5), lines(third))
    rows = run(lambda client: client.batches.results(BATCH_ID, after=2, page_size=2))
    assert [row.line for row in rows] == [3, 9, 12]
    assert rows[0].images[0].thumbnail.path == "thumbs/3-0.jpg"
    assert [target(api, number).params["after"] for number in range(3)] == ["2", "9", "9"]
    assert {target(api, number).params["limit"] for number in range(3)} == {"2"}


def test_a_full_last_part_is_followed_by_an_empty_one(api: Server, run: Run) -> None:
    api.then(lines(result_document(1, api.url)), lines())
    assert len(run(lambda client: client.batches.results(BATCH_ID, page_size=1))) == 1
    assert len(api.heard) == 2


def test_errors_are_failed_jobs_and_lines_that_are_none(api: Server, run: Run) -> None:
    mistake = {"line": 2, "pointer": "/input/seed", "detail": "no"}
    bad = {"line": 2, "custom_id": "x", "job_id": None, "error": {"code": "invalid_line", "message": "no"}}
    failed = result_document(5, api.url, status="failed", error={"code": "request_timeout", "message": "late"})
    api.then(lines({**bad, "errors": [mistake]}, failed))
    rows = run(lambda client: client.batches.errors(BATCH_ID))
    assert [(row.line, row.job_id, row.error.code) for row in rows] == [
        (2, None, "invalid_line"),
        (5, "job_5", "request_timeout"),
    ]
    assert rows[0].errors[0].pointer == "/input/seed"


def test_files_and_contact_sheet(api: Server, run: Run) -> None:
    file = {"name": "manifest.json", "bucket": "b", "key": "k", "url": "http://x", "url_expires_at": None}
    api.then(says({"data": [file]}), Said(body="<p>größer</p>".encode()))
    assert [file.name for file in run(lambda client: client.batches.files(BATCH_ID))] == ["manifest.json"]
    assert run(lambda client: client.batches.contact_sheet(BATCH_ID, links="download")) == "<p>größer</p>"
    assert target(api, 1) == f"/v1/batches/{BATCH_ID}/contact-sheet?links=download"


def test_a_refusal_is_final(clock: Clock) -> None:
    reused = answer(422, problem(422, "idempotency_key_reused"))
    with pytest.raises(InvalidRequestError) as caught:
        Driven(operations.create_batch(clock.patience(), ["x"]), clock).give(reused)
    assert caught.value.code == "idempotency_key_reused"


def test_a_newer_server_may_say_more(api: Server, run: Run) -> None:
    api.then(says(batch_document("dreaming", status_reason="rem", future=[1])))
    batch = run(lambda client: client.batches.get(BATCH_ID))
    assert (batch.status, batch.ended, batch.model_dump(mode="json")["future"]) == ("dreaming", False, [1])
    assert batch.created_at == datetime(2026, 11, 25, 18, tzinfo=UTC)
