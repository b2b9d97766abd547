"""The simulator keeps fal's protocol: what `fal-protocol.md` says of the queue, the model and its refusals."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from simulator.config import Config
from simulator.generation import GenerationRequest
from tests.contract.simulator.kit import MODEL, SLOW, SMALL, Fal, StartSimulator


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
    fal = await start(SLOW)
    answers = await asyncio.gather(*(fal.submit({**SMALL, "seed": seed}) for seed in range(9)))
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 7, "running": 2}
    for _, taken in answers[:5]:
        async with fal.http.put(taken["cancel_url"]) as response:
            assert response.status == 202
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 2, "running": 2}
    counters = (await fal.ledger())["counters"]
    assert (counters["max_running"], counters["max_in_system"]) == (2, 9)


async def test_all_that_wait_run_and_are_billed_in_the_end(start: StartSimulator) -> None:
    fal = await start(Config(latency=0.02, concurrency=2))
    answers = await asyncio.gather(*(fal.submit({**SMALL, "seed": seed}) for seed in range(9)))
    await asyncio.gather(*(fal.finished(taken) for _, taken in answers))
    assert (await fal.ledger())["totals"]["billed"] == 9
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 0, "running": 0}


async def test_a_change_before_the_await_is_not_missed() -> None:
    request = GenerationRequest("id", MODEL, {}, None, "http://x")
    change = request.changed()
    request.move("running")
    async with asyncio.timeout(1):
        await change


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
