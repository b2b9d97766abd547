"""The formats of an upload, each turned into lines of JSON as it arrives: what comes out has the caller's line numbers.

Nothing here holds more than one line, and nothing judges what a line asks for: that is `batch_line`'s.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from darkroom.domain.batch import BYTES_MAX, LINES_MAX
from darkroom.domain.errors import PermanentError
from darkroom.domain.krea import KreaInput

LINE_BYTES: Final = 262_144
"""The longest line, as a single job's body."""

_PHYSICAL_LINES: Final = 1_000_000
"""Empty lines are no jobs, but they are counted."""

_PIECE: Final = 1 << 20


class UploadError(PermanentError):
    """The upload as a whole cannot be taken."""

    code = "invalid_upload"


class TooMuchError(UploadError):
    """The upload is over a limit."""

    code = "batch_too_large"


class Normaliser(Protocol):
    """Takes an upload in pieces of any size and gives lines of JSON. Both may raise UploadError.

    `items` counts what will be judged.
    """

    items: int

    def feed(self, piece: bytes) -> bytes:
        """The lines that are complete now, each with its newline."""

    def close(self) -> bytes:
        """What is left at the end."""


class _Lines:
    """Cuts pieces into lines and counts them."""

    def __init__(self) -> None:
        self._rest = b""
        self._bytes = 0
        self.number = 0

    def feed(self, piece: bytes) -> list[bytes]:
        self._bytes += len(piece)
        if self._bytes > BYTES_MAX:
            raise TooMuchError(f"an upload has at most {BYTES_MAX} bytes, unpacked")
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_BYTES:
            raise TooMuchError(f"line {self.number + len(lines) + 1} is longer than {LINE_BYTES} bytes")
        return lines

    def close(self) -> list[bytes]:
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class _Counter:
    """Counts what will be judged."""

    def __init__(self) -> None:
        self.items = 0

    def count(self) -> None:
        self.items += 1
        if self.items > LINES_MAX:
            raise TooMuchError(f"a batch has at most {LINES_MAX} lines")


class JsonLines(_Counter):
    """Lines of JSON pass as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()

    def feed(self, piece: bytes) -> bytes:
        """See `Normaliser`."""
        return self._pass(self._lines.feed(piece))

    def close(self) -> bytes:
        """See `Normaliser`."""
        return self._pass(self._lines.close())

    def _pass(self, lines: list[bytes]) -> bytes:
        if lines and self._lines.number == 0:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        self._lines.number += len(lines)
        if self._lines.number > _PHYSICAL_LINES:
            raise TooMuchError(f"an upload has at most {_PHYSICAL_LINES} lines, empty ones included")
        for line in lines:
            if len(line) > LINE_BYTES:
                raise TooMuchError(f"a line is longer than {LINE_BYTES} bytes")
            if line and not line.isspace():
                self.count()
        return b"".join(line.rstrip(b"\r") + b"\n" for line in lines)


_COLUMNS: Final = frozenset(KreaInput.model_fields)
_SIZE: Final = re.compile(r"(\d{1,9})\s*[xX]\s*(\d{1,9})")
_BOOLEANS: Final = {"true": True, "false": False}


class Csv(_Counter):
    """Comma-separated values: columns are input fields, `custom_id`, `metadata.NAME`. An empty cell is not given."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()
        self._number = 0
        self._record = b""
        self._starts_at = 1
        self._columns: list[str] | None = None

    def feed(self, piece: bytes) -> bytes:
        """See `Normaliser`."""
        return b"".join(self._take(line) for line in self._lines.feed(piece))

    def close(self) -> bytes:
        """See `Normaliser`."""
        out = b"".join(self._take(line) for line in self._lines.close())
        if self._record:
            raise UploadError(f"the quote that line {self._starts_at} opens is never closed")
        if self._columns is None:
            raise UploadError("the upload has no header line")
        return out

    def _take(self, line: bytes) -> bytes:
        """A record may go over several lines; it stands in the first of them, and the others are empty."""
        self._number += 1
        if self._number > _PHYSICAL_LINES:
            raise TooMuchError(f"an upload has at most {_PHYSICAL_LINES} lines")
        self._lines.number = self._number
        if not self._record:
            self._starts_at = self._number
        self._record += line + b"\n"
        if len(self._record) > LINE_BYTES:
            raise TooMuchError(f"the record at line {self._starts_at} is longer than {LINE_BYTES} bytes")
        if self._record.count(b'"') % 2:
            return b""
        record, self._record = self._record, b""
        return self._row(record) + b"\n" * (self._number - self._starts_at + 1)

    def _row(self, record: bytes) -> bytes:
        try:
            text = record.decode("utf-8-sig" if self._columns is None else "utf-8")
            cells = next(csv.reader(text.splitlines(keepends=True), strict=True), [])
        except (UnicodeDecodeError, csv.Error) as fault:
            raise UploadError(f"line {self._starts_at} cannot be read as CSV: {fault}") from None
        if self._columns is None:
            self._columns = _header(cells)
            return b""
        if not any(cells):
            return b""
        if len(cells) > len(self._columns):
            raise UploadError(f"line {self._starts_at} has {len(cells)} cells, the header {len(self._columns)}")
        self.count()
        return json.dumps(_line(dict(zip(self._columns, cells, strict=False)))).encode()


def _header(cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    unknown = [c for c in columns if c not in _COLUMNS and c != "custom_id" and not re.fullmatch(r"metadata\..+", c)]
    if unknown:
        raise UploadError(f"unknown column {unknown[0]!r}: columns are input fields, custom_id and metadata.NAME")
    if len(set(columns)) < len(columns):
        raise UploadError("a column is there twice")
    if "prompt" not in columns:
        raise UploadError("there is no column `prompt`")
    return columns


def _line(cells: dict[str, str]) -> dict[str, Any]:
    line: dict[str, Any] = {"input": {}}
    for name, cell in cells.items():
        if cell == "":
            continue
        if name == "custom_id":
            line["custom_id"] = cell
        elif name.startswith("metadata."):
            line.setdefault("metadata", {})[name.removeprefix("metadata.")] = cell
        else:
            line["input"][name] = cell if name == "prompt" else _value(cell.strip())
    return line


def _value(cell: str) -> Any:  # noqa: ANN401 - what a cell means
    """Numbers, booleans and sizes such as 1024x768; anything else stays text, and is judged as that."""
    if re.fullmatch(r"-?\d{1,20}", cell):
        return int(cell)
    if (size := _SIZE.fullmatch(cell)) is not None:
        return {"width": int(size[1]), "height": int(size[2])}
    return _BOOLEANS.get(cell.lower(), cell)


class JsonItems(_Counter):
    """One JSON object with `items`: each item is a line, numbered from 1."""

    _WAITING: Final = re.compile(r"[ \t\r\n]*\Z")
    _OPENING: Final = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*"items"[ \t\r\n]*:[ \t\r\n]*\[')
    _NEXT: Final = re.compile(r"[ \t\r\n]*(,)?[ \t\r\n]*")
    _CLOSING: Final = re.compile(r"[ \t\r\n]*\][ \t\r\n]*\}[ \t\r\n]*\Z")

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()
        self._bytes = 0
        self._tail = b""
        self._text = ""
        self._open = False
        self._decoder = json.JSONDecoder()

    def feed(self, piece: bytes) -> bytes:
        """See `Normaliser`."""
        self._bytes += len(piece)
        if self._bytes > BYTES_MAX:
            raise TooMuchError(f"an upload has at most {BYTES_MAX} bytes, unpacked")
        out: list[bytes] = []
        for start in range(0, len(piece), LINE_BYTES):
            self._text += self._decoded(piece[start : start + LINE_BYTES])
            out.extend(self._items(last=False))
            if len(self._text) > 2 * LINE_BYTES:
                raise TooMuchError(f"item {self.items + 1} is longer than {LINE_BYTES} bytes")
        return b"".join(out)

    def close(self) -> bytes:
        """See `Normaliser`."""
        out = b"".join(self._items(last=True))
        if not self._open or self._tail or not self._CLOSING.fullmatch(self._text):
            raise UploadError(f"the body is not one JSON object with `items` only (after item {self.items})")
        return out

    def _decoded(self, piece: bytes) -> str:
        data = self._tail + piece
        for cut in range(4):  # a character of several bytes may be cut off
            end = len(data) - cut
            try:
                text = data[:end].decode()
            except UnicodeDecodeError as fault:
                if fault.start < len(data) - 4:
                    break
            else:
                self._tail = data[end:]
                return text
        raise UploadError("the body is not UTF-8")

    def _items(self, *, last: bool) -> Iterator[bytes]:
        if not self._open:
            found = self._OPENING.match(self._text.removeprefix("\ufeff"))
            if found is None:
                return
            self._text = self._text.removeprefix("\ufeff")[found.end() :]
            self._open = True
        at = 0
        while True:
            begins = self._NEXT.match(self._text, at)
            assert begins is not None
            start = begins.end()
            if self._text[start : start + 1] in {"", "]"} or (begins[1] is None) != (self.items == 0):
                break
            try:
                item, end = self._decoder.raw_decode(self._text, start)
            except (json.JSONDecodeError, RecursionError):
                if last:
                    raise UploadError(f"item {self.items + 1} is not JSON") from None
                break
            if end == len(self._text) and not last:
                break  # a number may go on
            self.count()
            yield json.dumps(item).encode() + b"\n"
            at = end
        self._text = self._text[at:]


NORMALISERS: Final[Mapping[str, Callable[[], Normaliser]]] = {
    "application/jsonl": JsonLines,
    "application/x-ndjson": JsonLines,
    "text/csv": Csv,
    "application/json": JsonItems,
}
"""By media type."""


class Gunzip:
    """Unpacks gzip in bounded pieces, whatever its ratio is."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(31)
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What the piece unpacks to, in pieces of at most 1 MB. Raises UploadError."""
        try:
            while piece:
                self._begun = True
                if self._unpacker.eof:
                    self._unpacker = zlib.decompressobj(31)
                yield self._unpacker.decompress(piece, _PIECE)
                piece = self._unpacker.unconsumed_tail or self._unpacker.unused_data
        except zlib.error as fault:
            raise UploadError(f"the body is not gzip: {fault}") from None

    def close(self) -> Iterator[bytes]:
        """The rest. Raises UploadError when the end is missing."""
        if self._begun and not self._unpacker.eof:
            yield self._unpacker.flush()
        if not self._unpacker.eof:
            raise UploadError("the gzip body ends too early")
