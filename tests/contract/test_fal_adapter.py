"""The paid POST against real sockets: how often it is sent, where, and what each answer to it means."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from darkroom.adapters.fal import FalQueue, quiet_http_logs
from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    RateLimitedError,
    TransientError,
    UncertainError,
)
from darkroom.domain.generation import RequestRef
from darkroom.ports import Generator
from tests.contract.fal_wire import HangUp, Reply, Seen, Silence, Wire, listening

MODEL = "fal-ai/krea-2/turbo"
SUBMIT = "/fal-ai/krea-2/turbo"
KEY = "id-of-key:secret-of-key"
CALLBACK = "https://us.example/v1/fal/callback/sub_1.token-of-callback"
FOREVER = float("inf")
NGINX = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with listening() as wire:
        yield wire


@asynccontextmanager
async def queue_at(url: str, **options: object) -> AsyncIterator[FalQueue]:
    settings: dict[str, Any] = {"submit_timeout": 5.0, "read_timeout": 5.0, **options}
    queue = FalQueue(key=KEY, queue_url=url, api_url=url, **settings)
    try:
        yield queue
    finally:
        await queue.close()


@pytest.fixture
async def fal(wire: Wire) -> AsyncIterator[FalQueue]:
    async with queue_at(wire.url) as queue:
        yield queue


async def submit(queue: Generator, *, send_by: float = FOREVER, prompt: str = "Mars") -> RequestRef:
    arguments = {"prompt": prompt, "seed": 7}
    return await queue.submit(MODEL, arguments, start_timeout=600, callback_url=CALLBACK, send_by=send_by)


def accepted(wire: Wire, request_id: str = "req-1") -> dict[str, str]:
    base = f"{wire.url}/fal-ai/krea-2/requests/{request_id}"
    return {
        "status": "IN_QUEUE",
        "request_id": request_id,
        "response_url": base,
        "status_url": f"{base}/status?as=returned",
        "cancel_url": f"{base}/cancel",
    }


def post_then_status(post: Reply, status: Reply | HangUp) -> Callable[[Seen], Reply | HangUp]:
    return lambda seen: post if seen.method == "POST" else status


# --- taken ---------------------------------------------------------------------------------------------------------


async def test_an_accepted_request_is_named_by_the_urls_fal_returned(wire: Wire, fal: FalQueue) -> None:
    wire.always(200, accepted(wire))
    ref = await submit(fal)
    assert ref.request_id == "req-1"
    assert ref.status_url.endswith("/fal-ai/krea-2/requests/req-1/status?as=returned")
    [post] = wire.seen
    assert (post.path, json.loads(post.body)) == (SUBMIT, {"prompt": "Mars", "seed": 7})
    assert parse_qs(urlsplit(post.target).query) == {"fal_webhook": [CALLBACK]}
    assert post.headers["authorization"] == f"Key {KEY}"
    assert post.headers["host"] == f"127.0.0.1:{wire.port}"
    assert float(post.headers["x-fal-request-timeout"]) == 600
    assert post.headers["x-fal-request-start-timeout"] == "600"


async def test_each_paid_post_has_a_connection_of_its_own(wire: Wire, fal: FalQueue) -> None:
    wire.always(200, accepted(wire))
    await submit(fal)
    await submit(fal)
    await asyncio.gather(*(submit(fal) for _ in range(8)))
    assert sorted(post.connection for post in wire.posts) == list(range(1, 11))


async def test_urls_are_built_from_owner_and_app_where_the_answer_has_none(wire: Wire, fal: FalQueue) -> None:
    wire.always(200, {"request_id": "req-1"})
    base = f"{wire.url}/fal-ai/krea-2/requests/req-1"
    assert await submit(fal) == RequestRef("req-1", f"{base}/status", base, f"{base}/cancel")
    assert await submit(fal) == fal.reference(MODEL, "req-1")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, {"X-Fal-Request-Id": "req-1"}),
        Reply(201, b"<html>", {"x-fal-request-id": "req-1"}),
        Reply(200, b'{"reque', {"x-fal-request-id": "req-1"}, cut=True),
    ],
    ids=["no body to speak of", "not JSON", "body broke off"],
)
async def test_an_id_in_the_header_of_a_2xx_is_an_acceptance(wire: Wire, fal: FalQueue, reply: Reply) -> None:
    wire.script = lambda _: reply
    assert await submit(fal) == fal.reference(MODEL, "req-1")
    assert len(wire.seen) == 1


@pytest.mark.parametrize("status", [302, 408, 500, 502, 503, 504])
async def test_an_id_in_any_other_answer_is_looked_at_and_kept_when_fal_knows_it(
    wire: Wire, fal: FalQueue, status: int
) -> None:
    label = Reply(status, NGINX, {"x-fal-request-id": "req-1", "x-fal-error-type": "runner_disconnected"})
    wire.script = post_then_status(label, Reply(202, {"status": "IN_QUEUE"}))
    assert await submit(fal) == fal.reference(MODEL, "req-1")
    assert [seen.method for seen in wire.seen] == ["POST", "GET"]


async def test_an_id_stays_the_best_there_is_when_its_status_cannot_be_read(wire: Wire, fal: FalQueue) -> None:
    wire.script = post_then_status(Reply(502, NGINX, {"x-fal-request-id": "req-1"}), HangUp())
    assert await submit(fal) == fal.reference(MODEL, "req-1")
    assert len(wire.posts) == 1


async def test_an_id_that_fal_does_not_know_leaves_a_5xx_uncertain(wire: Wire, fal: FalQueue) -> None:
    label = Reply(500, {"error_type": "runner_error"}, {"x-fal-request-id": "req-1"})
    wire.script = post_then_status(label, Reply(404, {"detail": "not found"}))
    with pytest.raises(UncertainError) as raised:
        await submit(fal)
    assert raised.value.upstream == {"status": 500, "error_type": "runner_error", "request_id": "req-1"}
    assert len(wire.posts) == 1


@pytest.mark.parametrize("look", [Reply(404), Reply(401), HangUp()], ids=["unknown", "refused", "lost"])
async def test_a_4xx_that_fal_labelled_stays_a_rejection(wire: Wire, fal: FalQueue, look: Reply | HangUp) -> None:
    wire.script = post_then_status(Reply(429, {"detail": "slow"}, {"x-fal-request-id": "req-1"}), look)
    with pytest.raises(RateLimitedError):
        await submit(fal)
    assert len(wire.posts) == 1


async def test_a_4xx_whose_id_is_a_running_request_is_an_acceptance(wire: Wire, fal: FalQueue) -> None:
    post = Reply(422, {"detail": "odd"}, {"x-fal-request-id": "req-1"})
    wire.script = post_then_status(post, Reply(202, {"status": "IN_PROGRESS", "logs": None}))
    assert await submit(fal) == fal.reference(MODEL, "req-1")


async def test_an_id_that_would_change_a_url_is_no_id(wire: Wire, fal: FalQueue) -> None:
    wire.always(200, {**accepted(wire), "request_id": "../../admin"})
    with pytest.raises(UncertainError):
        await submit(fal)


# --- refused -------------------------------------------------------------------------------------------------------

LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up at https://fal.ai/dashboard/billing."}
MISSING = {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "missing", "input": "x" * 9000}]}
POLICY = {"detail": [{"loc": ["body", "prompt"], "msg": "Flagged.", "type": "content_policy_violation"}]}
REJECTIONS = [
    (Reply(400, {"detail": "bad"}), PermanentError, "invalid_input"),
    (Reply(401, {"detail": "no"}), BlockedError, "fal_key_refused"),
    (Reply(402, {"detail": "no"}), BlockedError, "fal_out_of_balance"),
    (Reply(403, LOCKED), BlockedError, "fal_out_of_balance"),
    (Reply(403, {"detail": "User is locked."}), BlockedError, "fal_locked"),
    (Reply(404, {"detail": "Application not found"}), PermanentError, "invalid_input"),
    (Reply(404, b"<html>nothing here</html>"), BlockedError, "fal_misrouted"),
    (Reply(409, {"detail": "conflict"}), TransientError, "upstream_unavailable"),
    (Reply(422, MISSING), PermanentError, "invalid_input"),
    (Reply(422, POLICY), PermanentError, "content_policy_violation"),
    (Reply(422, b"", cut=True), PermanentError, "invalid_input"),
    (Reply(429, {"detail": "concurrent_requests_limit"}), RateLimitedError, "rate_limited"),
    (Reply(500, {"detail": "x", "error_type": "runner_error"}), TransientError, "runner_error"),
    (Reply(503, b"", {"X-Fal-Error-Type": "runner_scheduling_failure"}), TransientError, "runner_scheduling_failure"),
]


@pytest.mark.parametrize(("reply", "kind", "code"), REJECTIONS, ids=[f"{r.status} {c}" for r, _, c in REJECTIONS])
async def test_a_rejection_is_certain_and_is_heard_once(
    wire: Wire, fal: FalQueue, reply: Reply, kind: type[DarkroomError], code: str
) -> None:
    wire.script = lambda _: reply
    with pytest.raises(DarkroomError) as raised:
        await submit(fal)
    assert (type(raised.value), raised.value.code) == (kind, code)
    assert raised.value.upstream is not None
    assert raised.value.upstream["status"] == reply.status
    assert len(json.dumps(raised.value.upstream)) < 2500
    assert len(wire.seen) == 1


async def test_no_secret_comes_back_in_an_error(wire: Wire, fal: FalQueue) -> None:
    def echo(seen: Seen) -> Reply:
        return Reply(422, {"detail": f"bad key {seen.headers['authorization']} for {seen.target} or {CALLBACK}"})

    wire.script = echo
    with pytest.raises(PermanentError) as raised:
        await submit(fal)
    told = raised.value.message + json.dumps(raised.value.upstream)
    assert "bad key" in told
    assert not any(secret in told for secret in (KEY, "secret-of-key", "token-of-callback", "us.example"))


async def test_logs_carry_no_callback_token(wire: Wire, fal: FalQueue, caplog: pytest.LogCaptureFixture) -> None:
    names = ("httpx", "httpcore", "fal_client")
    levels = {name: logging.getLogger(name).level for name in names}
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        quiet_http_logs()
        wire.always(200, accepted(wire))
        await submit(fal)
    finally:
        logging.getLogger().setLevel(logging.WARNING)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    assert "token-of-callback" not in caplog.text


# --- unknown -------------------------------------------------------------------------------------------------------

UNKNOWN: dict[str, Reply | HangUp | Silence] = {
    "hang-up": HangUp(),
    "silence": Silence(),
    "redirect": Reply(307, b"", {"Location": "/elsewhere"}),
    "408": Reply(408, {"detail": "timeout"}),
    "502 of nginx": Reply(502, NGINX),
    "503 of nginx": Reply(503, NGINX),
    "504 of nginx": Reply(504, NGINX),
    "500 without fal's word": Reply(500, {"detail": "Internal Server Error"}),
    "2xx not JSON": Reply(200, b"hello"),
    "2xx without id": Reply(200, {"status": "IN_QUEUE"}),
    "2xx cut": Reply(200, b'{"request_id": "r', cut=True),
    "2xx garbled": Reply(200, b"not gzip", {"Content-Encoding": "gzip"}),
    "2xx a list": Reply(200, ["req-1"]),
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_every_other_answer_is_uncertain_and_never_repeated(wire: Wire, name: str) -> None:
    wire.script = lambda _: UNKNOWN[name]
    async with queue_at(wire.url, submit_timeout=0.3) as queue:
        with pytest.raises(UncertainError):
            await submit(queue)
    assert len(wire.seen) == 1


async def test_a_connection_closed_before_the_request_was_read_is_uncertain() -> None:
    async with listening(refuse=True) as wire, queue_at(wire.url) as queue:
        with pytest.raises(UncertainError):
            await submit(queue)
        assert wire.connections == 1


# --- not sent ------------------------------------------------------------------------------------------------------


async def assert_unreachable(url: str, **options: object) -> None:
    async with queue_at(url, **options) as queue:
        with pytest.raises(TransientError) as raised:
            await submit(queue)
        assert raised.value.code == "fal_unreachable"


async def test_a_refused_connection_sent_nothing() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        await assert_unreachable(f"http://127.0.0.1:{bound.getsockname()[1]}")


async def test_a_name_that_does_not_resolve_sent_nothing() -> None:
    await assert_unreachable("https://queue.invalid")


async def test_a_failed_tls_handshake_sent_nothing() -> None:
    async with listening(refuse=True) as wire:
        await assert_unreachable(wire.url.replace("http", "https"))
        assert wire.connections == 1


async def test_a_stalled_tls_handshake_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        await assert_unreachable(f"https://127.0.0.1:{mute.getsockname()[1]}", submit_timeout=0.2)


async def test_past_its_time_nothing_is_sent(wire: Wire, fal: FalQueue) -> None:
    with pytest.raises(TransientError) as raised:
        await submit(fal, send_by=time.monotonic() - 0.001)
    assert raised.value.code == "not_sent"
    assert wire.connections == 0


@pytest.mark.parametrize("looks", [1, 2], ids=["frozen while connecting", "frozen before the body"])
async def test_the_time_is_asked_again_just_before_bytes_leave(wire: Wire, looks: int) -> None:
    readings = iter([0.0] * looks + [100.0])
    async with queue_at(wire.url, clock=lambda: next(readings)) as queue:
        with pytest.raises(TransientError) as raised:
            await submit(queue, send_by=50.0)
        assert raised.value.code == "not_sent"
        await wire.gone.wait()
    assert wire.connections == 1
    assert wire.seen == []


async def test_a_cancelled_submission_ends_at_once_and_is_not_repeated(wire: Wire, fal: FalQueue) -> None:
    wire.script = lambda _: Silence()
    task = asyncio.create_task(submit(fal))
    await wire.received.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wire.gone.wait()
    assert len(wire.seen) == 1


# --- where the key goes --------------------------------------------------------------------------------------------


async def test_the_key_is_not_taken_to_a_host_that_an_answer_names(wire: Wire, fal: FalQueue) -> None:
    async with listening() as elsewhere:
        wire.script = post_then_status(Reply(200, accepted(elsewhere)), Reply(202, {"status": "IN_QUEUE"}))
        ref = await submit(fal)
        assert ref == fal.reference(MODEL, "req-1")
        await fal.status(ref)
        foreign = accepted(elsewhere)
        stored = RequestRef("req-1", foreign["status_url"], foreign["response_url"], foreign["cancel_url"])
        for reading in (fal.status, fal.cancel):
            with pytest.raises(TransientError) as raised:
                await reading(stored)
            assert raised.value.code == "fal_url_refused"
        assert elsewhere.connections == 0


async def test_no_redirect_is_followed(wire: Wire, fal: FalQueue) -> None:
    async with listening() as elsewhere:
        wire.always(302, b"", {"Location": f"{elsewhere.url}/"})
        with pytest.raises(UncertainError):
            await submit(fal)
        with pytest.raises(TransientError):
            await fal.status(fal.reference(MODEL, "req-1"))
        assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "url", ["http://queue.fal.run", "ftp://127.0.0.1", "https://me@queue.fal.run", "queue.fal.run"]
)
def test_an_address_that_would_give_the_key_away_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        FalQueue(key=KEY, queue_url=url, submit_timeout=1, read_timeout=1)


async def test_plain_http_is_for_the_hosts_named() -> None:
    named = frozenset({"simulator:9000"})
    async with queue_at("http://simulator:9000", allow_http_hosts=named) as queue:
        assert queue.reference(MODEL, "r").response_url == "http://simulator:9000/fal-ai/krea-2/requests/r"
    with pytest.raises(ValueError, match="plain http"):
        FalQueue(key=KEY, queue_url="http://simulator:9001", allow_http_hosts=named, submit_timeout=1, read_timeout=1)
