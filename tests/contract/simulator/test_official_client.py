"""The simulator serves fal's own client, unmodified."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fal_client
import fal_client.client as fal_module
import pytest
from PIL import Image

from simulator.config import Config
from tests.contract.simulator.kit import MODEL, SMALL, Fal, StartSimulator


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
