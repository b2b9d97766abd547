"""The model's input schema, and how fal words a refusal (fal-protocol §4: `{"detail": [{loc, msg, type, input}]}`)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, ValidationError

Detail = dict[str, Any]
Preset = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]

PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
MAX_SIDE = 14142
# The simulator's own limit, so that one request cannot take gigabytes of this machine; fal's is unknown.
MAX_PIXELS = 64_000_000
_FLAGGED = "content-policy-violation"


class ImageSize(BaseModel):
    """A size in pixels."""

    width: int = Field(default=512, ge=1, le=MAX_SIDE)
    height: int = Field(default=512, ge=1, le=MAX_SIDE)


def _kind_of_size(value: object) -> str:
    return "enum" if isinstance(value, str) else "ImageSize"


class Input(BaseModel):
    """The arguments of one generation, defaults filled in. Unknown fields are ignored, as fal's FastAPI runners do."""

    prompt: str
    seed: int | None = None
    image_size: Annotated[
        Annotated[Preset, Tag("enum")] | Annotated[ImageSize, Tag("ImageSize")],
        Discriminator(_kind_of_size),
        BeforeValidator(lambda value: "square_hd" if value is None else value),
    ] = "square_hd"
    num_images: int = Field(default=1, ge=1, le=4)
    acceleration: Literal["none", "regular"] = "none"
    sync_mode: bool = False
    enable_safety_checker: bool = True
    output_format: Literal["jpeg", "png"] = "png"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if isinstance(self.image_size, ImageSize):
            return (self.image_size.width, self.image_size.height)
        return PRESETS[self.image_size]


def policy_violation(arguments: object) -> Detail:
    """What fal says about a prompt that the content checker refuses."""
    message = "The content could not be processed because it contained material flagged by a content checker."
    return {"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation", "input": arguments}


def parse(arguments: object) -> Input | list[Detail]:
    """The input, or what is wrong with it in fal's shape."""
    try:
        parsed = Input.model_validate(arguments)
    except ValidationError as error:
        details: list[Detail] = json.loads(error.json(include_url=False))
        return [{**detail, "loc": ["body", *detail["loc"]]} for detail in details]
    if _FLAGGED in parsed.prompt:
        return [policy_violation(arguments)]
    width, height = parsed.size
    if width * height > MAX_PIXELS:
        message = f"Image is too large: at most {MAX_PIXELS} pixels"
        return [{"loc": ["body", "image_size"], "msg": message, "type": "image_too_large", "input": [width, height]}]
    return parsed
