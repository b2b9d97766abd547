"""Thumbnails with Pillow, in threads of their own: neither the event loop nor the checks of pictures wait for them."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from darkroom.adapters.media import DECODE_PIXELS, UNREADABLE
from darkroom.ports import Picture

logger = logging.getLogger(__name__)

SIDE: Final = 256
"""Pixels. A quarter of the usual 1024: shrinking by a whole number is the cheapest way, and as good as any here."""

_QUALITY: Final = 80
_PLUGINS: Final[Mapping[str, Callable[[BinaryIO], Image.Image]]] = {
    "image/png": PngImagePlugin.PngImageFile,
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
}


class PillowThumbnails:
    """Implements `ports.Thumbnails`."""

    def __init__(self, *, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="thumbnail")

    async def make(self, picture: Picture) -> bytes | None:
        """See `ports.Thumbnails`. The picture's file is read and left wherever it is then."""
        if picture.content_type != "image/jpeg" and picture.width * picture.height > DECODE_PIXELS:
            return None  # a JPEG is decoded at an eighth of its size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _shrink, picture)
        except UNREADABLE as fault:
            logger.warning("a picture has no thumbnail: %s", fault)
            return None

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _shrink(picture: Picture) -> bytes:
    picture.file.seek(0)
    image = _PLUGINS[picture.content_type](picture.file)
    image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at the size that is wanted; others ignore it
    image = _opaque(image)
    # A gap of 1: averaged down by a whole number first, and resampled only from there (3 ms of CPU instead of 12).
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """JPEG has no transparency: what is transparent becomes white."""
    if image.mode in {"RGB", "L"}:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(ground, layer).convert("RGB")
