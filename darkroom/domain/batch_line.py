"""One line of an upload, and judging all of them: what becomes a job, and what is wrong with the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from darkroom.domain.krea import KreaInput, PlainText
from darkroom.domain.pointers import findings

METADATA_ENTRIES: Final = 16
CUSTOM_ID_BYTES: Final = 64

_SHOWN: Final = 20
"""So many lines with mistakes are shown with the batch; all of them are in its error file."""

_MISTAKES_A_LINE: Final = 20


def _is_short(value: str) -> str:
    if len(value.encode()) > CUSTOM_ID_BYTES:
        raise ValueError(f"must have at most {CUSTOM_ID_BYTES} bytes of UTF-8")
    return value


MetadataKey = Annotated[PlainText, Field(max_length=64)]
MetadataValue = Annotated[PlainText, Field(max_length=512)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Field(max_length=METADATA_ENTRIES, description="Yours; comes back with the job."),
]
CustomId = Annotated[
    PlainText,
    Field(min_length=1, description="Yours; unique in its batch, at most 64 bytes. Names the job's pictures."),
    AfterValidator(_is_short),
]


class BatchLine(BaseModel):
    """What one line of an upload asks for. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    custom_id: CustomId | None = None
    input: KreaInput
    metadata: Metadata = {}


@dataclass(frozen=True, slots=True)
class GoodLine:
    """A line that can become a job. `line` counts from 1, in the upload as it was sent."""

    line: int
    asked: BatchLine


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line with mistakes, each a JSON pointer into it and what is wrong there."""

    line: int
    custom_id: str | None
    mistakes: tuple[tuple[str, str], ...]

    def document(self) -> dict[str, Any]:
        """As it stands in the error file."""
        return {
            "line": self.line,
            "custom_id": self.custom_id,
            "job_id": None,
            "error": {
                "code": "invalid_line",
                "message": "; ".join(f"{p or 'the line'}: {d}" for p, d in self.mistakes[:3]),
            },
            "errors": [{"line": self.line, "pointer": p, "detail": d} for p, d in self.mistakes],
        }


@dataclass(slots=True)
class Judge:
    """Judges the lines of one upload, in order. Sums what the good ones ask for; keeps the names seen, no lines.

    `repeated` counts those whose input an earlier line had; it takes memory for every line, so `count_repeated` asks.
    """

    valid: int = 0
    invalid: int = 0
    megapixels: Decimal = Decimal()
    pictures: int = 0
    last_line: int = 0
    repeated: int = 0
    count_repeated: bool = False
    shown: list[BadLine] = field(default_factory=list)
    _inputs: set[int] = field(default_factory=set)
    _names: dict[str, int] = field(default_factory=dict)

    def judge(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[GoodLine | BadLine]:
        """Lines with their numbers; empty ones are passed over."""
        for number, text in lines:
            if not text or text.isspace():
                continue
            found = self._judge(number, text)
            self.last_line = number
            if isinstance(found, GoodLine):
                self.valid += 1
                self.megapixels += found.asked.input.megapixels
                self.pictures += found.asked.input.num_images
                if self.count_repeated:
                    self._look_for_repeat(found.asked.input)
            else:
                self.invalid += 1
                if len(self.shown) < _SHOWN:
                    self.shown.append(found)
            yield found

    def _look_for_repeat(self, asked: KreaInput) -> None:
        name = hash(asked.model_dump_json())
        self.repeated += name in self._inputs
        self._inputs.add(name)

    def _judge(self, number: int, text: bytes) -> GoodLine | BadLine:
        try:
            asked = BatchLine.model_validate_json(text)
        except ValidationError as fault:
            document = _document(text)
            custom_id = document.get("custom_id") if isinstance(document, dict) else None
            mistakes = tuple(findings(fault, document))[:_MISTAKES_A_LINE]
            return BadLine(number, custom_id if isinstance(custom_id, str) else None, mistakes)
        # A line without a custom id is known by its number: both name the same pictures, so neither may be there twice.
        name = asked.custom_id or str(number)
        earlier = self._names.setdefault(name, number)
        if earlier != number:
            return BadLine(number, asked.custom_id, (("/custom_id", f"is the name of line {earlier} already"),))
        return GoodLine(number, asked)


def _document(text: bytes) -> Any:  # noqa: ANN401 - any JSON there is
    """For finding the way to a mistake only: what cannot be read has none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
