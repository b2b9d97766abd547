"""Encoded pictures: rendered in threads, never on the event loop, and kept while they are likely to be asked for."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from simulator.poster import draw_poster

_POOL = (
    "a vintage travel poster for Mars",
    "a lighthouse by the sea",
    "the city at night",
    "a cabin in the snowy forest",
    "cactus under the desert sun",
    "islands at noon",
)
_POOL_INKS = 48  # colours: keeps a pooled PNG of 1024 x 1024 near 50 kB
_CACHE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """Which picture: equal orders give equal bytes. `black` is what an unsafe picture is replaced with."""

    prompt: str
    seed: int
    width: int
    height: int
    output_format: Literal["jpeg", "png"]
    black: bool = False


def render(order: Order, *, small: bool = False) -> bytes:
    """Draw and encode one picture; `small` trades time and colours for bytes."""
    if order.black:
        image = Image.new("RGB", (order.width, order.height))
    else:
        image = draw_poster(order.prompt, order.seed, order.width, order.height)
    out = io.BytesIO()
    if order.output_format == "jpeg":
        image.save(out, "JPEG", quality=70 if small else 88)
    elif small:
        image.quantize(_POOL_INKS, dither=Image.Dither.NONE).save(out, "PNG", compress_level=1)
    else:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


class Studio:
    """Gives the bytes of any order. In pool mode a few ready pictures per size and format stand for all prompts."""

    def __init__(self, *, pool: bool) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="studio")
        self._kept: OrderedDict[Order, bytes] = OrderedDict()
        self._kept_bytes = 0

    async def picture(self, order: Order) -> bytes:
        """The encoded picture, from what is kept or freshly rendered in a thread."""
        if self._pool and not order.black:
            place = zlib.crc32(f"{order.prompt}|{order.seed}".encode()) % len(_POOL)
            order = replace(order, prompt=_POOL[place], seed=place)
        if order in self._kept:
            self._kept.move_to_end(order)
            return self._kept[order]
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._threads, lambda: render(order, small=self._pool))
        self._keep(order, data)
        return data

    def close(self) -> None:
        """End the threads; renderings that have not begun are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _keep(self, order: Order, data: bytes) -> None:
        if order in self._kept:  # two renderings of one order met
            return
        self._kept[order] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > _CACHE_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped)
