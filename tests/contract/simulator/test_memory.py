"""The simulator remembers: stopped or killed and started again on its ledger, it knows what it knew, and goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from simulator.config import Config
from simulator.ledger import Ledger
from simulator.memory import UnreadableLedgerError
from tests.contract.simulator.kit import MODEL, QUICK, SMALL, Fal, Receiver, process, running

LISTING = f"/v1/models/requests/by-endpoint?endpoint_id={MODEL}&expand=payloads"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "ledger.jsonl"


@pytest.fixture
def busy(path: Path) -> Config:
    """One request runs and never ends; the others wait."""
    return Config(latency=1000.0, latency_sigma=0, concurrency=1, ledger_path=path)


@pytest.fixture
def quick(path: Path) -> Config:
    return replace(QUICK, ledger_path=path)


def at(origin: str) -> int:
    return int(origin.rpartition(":")[2])


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def age(path: Path, moment: str, hours: float) -> None:
    """Put a moment of every request so much further into the past."""
    lines = written(path)
    for line in lines:
        if line[moment]:
            line[moment] = (datetime.fromisoformat(line[moment]) - timedelta(hours=hours)).isoformat()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def tear(path: Path, torn: Callable[[bytes], bytes]) -> None:
    path.write_bytes(torn(path.read_bytes()))


def state(path: Path) -> tuple[str, int]:
    """What the file holds, and which one it is."""
    return path.read_text(), path.stat().st_ino


async def everything(fal: Fal, taken: list[dict[str, Any]]) -> list[Any]:
    """All that fal says of these requests, but for the ports in it."""
    found: list[Any] = [(await fal.ledger())["requests"], (await fal.ledger())["totals"], await fal.get(LISTING)]
    for one in taken:
        base = f"/fal-ai/krea-2/requests/{one['request_id']}"
        async with fal.http.get(f"{fal.origin}{base}") as response:
            said = {name: value for name, value in response.headers.items() if name.startswith("X-Fal-")}
            body = await response.json()
        found += [(response.status, said, body), await fal.get(f"/v1/models/billing-events?request_id={base[-36:]}")]
        _, status = await fal.get(f"{base}/status?logs=1")
        found.append({name: value for name, value in status.items() if not name.endswith("_url")})
        for image in body.get("images", []):
            if image["url"].startswith("http"):
                async with fal.http.get(f"{fal.origin}/files/{one['request_id']}/{image['file_name']}") as response:
                    found.append(await response.read())
    return found


# --- what had ended --------------------------------------------------------------------------------------------------


async def test_what_had_ended_is_as_before(quick: Config) -> None:
    unseeded = {"prompt": "a fox", "num_images": 2, "image_size": {"width": 40, "height": 30}, "output_format": "jpeg"}
    async with running(replace(quick, validate_at="run")) as fal:
        taken = [await fal.generated(), await fal.generated(unseeded), await fal.generated({"prompt": 3})]
        for fault in ("unsafe", "result_failed", "result_422"):
            await fal.arm(fault, args={"billed": True} if fault == "result_422" else None)
            taken.append(await fal.generated())
        taken.append(await fal.generated({**SMALL, "sync_mode": True}))
        before = await everything(fal, taken)
    for _ in range(2):  # what was read back is also written as it was
        async with running(quick) as fal:
            assert await everything(fal, taken) == before


async def test_counters_are_of_the_run(quick: Config) -> None:
    async with running(quick) as fal:
        await fal.generated()
    async with running(quick) as fal:
        ledger = await fal.ledger()
    assert set(ledger["counters"].values()) == {0}
    assert ledger["totals"]["billed"] == 1


async def test_a_result_is_kept_for_its_time_from_the_end_on(quick: Config, path: Path) -> None:
    async with running(quick) as fal:
        taken = await fal.generated()
    age(path, "ended_at", 0.9)
    base = f"/fal-ai/krea-2/requests/{taken['request_id']}"
    async with running(quick) as fal:
        assert (await fal.get(base))[0] == 200
    age(path, "ended_at", 0.2)
    async with running(quick) as fal:
        assert (await fal.get(base))[0] == 404
        assert (await fal.get(f"{base}/status"))[1]["status"] == "COMPLETED"
        assert len((await fal.get(LISTING))[1]["items"]) == 1


# --- what waited or ran ----------------------------------------------------------------------------------------------


async def test_killed_in_the_middle_it_goes_on_and_bills_each_request_once(path: Path, receiver: Receiver) -> None:
    arguments = ("--ledger", str(path), "--concurrency", "1", "--latency")
    async with process("--port", "0", *arguments, "1000") as (fal, child):
        taken = [(await fal.submit(query=receiver.query))[1] for _ in range(2)]
        assert (await fal.get("/_sim/inflight"))[1] == {"queued": 1, "running": 1}
        port = at(fal.origin)
        child.kill()
        await child.wait()
    async with process("--port", str(port), *arguments, "0") as (fal, _):
        for one in taken:
            await fal.finished(one)
            status, body = await fal.get(one["response_url"])
            assert (status, body["images"][0]["url"].startswith(f"{fal.origin}/files/")) == (200, True)
        listed = [item["request_id"] for item in (await fal.get(LISTING))[1]["items"]]
        ledger = await fal.ledger()
        told = {json.loads((await receiver.take())[1])["request_id"] for _ in taken}
    ids = [one["request_id"] for one in taken]
    assert listed == ids[::-1]  # what ran when it died ran first
    assert [request["request_id"] for request in ledger["requests"]] == ids
    assert (ledger["totals"]["billed"], ledger["totals"]["outcomes"]) == (2, {"completed": 2})
    assert told == set(ids)


async def test_whenever_it_is_killed_what_it_answered_for_is_there(path: Path) -> None:
    arguments = ("--ledger", str(path), "--latency", "0.02", "--latency-sigma", "1", "--port")
    answered: set[str] = set()

    async def keep_submitting(fal: Fal) -> None:
        while True:
            answered.add((await fal.submit())[1]["request_id"])

    port = 0
    for number in range(1, 4):
        async with process(*arguments, str(port)) as (fal, child):
            port = at(fal.origin)
            callers = [asyncio.ensure_future(keep_submitting(fal)) for _ in range(3)]
            while len(answered) < 10 * number:
                await asyncio.wait(callers, timeout=0.001)
            child.kill()
            await child.wait()
            await asyncio.gather(*callers, return_exceptions=True)
    async with process(*arguments, str(port)) as (fal, _):
        known = {request["request_id"]: request for request in (await fal.ledger())["requests"]}
        assert answered <= known.keys()
        for request_id in known:
            await fal.finished({"status_url": f"{fal.origin}/fal-ai/krea-2/requests/{request_id}/status"})
        ledger = await fal.ledger()
    assert ledger["totals"]["outcomes"] == {"completed": len(known)}
    assert ledger["totals"]["billed"] == len(known)
    # One whose answer its caller did not get is there too, and says so.
    assert {request["reply"] for request in ledger["requests"]} <= {"sent", "lost"}


async def test_the_time_to_start_runs_on_while_it_is_down(busy: Config, path: Path, receiver: Receiver) -> None:
    async with running(busy) as fal:
        _, first = await fal.submit()
        ran, late, low, patient = [
            (await fal.submit(query=receiver.query, **headers))[1]["request_id"]
            for headers in (
                {"X-Fal-Request-Timeout": "60"},
                {"X-Fal-Request-Timeout": "60"},
                {"X-Fal-Queue-Priority": "low"},
                {"X-Fal-Request-Timeout": "7200"},
            )
        ]
        async with fal.http.put(first["cancel_url"]) as response:
            assert response.status == 202
    age(path, "received_at", 1)
    async with running(replace(busy, concurrency=2)) as fal:
        outcomes = {request["request_id"]: request["outcome"] for request in (await fal.ledger())["requests"][1:]}
        assert outcomes == {ran: "running", late: "timeout", low: "queued", patient: "running"}
        told = json.loads((await receiver.take())[1])
        assert (told["request_id"], told["status"]) == (late, "ERROR")


async def test_what_ran_at_low_priority_keeps_its_place_before_the_others(busy: Config) -> None:
    async with running(busy) as fal:
        await fal.submit(**{"X-Fal-Queue-Priority": "low"})
        await fal.submit(**{"X-Fal-Queue-Priority": "low"})
        await fal.submit()
    async with running(busy) as fal:
        assert [request["outcome"] for request in (await fal.ledger())["requests"]] == ["running", "queued", "queued"]
        positions = [
            (await fal.get(f"/fal-ai/krea-2/requests/{request['request_id']}/status"))[1]["queue_position"]
            for request in (await fal.ledger())["requests"][1:]
        ]
    assert positions == [1, 0]


async def test_one_that_died_before_it_could_answer_says_so(busy: Config, path: Path) -> None:
    async with running(busy) as fal:
        await fal.submit()
    tear(path, lambda whole: whole[: whole.index(b"\n") + 1])
    async with running(busy) as fal:
        (request,) = (await fal.ledger())["requests"]
    assert (request["outcome"], request["reply"]) == ("running", "lost")


async def test_the_rest_of_the_time_to_start_is_kept(busy: Config) -> None:
    async with running(busy) as fal:
        await fal.submit()
        _, waiting = await fal.submit(**{"X-Fal-Request-Timeout": "0.5"})
    async with running(replace(busy, port=at(fal.origin))) as fal:
        assert (await fal.finished(waiting))["error_type"] == "request_timeout"
        ran, late = (await fal.ledger())["requests"]
    assert (ran["outcome"], late["outcome"]) == ("running", "timeout")


# --- callbacks -------------------------------------------------------------------------------------------------------


async def test_a_callback_that_nobody_answered_is_sent_again(quick: Config, receiver: Receiver) -> None:
    receiver.statuses = [503]
    async with running(replace(quick, callback_retries=(1000.0,))) as fal:
        taken = await fal.generated(query=receiver.query)
        await receiver.take()
    async with running(quick) as fal:
        assert json.loads((await receiver.take())[1])["request_id"] == taken["request_id"]


async def test_a_callback_that_was_answered_given_up_or_never_sent_is_not_sent_again(
    quick: Config, path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [200, 503, 503, 503]
    async with running(quick) as fal:
        for posts in (1, 3):
            await fal.generated(query=receiver.query)
            for _ in range(posts):
                await receiver.take()
        await fal.arm("callback_never")
        await fal.generated(query=receiver.query)
        async with asyncio.timeout(5):
            while len({line["request_id"] for line in written(path) if line["told"]}) < 3:
                await fal.get("/_sim/health")
    async with running(quick) as fal:
        await fal.generated(query=receiver.query)
        await receiver.take()
        assert (await fal.ledger())["counters"]["callback_posts"] == 1


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn", [lambda whole: whole + whole[:100], lambda whole: whole + b"\0" * 50, lambda whole: whole[:-1]]
)
async def test_a_torn_last_line_is_as_if_it_had_not_been_written(
    busy: Config, quick: Config, path: Path, torn: Callable[[bytes], bytes]
) -> None:
    async with running(busy) as fal:
        _, taken = await fal.submit()
    tear(path, torn)
    async with running(replace(quick, port=at(fal.origin))) as fal:
        await fal.finished(taken)
        assert (await fal.ledger())["totals"]["billed"] == 1


async def test_the_file_has_one_line_a_request_after_each_start(quick: Config, path: Path) -> None:
    async with running(quick) as fal:
        taken = [await fal.generated() for _ in range(3)]
    assert len(written(path)) > 3
    async with running(quick) as fal:
        lines = written(path)
        await fal.generated()
    assert [line["request_id"] for line in lines] == [one["request_id"] for one in taken]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_what_a_reset_forgot_stays_forgotten(busy: Config, path: Path) -> None:
    async with running(busy) as fal:
        await fal.submit()
        await fal.arm("submit_slow", args={"seconds": 0.1})
        slow = asyncio.ensure_future(fal.submit())
        while len((await fal.ledger())["requests"]) < 2:
            continue
        async with fal.http.post(f"{fal.origin}/_sim/reset") as response:
            assert response.status == 200
        await slow  # its answer comes after the reset
    assert written(path) == []


@pytest.mark.parametrize("content", ["# My notes\n", "[]\n", '{"request_id": "x"}\n'])
def test_a_file_that_is_no_ledger_is_left_alone(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UnreadableLedgerError, match="line 1 was not written by this simulator"):
        Ledger(path)
    assert path.read_text() == content


async def test_a_file_that_is_no_ledger_is_one_readable_line_of_the_process(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("# My notes\n")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator.main", "--port", "0", "--ledger", str(notes)), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await child.communicate()
    assert (child.returncode, stderr.decode().count("\n")) == (1, 1)
    assert stderr.decode().startswith(f"darkroom-simulator: {notes}, line 1 ")


async def test_a_second_simulator_at_the_same_address_leaves_the_ledger_alone(busy: Config, path: Path) -> None:
    async with running(busy) as fal:
        await fal.submit()
        before = state(path)
        with pytest.raises(OSError, match="in use"):
            async with running(replace(busy, port=at(fal.origin))):
                pass
        assert state(path) == before
