"""What a batch is made from: a file, or lines that a program makes. Read in pieces, from the start on each try."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, Literal, get_args

from darkroom_client.errors import MisuseError
from darkroom_client.steps import Upload

UploadFormat = Literal["jsonl", "ndjson", "csv", "json", "txt"]
"""Lines of JSON (two names for it), CSV with a header, JSON with `items`, or a prompt a line."""

Line = str | Mapping[str, Any]
"""A prompt; or the whole line: `{"custom_id"?, "input": {…}, "metadata"?}`."""

Source = str | os.PathLike[str] | Iterable[Line]
"""A file's path (a single string is one), or lines."""

_JSONL: Final = "application/jsonl"
_CONTENT_TYPES: Final[dict[str, str]] = {
    "jsonl": _JSONL,
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "json": "application/json",
    "txt": _JSONL,
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PIECE: Final = 1 << 18
_IN_MEMORY: Final = 1 << 22
"""Lines that a program makes are kept for a repeat: in memory up to so many bytes, then on disk."""


@contextmanager
def upload_of(source: Source, file_format: UploadFormat | None = None) -> Iterator[Upload]:
    """The upload that a source comes to; to be sent, any number of times, while inside.

    A file's format is its suffix's unless given, and it may be gzipped. A file of prompts (txt) and lines of a program
    become lines of JSON; an empty line stays one, so that the file's line numbers hold.

    Raises:
        MisuseError: no such file, no known format, or a line that no upload has.
    """
    if isinstance(source, str | os.PathLike):
        yield _of_file(Path(source), file_format)
        return
    if isinstance(source, Mapping | bytes):
        raise MisuseError("a batch is made from a file's path or from lines; one line goes into a list")
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        for line in source:
            spool.write(_json_line(line))
        yield Upload(_JSONL, lambda: _pieces(_rewound(spool)))


def format_of(path: Path) -> UploadFormat | None:
    """The format that a file's name tells, None where it tells none."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix.removeprefix(".")
    return next((known for known in get_args(UploadFormat) if known == suffix), None)


def _of_file(path: Path, file_format: UploadFormat | None) -> Upload:
    if not path.is_file():
        raise MisuseError(f"there is no file {str(path)!r} (prompts themselves go into a list)")
    kind = file_format or format_of(path)
    if kind is None:
        raise MisuseError(
            f"{path.name} tells no format: it ends in {', '.join(_CONTENT_TYPES)} (or .gz), or one is given"
        )
    with path.open("rb") as file:
        gzipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if kind == "txt":
        return Upload(_JSONL, lambda: _prompts(path, gzipped=gzipped))
    return Upload(_CONTENT_TYPES[kind], lambda: _file_pieces(path), gzipped)


def _file_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _pieces(file)


def _prompts(path: Path, *, gzipped: bool) -> Iterator[bytes]:
    """A file with one prompt a line, as lines of JSON."""
    lines = bytearray()
    with gzip.open(path) if gzipped else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                prompt = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise MisuseError(f"{path.name}: line {number} is not UTF-8") from None
            lines += _json_line(prompt) if prompt.strip() else b"\n"
            if len(lines) >= _PIECE:
                yield bytes(lines)
                lines.clear()
    if lines:
        yield bytes(lines)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _rewound(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _json_line(line: Line) -> bytes:
    if isinstance(line, str):
        line = {"input": {"prompt": line}}
    elif not isinstance(line, Mapping):
        raise MisuseError(f"a line is a prompt or a mapping, not {type(line).__name__}")
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError) as error:  # a lone surrogate, a NaN, what JSON does not have
        raise MisuseError(f"this line cannot be sent as JSON: {error}") from None
