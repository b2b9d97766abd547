"""Thumbnails of real pictures: small, right side up, whatever form the picture has."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from darkroom.adapters.thumbnails import SIDE, PillowThumbnails
from darkroom.ports import Picture

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@pytest.fixture
def thumbnails() -> Iterator[PillowThumbnails]:
    made = PillowThumbnails(threads=1)
    yield made
    made.close()


def halves(mode: str, width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image.convert(mode)


def picture(image: Image.Image, form: str = "PNG") -> Picture:
    file = io.BytesIO()
    image.save(file, form)
    size = file.tell()  # read it to its end once, as the upload does
    return Picture(file, size, "", TYPES[form], image.width, image.height, blank=False)


@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize(
    ("size", "small"), [((1024, 576), (256, 144)), ((600, 1344), (114, 256)), ((64, 32), (64, 32))]
)
async def test_it_fits_and_shows_the_same(
    thumbnails: PillowThumbnails, form: str, size: tuple[int, int], small: tuple[int, int]
) -> None:
    made = await thumbnails.make(picture(halves("RGB", *size), form))
    assert made is not None
    seen = Image.open(io.BytesIO(made))
    assert (seen.format, seen.size) == ("JPEG", small)
    middle = seen.height // 2
    red, blue = (seen.convert("RGB").getpixel((x, middle)) for x in (seen.width // 8, seen.width * 7 // 8))
    assert isinstance(red, tuple)
    assert isinstance(blue, tuple)
    assert red[0] > 200 > red[2]
    assert blue[2] > 200 > blue[0]


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA", "1", "I;16"])
async def test_every_form_of_png_has_one(thumbnails: PillowThumbnails, mode: str) -> None:
    image = Image.new(mode, (400, 400)) if mode == "I;16" else halves("RGB", 400, 400).convert(mode)
    made = await thumbnails.make(picture(image))
    assert made is not None
    assert Image.open(io.BytesIO(made)).size == (SIDE, SIDE)


async def test_what_is_transparent_is_white(thumbnails: PillowThumbnails) -> None:
    made = await thumbnails.make(picture(Image.new("RGBA", (400, 400), (0, 0, 0, 0))))
    assert made is not None
    assert Image.open(io.BytesIO(made)).getpixel((9, 9)) == (255, 255, 255)


async def test_a_picture_that_cannot_be_decoded_has_none(thumbnails: PillowThumbnails) -> None:
    whole = picture(halves("RGB", 400, 400))
    data = whole.file.getvalue()[:200]  # type: ignore[attr-defined] # a BytesIO
    broken = Picture(io.BytesIO(data), len(data), "", "image/png", 400, 400, blank=False)
    assert await thumbnails.make(broken) is None


async def test_a_picture_that_is_too_large_to_be_decoded_is_not_even_opened(thumbnails: PillowThumbnails) -> None:
    file = io.BytesIO(b"not read")
    assert await thumbnails.make(Picture(file, 8, "", "image/png", 14142, 14142, blank=False)) is None
    assert file.tell() == 0
