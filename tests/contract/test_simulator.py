"""The simulator keeps fal's protocol: what `fal-protocol.md` says, seen by fal's own client and on bare sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import fal_client
import fal_client.client as fal_module
import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from PIL import Image

from simulator.config import Config, FaultRule
from simulator.faults import CATALOGUE, Faults
from simulator.server import Simulator

MODEL = "fal-ai/krea-2/turbo"
SMALL = {"prompt": "a lighthouse", "seed": 7, "image_size": {"width": 64, "height": 48}}
QUICK = Config(latency=0.01, callback_retries=(0.02, 0.02))
SLOW = Config(latency=60.0, latency_sigma=0.0)

StartSimulator = Callable[[Config], Awaitable["Fal"]]


@dataclass
class Fal:
    """A running simulator and a plain HTTP client that makes a fresh connection for each request."""

    origin: str
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        url = path if path.startswith("http") else self.origin + path
        async with self.http.get(url) as response:
            return response.status, await response.json()

    async def submit(self, body: object = SMALL, query: str = "", **headers: str) -> tuple[int, Any]:
        url = f"{self.origin}/{MODEL}{query}"
        async with self.http.post(url, json=body, headers=headers, allow_redirects=False) as response:
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    async def finished(self, taken: dict[str, Any]) -> dict[str, Any]:
        """Follow the status stream to its end; the last event."""
        async with self.http.get(taken["status_url"] + "/stream") as response:
            assert response.content_type == "text/event-stream"
            events = [json.loads(line[5:]) async for line in response.content if line.startswith(b"data:")]
        assert events[-1]["status"] == "COMPLETED"
        return dict(events[-1])

    async def generated(self, body: object = SMALL, query: str = "") -> dict[str, Any]:
        """Submit, wait, and return what the submit answered."""
        status, taken = await self.submit(body, query)
        assert status == 200, taken
        await self.finished(taken)
        return dict(taken)

    async def arm(self, name: str, **wish: object) -> None:
        async with self.http.post(f"{self.origin}/_sim/faults", json={"name": name, **wish}) as response:
            assert response.status == 200, await response.text()

    async def ledger(self) -> dict[str, Any]:
        return dict((await self.get("/_sim/ledger"))[1])


@pytest.fixture
async def start() -> AsyncIterator[StartSimulator]:
    stops: list[Callable[[], Awaitable[None]]] = []

    async def start_one(config: Config) -> Fal:
        simulator = Simulator(config)
        origin = await simulator.start()
        stops.append(simulator.stop)
        http = aiohttp.ClientSession(
            headers={"Authorization": "Key test"}, connector=aiohttp.TCPConnector(force_close=True)
        )
        stops.append(http.close)
        return Fal(origin, http)

    yield start_one
    for stop in reversed(stops):
        await stop()


@pytest.fixture
async def fal(start: StartSimulator) -> Fal:
    return await start(QUICK)


@asynccontextmanager
async def official_client(origin: str) -> AsyncIterator[fal_client.AsyncClient]:
    """The unmodified client of fal; only the origin is another."""
    was = fal_module.QUEUE_URL_FORMAT
    fal_module.QUEUE_URL_FORMAT = f"{origin}/"
    client = fal_client.AsyncClient(key="test")
    try:
        yield client
    finally:
        fal_module.QUEUE_URL_FORMAT = was
        await (await client._client).aclose()


# --- through fal's own client ----------------------------------------------------------------------------------------


async def test_the_official_client_gets_a_picture(fal: Fal) -> None:
    async with official_client(fal.origin) as client:
        handle = await client.submit(MODEL, arguments=SMALL)
        states = [event async for event in handle.iter_events(with_logs=True, interval=0.005)]
        result = await handle.get()
    assert isinstance(states[-1], fal_client.Completed)
    assert states[-1].error is None
    assert states[-1].logs
    assert states[-1].metrics["inference_time"] > 0
    assert result["seed"] == 7
    assert result["prompt"] == "a lighthouse"
    assert result["has_nsfw_concepts"] == [False]
    image = result["images"][0]
    async with fal.http.get(image["url"], skip_auto_headers=["Authorization"]) as response:
        data = await response.read()
    assert (image["width"], image["height"], image["file_size"]) == (64, 48, len(data))
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.size, picture.format, image["content_type"]) == ((64, 48), "PNG", "image/png")


async def test_the_official_client_reads_every_state_and_cancels(start: StartSimulator) -> None:
    fal = await start(Config(latency=60.0, concurrency=1))
    async with official_client(fal.origin) as client:
        first = await client.submit(MODEL, arguments=SMALL)
        second = await client.submit(MODEL, arguments=SMALL)
        third = await client.submit(MODEL, arguments=SMALL)
        assert isinstance(await first.status(), fal_client.InProgress)
        waiting = await third.status(with_logs=True)
        assert isinstance(waiting, fal_client.Queued)
        assert waiting.position == 1
        await second.cancel()
        waiting = await third.status()
        assert isinstance(waiting, fal_client.Queued)
        assert waiting.position == 0
        await first.cancel()
        assert isinstance(await third.status(), fal_client.InProgress)
        with pytest.raises(fal_client.client.FalClientHTTPError) as late:
            await first.cancel()
    assert late.value.status_code == 400
    outcomes = [request["outcome"] for request in (await fal.ledger())["requests"]]
    assert outcomes == ["cancelled", "cancelled", "running"]


async def test_the_official_client_repeats_a_lost_post_and_the_ledger_shows_each(fal: Fal) -> None:
    await fal.arm("submit_lost_after", times=2)
    async with official_client(fal.origin) as client:
        handle = await client.submit(MODEL, arguments=SMALL)
        await handle.get(interval=0.005)
    ledger = await fal.ledger()
    assert [request["reply"] for request in ledger["requests"]] == ["lost", "lost", "sent"]
    assert ledger["counters"]["posts"] == ledger["counters"]["accepted"] == 3


async def test_the_official_client_raises_on_a_refused_input(fal: Fal) -> None:
    async with official_client(fal.origin) as client:
        with pytest.raises(fal_client.client.FalClientHTTPError) as refused:
            await client.submit(MODEL, arguments={"prompt": "a", "num_images": 5})
    assert refused.value.status_code == 422


# --- the protocol ----------------------------------------------------------------------------------------------------


async def test_returned_urls_leave_the_nested_path_out_and_the_full_slug_answers_405(fal: Fal) -> None:
    taken = await fal.generated()
    assert taken["status_url"] == f"{fal.origin}/fal-ai/krea-2/requests/{taken['request_id']}/status"
    status, _ = await fal.get(f"/{MODEL}/requests/{taken['request_id']}/status")
    assert status == 405


async def test_status_is_202_until_completed_and_the_result_400(start: StartSimulator) -> None:
    fal = await start(SLOW)
    _, taken = await fal.submit()
    assert (await fal.get(taken["status_url"]))[0] == 202
    status, body = await fal.get(taken["response_url"])
    assert (status, body["detail"]) == (400, "Request is still in progress")


async def test_the_result_carries_the_megapixels_and_the_request_id(fal: Fal) -> None:
    taken = await fal.generated({**SMALL, "image_size": "landscape_16_9", "num_images": 2})
    async with fal.http.get(taken["response_url"]) as response:
        body = await response.json()
        assert response.headers["X-Fal-Billable-Units"] == "1.179648"
        assert response.headers["X-Fal-Request-Id"] == taken["request_id"]
    assert [(image["width"], image["height"]) for image in body["images"]] == [(1024, 576)] * 2


async def test_urls_start_with_the_public_origin_when_there_is_one(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, public_origin="http://simulator:9000/"))
    _, taken = await fal.submit()
    assert taken["status_url"].startswith("http://simulator:9000/fal-ai/krea-2/requests/")


@pytest.mark.parametrize(
    ("header", "expected"), [(None, 401), ("Key ", 401), ("Bearer right", 401), ("Key right", 404)]
)
async def test_a_key_is_needed(fal: Fal, header: str | None, expected: int) -> None:
    headers = {"Authorization": header} if header else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{fal.origin}/fal-ai/none") as response:
        assert response.status == expected
        assert (await response.json())["detail"]


async def test_only_the_required_key_is_taken(start: StartSimulator) -> None:
    fal = await start(Config(require_key="right"))
    assert (await fal.submit())[0] == 401
    assert (await fal.submit(Authorization="Key right"))[0] == 200


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        ({}, ["body", "prompt"], "missing"),
        ({"prompt": 3}, ["body", "prompt"], "string_type"),
        ({"prompt": "a", "num_images": 5}, ["body", "num_images"], "less_than_equal"),
        ({"prompt": "a", "num_images": 0}, ["body", "num_images"], "greater_than_equal"),
        ({"prompt": "a", "image_size": "huge"}, ["body", "image_size", "enum"], "literal_error"),
        (
            {"prompt": "a", "image_size": {"width": 0}},
            ["body", "image_size", "ImageSize", "width"],
            "greater_than_equal",
        ),
        ({"prompt": "a", "image_size": {"width": 14142, "height": 14142}}, ["body", "image_size"], "image_too_large"),
        ({"prompt": "a", "output_format": "gif"}, ["body", "output_format"], "literal_error"),
        ({"prompt": "a content-policy-violation"}, ["body", "prompt"], "content_policy_violation"),
        ([], ["body"], "model_type"),
    ],
)
async def test_a_bad_input_is_refused_in_fals_shape(fal: Fal, body: object, loc: list[str], kind: str) -> None:
    status, answer = await fal.submit(body)
    assert status == 422
    assert (answer["detail"][0]["loc"], answer["detail"][0]["type"]) == (loc, kind)
    assert answer["detail"][0]["msg"]
    ledger = await fal.ledger()
    assert (ledger["requests"], ledger["counters"]["refused"]) == ([], 1)


async def test_a_runner_can_refuse_what_the_submit_took(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, validate_at="run"))
    taken = await fal.generated({"prompt": "a", "num_images": 9})
    status, body = await fal.get(taken["response_url"])
    assert (status, body["detail"][0]["loc"]) == (422, ["body", "num_images"])
    entry = (await fal.ledger())["requests"][0]
    assert (entry["outcome"], entry["http_status"], entry["billed"]) == ("failed", 422, False)


async def test_only_so_many_run_at_a_time_and_the_rest_wait(start: StartSimulator) -> None:
    fal = await start(Config(latency=0.02, concurrency=2))
    answers = await asyncio.gather(*(fal.submit({**SMALL, "seed": seed}) for seed in range(9)))
    await asyncio.gather(*(fal.finished(taken) for _, taken in answers))
    ledger = await fal.ledger()
    assert (ledger["counters"]["max_running"], ledger["totals"]["billed"]) == (2, 9)
    assert 2 < ledger["counters"]["max_in_system"] <= 9
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 0, "running": 0}


async def test_low_priority_waits_for_the_others(start: StartSimulator) -> None:
    fal = await start(Config(latency=60.0, concurrency=1))
    await fal.submit()
    _, low = await fal.submit(**{"X-Fal-Queue-Priority": "low"})
    _, normal = await fal.submit()
    assert [(await fal.get(taken["status_url"]))[1]["queue_position"] for taken in (normal, low)] == [0, 1]


@pytest.mark.parametrize("header", ["X-Fal-Request-Timeout", "X-Fal-Request-Start-Timeout"])
async def test_what_does_not_start_in_time_ends_unbilled(start: StartSimulator, header: str) -> None:
    fal = await start(Config(latency=60.0, concurrency=1))
    _, running = await fal.submit(**{header: "0.05"})
    _, late = await fal.submit(**{header: "0.05"})
    end = await fal.finished(late)
    assert end["error_type"] == "request_timeout"
    async with fal.http.get(late["response_url"]) as response:
        assert (response.status, response.headers["X-Fal-Request-Timeout-Type"]) == (504, "user")
        assert "X-Fal-Billable-Units" not in response.headers
    assert (await fal.get(running["status_url"]))[1]["status"] == "IN_PROGRESS"  # the limit is on starting only
    entry = (await fal.ledger())["requests"][1]
    assert (entry["outcome"], entry["billed"], entry["started_at"]) == ("timeout", False, None)


async def test_cancelling_what_is_unknown_or_over(fal: Fal) -> None:
    taken = await fal.generated()
    async with fal.http.put(taken["cancel_url"]) as response:
        assert (response.status, await response.json()) == (400, {"status": "ALREADY_COMPLETED"})
    async with fal.http.put(f"{fal.origin}/fal-ai/krea-2/requests/none/cancel") as response:
        assert (response.status, await response.json()) == (404, {"status": "NOT_FOUND"})


async def test_a_running_request_may_be_finished_and_billed_in_spite_of_the_wish(start: StartSimulator) -> None:
    fal = await start(Config(latency=0.15, latency_sigma=0))
    await fal.arm("cancel_ignored")
    _, taken = await fal.submit()
    async with fal.http.put(taken["cancel_url"]) as response:
        assert response.status == 202
    await fal.finished(taken)
    assert (await fal.ledger())["requests"][0]["billed"]


async def test_a_result_expires(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, result_ttl=0))
    taken = await fal.generated()
    assert (await fal.get(taken["response_url"]))[0] == 404
    assert (await fal.get(taken["status_url"]))[1]["status"] == "COMPLETED"


# --- pictures --------------------------------------------------------------------------------------------------------


async def _pictures(fal: Fal, **wanted: object) -> list[bytes]:
    taken = await fal.generated({**SMALL, **wanted})
    _, body = await fal.get(taken["response_url"])
    found = []
    for image in body["images"]:
        async with fal.http.get(image["url"]) as response:
            found.append(await response.read())
    return found


async def test_image_i_uses_seed_plus_i_and_the_same_arguments_give_the_same_bytes(start: StartSimulator) -> None:
    first, second = await start(QUICK), await start(QUICK)
    row = await _pictures(first, seed=10, num_images=3)
    assert len(set(row)) == 3
    assert row[1:2] == await _pictures(second, seed=11)
    assert row[:1] != await _pictures(second, seed=10, prompt="a cactus")


async def test_sizes_and_formats_are_real(fal: Fal) -> None:
    (data,) = await _pictures(fal, image_size="portrait_4_3", output_format="jpeg")
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", (768, 1024))
        assert len(picture.resize((64, 64)).getcolors(4096) or []) > 10


async def test_sync_mode_gives_a_data_uri(fal: Fal) -> None:
    taken = await fal.generated({**SMALL, "sync_mode": True})
    _, body = await fal.get(taken["response_url"])
    head, _, data = body["images"][0]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


async def test_the_pool_serves_a_few_small_pictures_for_all_prompts(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, pool=True))
    found = [await _pictures(fal, seed=seed, image_size="square_hd") for seed in range(12)]
    assert len({data for (data,) in found}) < 12
    assert all(10_000 < len(data) < 80_000 for (data,) in found)


# --- faults of the submit --------------------------------------------------------------------------------------------

_TAKEN, _NOT_TAKEN = 1, 0


@pytest.mark.parametrize(
    ("name", "args", "status", "accepted"),
    [
        ("submit_lost_before", {}, None, _NOT_TAKEN),
        ("submit_lost_after", {}, None, _TAKEN),
        ("submit_reset", {}, None, _NOT_TAKEN),
        ("submit_reset", {"enqueued": True}, None, _TAKEN),
        ("submit_429", {}, 429, _NOT_TAKEN),
        ("submit_5xx", {"status": 504}, 504, _NOT_TAKEN),
        ("submit_5xx", {"enqueued": True}, 502, _TAKEN),
        ("submit_fal_5xx", {}, 503, _NOT_TAKEN),
        ("submit_slow", {"seconds": 0.02}, 200, _TAKEN),
        ("submit_slow", {"seconds": 0.02, "enqueued": False}, 504, _NOT_TAKEN),
        ("submit_401", {}, 401, _NOT_TAKEN),
        ("submit_403", {}, 403, _NOT_TAKEN),
        ("submit_408", {}, 408, _NOT_TAKEN),
        ("submit_408", {"enqueued": True}, 408, _TAKEN),
        ("submit_redirect", {}, 307, _NOT_TAKEN),
    ],
)
async def test_a_submit_goes_wrong(
    fal: Fal, name: str, args: dict[str, Any], status: int | None, accepted: int
) -> None:
    await fal.arm(name, times=1, args=args)
    if status is None:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await fal.submit()
    else:
        assert (await fal.submit())[0] == status
    ledger = await fal.ledger()
    assert (ledger["counters"]["posts"], len(ledger["requests"])) == (1, accepted)
    assert ledger["faults"] == {name: 1}
    assert (await fal.submit())[0] == 200  # once was asked for, once it struck


async def _exchange(fal: Fal, request: str) -> bytes:
    """What comes back on a bare socket; raises ConnectionResetError. A client of aiohttp's would repeat a GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fal.origin.rpartition(":")[2]))
    try:
        line, _, body = request.partition("\n")
        head = f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Key t\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        return await reader.read()
    finally:
        writer.transport.abort()


async def test_a_closed_and_a_reset_connection_differ_on_the_wire(fal: Fal) -> None:
    submit = f"POST /{MODEL}\n{json.dumps(SMALL)}"
    for name in ("submit_lost_before", "submit_lost_after"):
        await fal.arm(name)
        assert await _exchange(fal, submit) == b""
    await fal.arm("submit_reset")
    with pytest.raises(ConnectionResetError):
        await _exchange(fal, submit)


async def test_a_malformed_answer_belongs_to_a_request_that_was_taken(fal: Fal) -> None:
    await fal.arm("submit_malformed")
    async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
        assert response.status == 200
        with pytest.raises(ValueError, match="Unterminated string"):
            await response.json()
    assert (await fal.ledger())["requests"][0]["reply"] == "submit_malformed"


async def test_fals_own_words_and_the_ingress_can_be_told_apart(fal: Fal) -> None:
    for name, args in (
        ("submit_fal_5xx", {}),
        ("submit_5xx", {}),
        ("submit_5xx", {"enqueued": True, "request_id": True}),
    ):
        await fal.arm(name, args=args)
        async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
            text = await response.text()
            own = "X-Fal-Error-Type" in response.headers
            assert own == ("error_type" in text) == (name == "submit_fal_5xx")
            assert ("nginx" in text) == (name == "submit_5xx")
            assert ("X-Fal-Request-Id" in response.headers) == bool(args)


async def test_429_names_a_time_only_when_asked_to(fal: Fal) -> None:
    for retry_after in (None, 3):
        await fal.arm("submit_429", args={"retry_after": retry_after})
        async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
            assert response.headers.get("Retry-After") == (str(retry_after) if retry_after else None)
            assert (await response.json())["error_type"] == "concurrent_requests_limit"


# --- faults of watching, results and media ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"),
    [("status_5xx", 503), ("status_429", 429), ("status_401", 401), ("status_403", 403), ("status_404", 404)],
)
async def test_a_status_cannot_be_read_once(fal: Fal, name: str, status: int) -> None:
    taken = await fal.generated()
    await fal.arm(name)
    async with fal.http.get(taken["status_url"]) as response:
        assert response.status == status
    assert (await fal.get(taken["status_url"]))[0] == 200


async def test_a_status_connection_is_reset(fal: Fal) -> None:
    taken = await fal.generated()
    await fal.arm("status_reset")
    with pytest.raises(ConnectionResetError):
        await _exchange(fal, f"GET {taken['status_url'].removeprefix(fal.origin)}")
    assert (await fal.get(taken["status_url"]))[0] == 200


@pytest.mark.parametrize(
    ("name", "args", "status"),
    [
        ("result_5xx", {}, 502),
        ("result_expired", {}, 404),
        ("result_pending", {}, 400),
        ("result_pending", {"status": 202}, 202),
    ],
)
async def test_a_result_cannot_be_read_twice_and_then_can(
    fal: Fal, name: str, args: dict[str, Any], status: int
) -> None:
    taken = await fal.generated()
    await fal.arm(name, times=2, args=args)
    for expected in (status, status, 200):
        async with fal.http.get(taken["response_url"]) as response:
            assert response.status == expected


async def test_a_run_fails_unbilled(fal: Fal) -> None:
    await fal.arm("result_failed")
    _, taken = await fal.submit()
    end = await fal.finished(taken)
    assert end["error_type"] == "runner_disconnected"
    async with fal.http.get(taken["response_url"]) as response:
        assert (response.status, response.headers["X-Fal-Error-Type"]) == (503, "runner_disconnected")
        assert (await response.json())["error_type"] == "runner_disconnected"
    entry = (await fal.ledger())["requests"][0]
    assert (entry["outcome"], entry["billed"], entry["billable_units"]) == ("failed", False, "0")


@pytest.mark.parametrize(("billed", "units"), [(False, None), (True, "0.003072")])
async def test_a_run_is_refused_and_may_be_billed(fal: Fal, *, billed: bool, units: str | None) -> None:
    await fal.arm("result_422", args={"billed": billed})
    taken = await fal.generated()
    async with fal.http.get(taken["response_url"]) as response:
        assert (response.status, response.headers.get("X-Fal-Billable-Units")) == (422, units)
        assert (await response.json())["detail"][0]["type"] == "content_policy_violation"
    assert (await fal.ledger())["requests"][0]["billed"] is billed


async def test_an_unsafe_picture_is_black(fal: Fal) -> None:
    await fal.arm("unsafe")
    taken = await fal.generated()
    _, body = await fal.get(taken["response_url"])
    assert body["has_nsfw_concepts"] == [True]
    async with fal.http.get(body["images"][0]["url"]) as response:
        with Image.open(io.BytesIO(await response.read())) as picture:
            assert picture.getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize(("name", "status"), [("media_404", 404), ("media_5xx", 503)])
async def test_a_picture_is_not_there(fal: Fal, name: str, status: int) -> None:
    taken = await fal.generated()
    _, body = await fal.get(taken["response_url"])
    await fal.arm(name)
    async with fal.http.get(body["images"][0]["url"]) as response:
        assert response.status == status


async def test_a_picture_is_damaged_on_its_way(fal: Fal) -> None:
    taken = await fal.generated()
    _, body = await fal.get(taken["response_url"])
    url, size = body["images"][0]["url"], body["images"][0]["file_size"]
    await fal.arm("media_truncated")
    async with fal.http.get(url) as response:
        assert response.content_length == size
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    await fal.arm("media_truncated", args={"variant": "silent"})
    async with fal.http.get(url) as response:
        assert len(await response.read()) == size // 2
    await fal.arm("media_not_image")
    async with fal.http.get(url) as response:
        assert response.content_type == "image/png"
        assert b"html" in await response.read()
    await fal.arm("media_slow", args={"seconds": 0.05})
    began = time.monotonic()
    async with fal.http.get(url) as response:
        assert len(await response.read()) == size
    assert time.monotonic() - began >= 0.05


async def test_a_rate_strikes_the_same_requests_for_the_same_seed() -> None:
    def pattern(seed: int) -> list[bool]:
        faults = Faults(seed, {"status_5xx": FaultRule(0.3), "unsafe": FaultRule(0.5)})
        return [faults.take("status_5xx") is not None for _ in range(200)]

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)
    assert 30 < sum(pattern(1)) < 90


async def test_unknown_faults_and_arguments_are_refused(fal: Fal) -> None:
    wishes: list[Any] = [{"name": "none"}, {"name": "unsafe", "args": {"x": 1}}, {"name": "unsafe", "rate": 2}, {}, []]
    for wish in wishes:
        async with fal.http.post(f"{fal.origin}/_sim/faults", json=wish) as response:
            assert response.status == 400
    await fal.arm("submit_401", rate=1.0)
    assert (await fal.submit())[0] == 401
    async with fal.http.delete(f"{fal.origin}/_sim/faults") as response:
        assert response.status == 200
    assert (await fal.submit())[0] == 200


# --- callbacks -------------------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """Takes callbacks, answers them with the statuses it was told (then 200)."""

    origin: str = ""
    statuses: list[int] = field(default_factory=list)
    got: asyncio.Queue[tuple[dict[str, str], bytes]] = field(default_factory=asyncio.Queue)

    @property
    def query(self) -> str:
        return f"?fal_webhook={self.origin}/callback/token"

    async def take(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(5):
            return await self.got.get()

    async def _receive(self, request: web.Request) -> web.Response:
        assert request.path == "/callback/token"
        self.got.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receiver._receive)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()


async def _verify(fal: Fal, headers: dict[str, str], body: bytes) -> None:
    """As fal's documentation has it; raises InvalidSignature."""
    _, jwks = await fal.get("/.well-known/jwks.json")
    x = jwks["keys"][0]["x"]
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    parts = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*parts, hashlib.sha256(body).hexdigest()]).encode()
    key.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)


def _age(headers: dict[str, str]) -> float:
    return time.time() - int(headers["X-Fal-Webhook-Timestamp"])


async def test_a_callback_is_signed_and_brings_the_result(fal: Fal, receiver: Receiver) -> None:
    taken = await fal.generated(query=receiver.query)
    headers, raw = await receiver.take()
    await _verify(fal, headers, raw)
    body = json.loads(raw)
    assert body["request_id"] == headers["X-Fal-Webhook-Request-Id"] == taken["request_id"]
    assert (body["status"], body["payload"]) == ("OK", (await fal.get(taken["response_url"]))[1])
    assert body["gateway_request_id"]
    assert -2 < _age(headers) < 30


async def test_a_failure_is_told_as_an_error(fal: Fal, receiver: Receiver) -> None:
    await fal.arm("result_failed")
    await fal.submit(query=receiver.query)
    body = json.loads((await receiver.take())[1])
    assert (body["status"], bool(body["error"]), "detail" in body["payload"]) == ("ERROR", True, True)


async def test_a_callback_is_repeated_until_it_is_answered_2xx(fal: Fal, receiver: Receiver) -> None:
    receiver.statuses = [503, 302]
    await fal.generated(query=receiver.query)
    for _ in range(3):
        await _verify(fal, *await receiver.take())
    assert (await fal.ledger())["counters"]["callback_posts"] == 3


async def test_callbacks_go_wrong(fal: Fal, receiver: Receiver) -> None:
    await fal.arm("callback_twice")
    await fal.generated(query=receiver.query)
    assert json.loads((await receiver.take())[1])["payload"] == json.loads((await receiver.take())[1])["payload"]

    await fal.arm("callback_stale")
    await fal.generated(query=receiver.query)
    headers, body = await receiver.take()
    await _verify(fal, headers, body)
    assert _age(headers) > 300

    await fal.arm("callback_forged")
    await fal.generated(query=receiver.query)
    headers, body = await receiver.take()
    with pytest.raises(InvalidSignature):
        await _verify(fal, headers, body)

    await fal.arm("callback_no_payload")
    await fal.generated(query=receiver.query)
    told = json.loads((await receiver.take())[1])
    assert (told["status"], told["payload"], bool(told["payload_error"])) == ("OK", None, True)

    await fal.arm("callback_never")
    await fal.generated(query=receiver.query)
    await fal.arm("callback_late", args={"seconds": 0.1})
    began = time.monotonic()
    late = await fal.generated(query=receiver.query)
    assert (
        json.loads((await receiver.take())[1])["request_id"] == late["request_id"]
    )  # and none came for the one before
    assert time.monotonic() - began >= 0.1


# --- listing, billing, ledger ----------------------------------------------------------------------------------------

_LISTING = f"/v1/models/requests/by-endpoint?endpoint_id={MODEL}"


async def test_the_listing_pages_from_the_latest_end_and_omits_what_runs(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, concurrency=1))
    taken = [await fal.generated({**SMALL, "seed": seed}) for seed in range(5)]
    seen, cursor = [], ""
    while True:
        status, page = await fal.get(f"{_LISTING}&limit=2&expand=payloads{cursor}")
        assert status == 200
        seen += page["items"]
        if not page["has_more"]:
            break
        if not cursor:  # a request that ends between two pages shifts nothing
            await fal.generated({**SMALL, "seed": 99})
        cursor = f"&cursor={page['next_cursor']}"
    assert [item["request_id"] for item in seen] == [one["request_id"] for one in reversed(taken)]
    assert [item["json_input"]["seed"] for item in seen] == [4, 3, 2, 1, 0]
    assert {item["status_code"] for item in seen} == {200}
    assert all(item["sent_at"] <= item["started_at"] <= item["ended_at"] for item in seen)
    assert seen[0]["json_output"] == (await fal.get(taken[4]["response_url"]))[1]


async def test_stopping_leaves_no_task_behind_whatever_is_going_on() -> None:
    before = asyncio.all_tasks()
    simulator = Simulator(Config(latency=60.0, concurrency=1))
    async with aiohttp.ClientSession(headers={"Authorization": "Key test"}) as http:
        fal = Fal(await simulator.start(), http)
        await fal.arm("submit_slow", args={"seconds": 60})
        hanging = asyncio.ensure_future(fal.submit())
        while not (await fal.ledger())["requests"]:
            continue
        taken = [(await fal.submit(**{"X-Fal-Request-Timeout": "90"}))[1] for _ in range(3)]
        streaming = asyncio.ensure_future(fal.finished(taken[-1]))
        while not (await fal.ledger())["counters"]["status_streams"]:
            continue
        await simulator.stop()
        ends = await asyncio.gather(hanging, streaming, return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ends)
    assert asyncio.all_tasks() == before


async def test_a_running_request_is_not_listed(start: StartSimulator) -> None:
    fal = await start(SLOW)
    await fal.submit()
    assert (await fal.get(_LISTING))[1]["items"] == []


async def test_the_listing_keeps_to_its_window(fal: Fal) -> None:
    await fal.generated()
    _, page = await fal.get(f"{_LISTING}&start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z")
    assert page == {"items": [], "has_more": False, "next_cursor": None}
    _, page = await fal.get(f"{_LISTING}&start=2020-01-01T00:00:00Z")
    assert len(page["items"]) == 1
    assert "json_input" not in page["items"][0]
    for bad in ("&limit=101", "&limit=x", "&cursor=9", "&start=yesterday"):
        assert (await fal.get(_LISTING + bad))[0] == 422


@pytest.mark.parametrize(("name", "status"), [("listing_403", 403), ("listing_5xx", 503)])
async def test_the_listing_cannot_be_read(fal: Fal, name: str, status: int) -> None:
    await fal.arm(name)
    async with fal.http.get(fal.origin + _LISTING) as response:
        assert response.status == status


async def test_cancel_is_told_that_nobody_knows_the_request(start: StartSimulator) -> None:
    fal = await start(SLOW)
    _, taken = await fal.submit()
    await fal.arm("cancel_404")
    async with fal.http.put(taken["cancel_url"]) as response:
        assert response.status == 404
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 0, "running": 1}


async def test_billing_events_name_units_and_price(fal: Fal) -> None:
    taken = await fal.generated()
    _, body = await fal.get(f"/v1/models/billing-events?request_id={taken['request_id']}")
    assert [(item["output_units"], item["unit_price"]) for item in body["items"]] == [(0.003072, 0.008)]


async def test_the_ledger_is_kept_in_a_file_and_forgotten_on_reset(start: StartSimulator, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fal = await start(Config(latency=0, ledger_path=path, faults={"submit_408": FaultRule(0.0)}))
    taken = await fal.generated()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["request_id"] for line in lines} == {taken["request_id"]}
    assert (lines[0]["outcome"], lines[-1]["outcome"]) == ("queued", "completed")
    assert lines[-1] == (await fal.ledger())["requests"][0]
    _, summary = await fal.get("/_sim/ledger?summary=1")
    assert summary["totals"] == {"billed": 1, "billable_units": "0.003072", "outcomes": {"completed": 1}}
    assert "requests" not in summary
    await fal.arm("submit_401", times=5)
    async with fal.http.post(f"{fal.origin}/_sim/reset") as response:
        assert response.status == 200
    ledger = await fal.ledger()
    assert (ledger["requests"], ledger["counters"]["posts"]) == ([], 0)
    assert (await fal.submit())[0] == 200


# --- the process -----------------------------------------------------------------------------------------------------


async def test_the_process_says_where_it_listens_and_ends_on_sigterm() -> None:
    command = (
        "-m",
        "simulator.main",
        "--port",
        "0",
        "--latency",
        "60",
        "--fault",
        "submit_5xx=1,status=503,enqueued=true",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("simulator listening on http://127.0.0.1:")
    origin = line.split()[-1]
    async with aiohttp.ClientSession(headers={"Authorization": "Key k"}) as http:
        async with http.post(f"{origin}/{MODEL}", json=SMALL) as response:
            assert response.status == 503
        async with http.get(f"{origin}/_sim/inflight") as response:
            assert await response.json() == {"queued": 0, "running": 1}
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == 0
    assert await process.stdout.read() == b""


@pytest.mark.parametrize("wrong", ["none=0.1", "submit_5xx", "submit_5xx=2", "submit_5xx=0.1,colour=red"])
async def test_a_wrong_fault_on_the_command_line_is_one_readable_line(wrong: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator.main", "--fault", wrong, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode().count("\n") == 1
    assert stderr.startswith(b"darkroom-simulator: ")


def test_every_fault_is_named_in_this_file() -> None:
    text = Path(__file__).read_text()
    assert [name for name in CATALOGUE if f'"{name}"' not in text] == []
