"""Status, result, cancel and listing against a real socket: tolerant of shapes, never ending a job by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from darkroom.adapters.fal import FalQueue
from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    ResultGoneError,
    ResultPendingError,
    TransientError,
)
from darkroom.domain.generation import (
    Completed,
    Generated,
    GenerationFailed,
    GenerationStatus,
    InProgress,
    InQueue,
    MediaRef,
    RequestRef,
)
from tests.contract.fal_wire import HangUp, Reply, Seen, Silence, Wire, listening

MODEL = "fal-ai/krea-2/turbo"
DONE = Completed()
PICTURES = {
    "images": [{"url": "https://v3.fal.media/a.png", "content_type": "image/png", "width": 1024, "height": 768}],
    "seed": 7,
    "has_nsfw_concepts": [True],
    "prompt": "Mars",
    "timings": {},
}
NGINX = Reply(502, b"<html>nginx</html>")


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with listening() as wire:
        yield wire


@pytest.fixture
async def fal(wire: Wire) -> AsyncIterator[FalQueue]:
    queue = FalQueue(key="id:secret", queue_url=wire.url, api_url=wire.url, submit_timeout=5, read_timeout=5)
    yield queue
    await queue.close()


@pytest.fixture
def ref(fal: FalQueue) -> RequestRef:
    return fal.reference(MODEL, "req-1")


# --- status --------------------------------------------------------------------------------------------------------

STATUSES: list[tuple[int, dict[str, Any], GenerationStatus]] = [
    (202, {"status": "IN_QUEUE", "queue_position": 3}, InQueue(3)),
    (202, {"status": "IN_QUEUE"}, InQueue(None)),
    (200, {"status": "IN_QUEUE", "queue_position": "?"}, InQueue(None)),
    (202, {"status": "IN_PROGRESS", "logs": None}, InProgress()),
    (200, {"status": "IN_PROGRESS"}, InProgress()),
    (200, {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 2.5}}, Completed(None, None, 2.5)),
    (202, {"status": "COMPLETED"}, Completed()),
    (200, {"status": "COMPLETED", "error": "boom", "error_type": "runner_error"}, Completed("boom", "runner_error")),
    (200, {"status": "COMPLETED", "error": {"detail": "boom"}}, Completed('{"detail": "boom"}')),
    (200, {"status": "CANCELLED"}, Completed("the request ended as cancelled", "cancelled")),
]


@pytest.mark.parametrize(("code", "body", "status"), STATUSES)
async def test_a_status_is_read_whatever_is_missing(
    wire: Wire, fal: FalQueue, ref: RequestRef, code: int, body: dict[str, Any], status: GenerationStatus
) -> None:
    wire.always(code, body)
    assert await fal.status(ref) == status
    assert wire.seen[0].target == "/fal-ai/krea-2/requests/req-1/status"


@pytest.mark.parametrize("code", [404, 410])
async def test_a_request_that_fal_forgot_is_gone(wire: Wire, fal: FalQueue, ref: RequestRef, code: int) -> None:
    wire.always(code, {"detail": "not found"})
    with pytest.raises(ResultGoneError):
        await fal.status(ref)
    with pytest.raises(ResultGoneError):
        await fal.result(ref, DONE)


UNREADABLE = [
    Reply(401, {"detail": "no"}),
    Reply(403, {"detail": "User is locked."}),
    Reply(405, {"detail": "Method not allowed"}),
    Reply(429, {"detail": "slow"}, {"Retry-After": "7"}),
    Reply(302, b"", {"Location": "/"}),
    NGINX,
    Reply(500, {"detail": "oops"}),
    Reply(200, b"{", cut=True),
]


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply.status))
async def test_a_bad_reading_ends_nothing_and_is_not_repeated(
    wire: Wire, fal: FalQueue, ref: RequestRef, reply: Reply
) -> None:
    wire.script = lambda _: reply
    for reading in (fal.status(ref), fal.result(ref, DONE)):
        with pytest.raises(DarkroomError) as raised:
            await reading
        assert type(raised.value) is TransientError
    assert len(wire.seen) == 2


async def test_a_reading_on_a_broken_connection_is_asked_once_more_at_most(
    wire: Wire, fal: FalQueue, ref: RequestRef
) -> None:
    wire.script = lambda _: HangUp()
    with pytest.raises(TransientError) as raised:
        await fal.status(ref)
    assert raised.value.code == "fal_unreachable"
    assert len(wire.seen) <= 2


async def test_an_answer_without_end_is_not_kept(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.always(200, b"x" * (17 * 1024 * 1024))
    with pytest.raises(TransientError) as raised:
        await fal.result(ref, DONE)
    assert raised.value.code == "answer_too_large"


async def test_a_429_of_a_reading_says_how_long_to_wait(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.always(429, {"detail": "slow"}, {"Retry-After": "7"})
    with pytest.raises(TransientError) as raised:
        await fal.status(ref)
    assert raised.value.upstream == {"status": 429, "detail": "slow", "retry_after": 7.0}


async def test_a_reading_has_a_time_limit(wire: Wire) -> None:
    wire.script = lambda _: Silence()
    fal = FalQueue(key="k", queue_url=wire.url, submit_timeout=5, read_timeout=0.1)
    with pytest.raises(TransientError) as raised:
        await fal.status(fal.reference(MODEL, "r"))
    assert raised.value.code == "fal_unreachable"
    await fal.close()


async def test_readings_share_connections(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.always(202, {"status": "IN_QUEUE"})
    for _ in range(5):
        await fal.status(ref)
    assert wire.connections == 1
    await asyncio.gather(*(fal.status(ref) for _ in range(100)))
    assert wire.connections <= 32


# --- result --------------------------------------------------------------------------------------------------------


async def test_pictures_come_with_their_bill(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.always(200, PICTURES, {"X-Fal-Billable-Units": "0.786432"})
    picture = MediaRef("https://v3.fal.media/a.png", "image/png", 1024, 768)
    assert await fal.result(ref, DONE) == Generated((picture,), 7, (True,), Decimal("0.786432"))


async def test_pictures_are_the_verdict_even_beside_an_error(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.always(200, PICTURES)
    verdict = await fal.result(ref, Completed("webhook failed"))
    assert isinstance(verdict, Generated)
    assert verdict.billable_units is None


@pytest.mark.parametrize("reply", [Reply(202, {}), Reply(400, {"detail": "Request is still in progress"})])
async def test_a_result_that_is_not_there_yet_is_no_failure(
    wire: Wire, fal: FalQueue, ref: RequestRef, reply: Reply
) -> None:
    wire.script = lambda _: reply
    with pytest.raises(ResultPendingError):
        await fal.result(ref, DONE)


@pytest.mark.parametrize("body", [{}, {"images": []}, {"images": [{"url": None}]}, {"images": "x"}, ["x"], b"<html>"])
async def test_a_result_without_usable_pictures_is_asked_for_again(
    wire: Wire, fal: FalQueue, ref: RequestRef, body: object
) -> None:
    wire.always(200, body)
    with pytest.raises(TransientError) as raised:
        await fal.result(ref, DONE)
    assert raised.value.code == "malformed_result"


POLICY = {"detail": [{"loc": ["body", "prompt"], "msg": "Flagged.", "type": "content_policy_violation"}]}
FAILURES: list[tuple[Reply, Completed, type[DarkroomError], str]] = [
    (Reply(422, POLICY), DONE, PermanentError, "content_policy_violation"),
    (Reply(422, {"detail": "width too large"}), DONE, PermanentError, "invalid_input"),
    (Reply(400, {"detail": "bad"}), DONE, PermanentError, "invalid_input"),
    (Reply(500, POLICY), Completed("failed"), PermanentError, "content_policy_violation"),
    (Reply(500, {"error_type": "runner_error"}), DONE, TransientError, "runner_error"),
    (Reply(503, b"", {"X-Fal-Error-Type": "runner_disconnected"}), DONE, TransientError, "runner_disconnected"),
    (Reply(504, {"error_type": "startup_timeout"}), DONE, TransientError, "startup_timeout"),
    (Reply(504, b"", {"X-Fal-Request-Timeout-Type": "user"}), DONE, TransientError, "request_timeout"),
    (Reply(500, {"error_type": "bad_request"}), DONE, PermanentError, "bad_request"),
    (Reply(500, {"error_type": "x_error"}, {"X-Fal-Retryable": "false"}), DONE, PermanentError, "x_error"),
    (Reply(500, {"error_type": "x_error"}, {"X-Fal-Needs-Retry": "1"}), DONE, TransientError, "x_error"),
    (NGINX, Completed("boom", "runner_error"), TransientError, "runner_error"),
    (Reply(200, {}), Completed("boom"), TransientError, "generation_failed"),
    (Reply(200, {}), Completed("no", "content_policy_violation"), PermanentError, "content_policy_violation"),
    (Reply(404, {"detail": "expired"}), Completed("boom", "runner_error"), TransientError, "runner_error"),
]


@pytest.mark.parametrize(
    ("reply", "completed", "error"),
    [(reply, completed, (kind, code)) for reply, completed, kind, code in FAILURES],
    ids=[f"{reply.status} {code} {n}" for n, (reply, _, _, code) in enumerate(FAILURES)],
)
async def test_fals_own_word_is_a_verdict(
    wire: Wire,
    fal: FalQueue,
    ref: RequestRef,
    reply: Reply,
    completed: Completed,
    error: tuple[type[DarkroomError], str],
) -> None:
    wire.script = lambda _: Reply(reply.status, reply.body, {**reply.headers, "X-Fal-Billable-Units": "1.5"})
    verdict = await fal.result(ref, completed)
    assert isinstance(verdict, GenerationFailed)
    assert (type(verdict.error), verdict.error.code) == error
    assert verdict.billable_units == Decimal("1.5")


@pytest.mark.parametrize(("said", "units"), [("NaN", None), ("-1", None), ("", None), ("2", Decimal(2)), ("x", None)])
async def test_a_bill_that_is_no_amount_is_none(
    wire: Wire, fal: FalQueue, ref: RequestRef, said: str, units: Decimal | None
) -> None:
    wire.always(200, PICTURES, {"X-Fal-Billable-Units": said})
    verdict = await fal.result(ref, DONE)
    assert verdict.billable_units == units


# --- cancel --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "taken"), [(200, True), (202, True), (204, True), (400, False), (404, False)])
async def test_a_cancellation_is_taken_or_too_late(
    wire: Wire, fal: FalQueue, ref: RequestRef, code: int, *, taken: bool
) -> None:
    wire.always(code, b"")
    assert await fal.cancel(ref) is taken
    assert [(seen.method, seen.path) for seen in wire.seen] == [("PUT", "/fal-ai/krea-2/requests/req-1/cancel")]


async def test_a_cancellation_that_was_not_heard_is_transient(wire: Wire, fal: FalQueue, ref: RequestRef) -> None:
    wire.script = lambda _: NGINX
    with pytest.raises(TransientError):
        await fal.cancel(ref)


# --- listing -------------------------------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))
UNTIL = SINCE + timedelta(minutes=20)


def paged(pages: dict[str, dict[str, Any]], wire: Wire) -> None:
    def page(seen: Seen) -> Reply:
        return Reply(200, pages[parse_qs(urlsplit(seen.target).query).get("cursor", [""])[0]])

    wire.script = page


async def test_the_listing_is_read_to_its_last_page(wire: Wire, fal: FalQueue) -> None:
    first = {"request_id": "a", "sent_at": "2026-01-01T11:00:01.5Z", "json_input": {"seed": 7}, "json_output": "{"}
    second = {"request_id": "b", "status_code": 200, "ended_at": "2026-01-01T11:00:02", "json_input": '{"seed": 8}'}
    paged({"": {"items": [first], "next_cursor": "n", "has_more": True}, "n": {"requests": [second]}}, wire)
    a, b = await fal.list_requests(MODEL, since=SINCE, until=UNTIL)
    assert (a.request_id, a.input, a.output) == ("a", {"seed": 7}, None)
    assert a.sent_at == datetime(2026, 1, 1, 11, 0, 1, 500_000, tzinfo=UTC)
    assert (b.status_code, b.input, b.ended_at) == (200, {"seed": 8}, datetime(2026, 1, 1, 11, 0, 2, tzinfo=UTC))
    asked = parse_qs(urlsplit(wire.seen[0].target).query)
    assert wire.seen[0].path == "/v1/models/requests/by-endpoint"
    assert asked == {
        "endpoint_id": [MODEL],
        "start": ["2026-01-01T11:00:00Z"],
        "end": ["2026-01-01T11:20:00Z"],
        "expand": ["payloads"],
        "limit": ["100"],
    }


INCOMPLETE: dict[str, dict[str, dict[str, Any]]] = {
    "a cursor in circles": {
        "": {"items": [], "next_cursor": "a"},
        "a": {"items": [], "next_cursor": "b"},
        "b": {"items": [], "next_cursor": "a"},
    },
    "more, but no cursor": {"": {"items": [], "has_more": True, "next_cursor": None}},
    "no items": {"": {"next_cursor": None}},
    "an item without id": {"": {"items": [{"json_input": {}}]}},
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_a_listing_that_cannot_be_read_in_full_is_no_listing(wire: Wire, fal: FalQueue, name: str) -> None:
    paged(INCOMPLETE[name], wire)
    with pytest.raises(TransientError) as raised:
        await fal.list_requests(MODEL, since=SINCE, until=UNTIL)
    assert raised.value.code == "malformed_listing"
    assert len(wire.seen) == len(INCOMPLETE[name])


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, BlockedError, "listing_refused"),
        (403, BlockedError, "listing_refused"),
        (429, TransientError, "upstream_unavailable"),
        (500, TransientError, "upstream_unavailable"),
        (404, TransientError, "upstream_unavailable"),
    ],
)
async def test_a_listing_that_fal_refuses(
    wire: Wire, fal: FalQueue, status: int, kind: type[DarkroomError], code: str
) -> None:
    wire.always(status, {"detail": "no"})
    with pytest.raises(kind) as raised:
        await fal.list_requests(MODEL, since=SINCE, until=UNTIL)
    assert raised.value.code == code


async def test_a_listed_output_is_read_like_a_result(fal: FalQueue) -> None:
    verdict = fal.parse_output(PICTURES)
    assert isinstance(verdict, Generated)
    assert fal.parse_output({"detail": "x"}) is None
