"""The simulator's pictures are real, and the same arguments give the same bytes."""

from __future__ import annotations

import base64
import io

from PIL import Image

from simulator.config import Config
from tests.contract.simulator.kit import QUICK, SMALL, Fal, StartSimulator


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
