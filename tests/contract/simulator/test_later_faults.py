"""What can go wrong after the submit: watching, running, results and media; and how faults are chosen."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from simulator.config import FaultRule
from simulator.faults import CATALOGUE, Faults
from tests.contract.simulator.kit import Fal, exchange


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
        await exchange(fal, f"GET {taken['status_url'].removeprefix(fal.origin)}")
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


def test_every_fault_is_named_in_these_tests() -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in CATALOGUE if f'"{name}"' not in text] == []
