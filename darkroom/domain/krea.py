"""The input of fal-ai/krea-2/turbo, exactly as its schema has it, and what a picture costs.

Source: fal's page of the model (input schema and pricing); sizes of the presets: fal's toolkit.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
)

MODEL: Final = "fal-ai/krea-2/turbo"

SIDE_MAX: Final = 14142
"""The longest side in pixels that fal's toolkit admits."""

SEED_MAX: Final = 2**63 - 1
"""The schema names no bound; beyond 64 bits no JSON reader on the way keeps the number."""


class ImageSizePreset(StrEnum):
    """Named picture sizes."""

    SQUARE_HD = "square_hd"
    SQUARE = "square"
    PORTRAIT_4_3 = "portrait_4_3"
    PORTRAIT_16_9 = "portrait_16_9"
    LANDSCAPE_4_3 = "landscape_4_3"
    LANDSCAPE_16_9 = "landscape_16_9"


PRESET_PIXELS: Final[dict[ImageSizePreset, tuple[int, int]]] = {
    ImageSizePreset.SQUARE_HD: (1024, 1024),
    ImageSizePreset.SQUARE: (512, 512),
    ImageSizePreset.PORTRAIT_4_3: (768, 1024),
    ImageSizePreset.PORTRAIT_16_9: (576, 1024),
    ImageSizePreset.LANDSCAPE_4_3: (1024, 768),
    ImageSizePreset.LANDSCAPE_16_9: (1024, 576),
}


class Acceleration(StrEnum):
    """The acceleration level."""

    NONE = "none"
    REGULAR = "regular"


class OutputFormat(StrEnum):
    """The format of the pictures."""

    JPEG = "jpeg"
    PNG = "png"


class ImageSize(BaseModel):
    """A size in pixels."""

    model_config = ConfigDict(extra="forbid")

    width: Annotated[StrictInt, Field(ge=1, le=SIDE_MAX)]
    height: Annotated[StrictInt, Field(ge=1, le=SIDE_MAX)]


def _plain_text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("must be valid Unicode text (it has a lone surrogate)") from exc
    return value


PlainText = Annotated[StrictStr, AfterValidator(_plain_text)]
"""Text that every part on the way can carry: no NUL, no lone surrogates."""


class KreaInput(BaseModel):
    """Input of Krea 2 Turbo. Unknown fields are refused; what was not given stays unset."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"prompt": "a vintage travel poster for Mars", "image_size": "square_hd"}]},
    )

    prompt: Annotated[PlainText, Field(description="Base text description of the image to generate.")]
    seed: Annotated[
        StrictInt | None,
        Field(ge=-SEED_MAX - 1, le=SEED_MAX, description="Random seed; image i uses seed + i. Drawn when not given."),
    ] = None
    image_size: ImageSize | ImageSizePreset = ImageSizePreset.SQUARE_HD
    num_images: Annotated[StrictInt, Field(ge=1, le=4)] = 1
    acceleration: Acceleration = Acceleration.NONE
    sync_mode: Annotated[StrictBool, Field(description="Only false: a data URI leaves nothing to recover.")] = False
    enable_safety_checker: StrictBool = True
    output_format: OutputFormat = OutputFormat.PNG

    @field_validator("sync_mode")
    @classmethod
    def _no_sync_mode(cls, value: bool) -> bool:  # noqa: FBT001 - pydantic calls it so
        if value:
            raise ValueError(
                "sync_mode is refused: fal then keeps no output, and a picture that was paid for could not be recovered"
            )
        return value

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of one picture."""
        if isinstance(self.image_size, ImageSize):
            return self.image_size.width, self.image_size.height
        return PRESET_PIXELS[self.image_size]

    @property
    def megapixels(self) -> Decimal:
        """What fal is expected to bill, in its unit: all pictures together, not rounded."""
        width, height = self.pixels
        return Decimal(width * height * self.num_images) / 1_000_000

    def arguments(self, *, seed: int | None = None) -> dict[str, Any]:
        """What is sent to fal and kept on the record: what the caller gave, with the seed always filled in.

        A seed drawn once and kept over all submissions of a job is what makes its request recognisable in fal's
        listing, and a second submission the same picture. `seed` is taken instead of a drawn one, where none was given.
        """
        given = self.model_dump(mode="json", exclude_unset=True)
        if given.get("seed") is None:
            given["seed"] = secrets.randbelow(2**31) if seed is None else seed
        return given


def same_input(listed: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether fal's listing shows the very input that we sent, defaults filled in on both sides.

    Fields that this schema does not have are fal's own (`enable_prompt_expansion`) and say nothing.
    """
    try:
        return _filled_in(listed) == _filled_in(ours)
    except ValidationError:
        return False


def _filled_in(given: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in given.items() if name in KreaInput.model_fields}
    return KreaInput.model_validate(known).model_dump(mode="json")


def usd(units: Decimal, price_per_megapixel: Decimal) -> Decimal:
    """The price in USD of that many billable units (megapixels), exact."""
    return units * price_per_megapixel
