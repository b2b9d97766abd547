"""The simulator as a process, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import sys

import aiohttp
import pytest

from simulator.config import Config
from simulator.server import Simulator
from tests.contract.simulator.kit import Fal, process


async def test_the_process_says_where_it_listens_and_ends_on_sigterm() -> None:
    fault = "submit_5xx=1,status=503,enqueued=true"
    async with process("--port", "0", "--latency", "60", "--fault", fault) as (fal, child):
        assert (await fal.submit())[0] == 503
        assert (await fal.get("/_sim/inflight"))[1] == {"queued": 0, "running": 1}
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await child.wait() == 0
        assert child.stdout is not None
        assert await child.stdout.read() == b""


@pytest.mark.parametrize("wrong", ["none=0.1", "submit_5xx", "submit_5xx=2", "submit_5xx=0.1,colour=red"])
async def test_a_wrong_fault_on_the_command_line_is_one_readable_line(wrong: str) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator.main", "--fault", wrong, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await child.communicate()
    assert child.returncode == 1
    assert stderr.decode().count("\n") == 1
    assert stderr.startswith(b"darkroom-simulator: ")


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
