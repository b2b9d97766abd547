"""Reading a batch's upload as it arrives: unpacked, and out of its form; never more than a piece of it is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from darkroom.domain.errors import PermanentError
from darkroom.domain.uploads import NORMALISERS, Gunzip, Normaliser, UploadError

_BY_SUFFIX: Final = {
    ".jsonl": "application/jsonl",
    ".ndjson": "application/x-ndjson",
    ".csv": "text/csv",
    ".json": "application/json",
}
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_DRAIN_BYTES: Final = 64 * 1024 * 1024


class Arriving:
    """The body of one request. `normaliser` is for its format, `pieces` are the upload itself."""

    def __init__(self, request: Request) -> None:
        self._stream = request.stream()
        self._headers = request.headers
        self.normaliser: Normaliser

    async def open(self) -> AsyncIterator[bytes]:
        """Read as far as the format is known; the pieces of the upload. Raises PermanentError, UploadError."""
        kind, options = parse_options_header(self._headers.get("content-type", ""))
        pieces = self._unpacked(self._raw())
        if kind != b"multipart/form-data":
            self.normaliser = _normaliser(kind.decode("latin-1"))
            return pieces
        if not options.get(b"boundary"):
            raise UploadError("the form has no boundary")
        form = _Form(options[b"boundary"])
        return await self._file(form, pieces)

    async def drain(self) -> None:
        """Read the rest and throw it away: who is still sending would not see the answer. At most 64 MB."""
        room = _DRAIN_BYTES
        try:
            async for piece in self._stream:
                room -= len(piece)
                if room < 0:
                    return
        except (ClientDisconnect, PermanentError, RuntimeError):
            return

    async def _raw(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except ClientDisconnect:
            raise UploadError("the connection broke before the upload was complete") from None

    def _unpacked(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        encoding = self._headers.get("content-encoding", "identity").strip().lower()
        if encoding in _GZIP:
            return _gunzipped(pieces)
        if encoding != "identity":
            raise PermanentError(f"Content-Encoding {encoding} is not known; gzip is", code="unsupported_media_type")
        return pieces

    async def _file(self, form: _Form, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        first: list[bytes] = []
        async for piece in pieces:
            first.extend(form.feed(piece))
            if form.kind is not None:
                break
        if form.kind is None:
            raise UploadError("the form has no file")
        self.normaliser = _normaliser(form.kind)
        data = _part(form, first, pieces)
        return _gunzipped(data) if form.packed else data


async def _part(form: _Form, first: list[bytes], pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in first:
        yield piece
    async for piece in pieces:
        for part in form.feed(piece):
            yield part
    if not form.complete:
        raise UploadError("the form ends too early")


async def _gunzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unpacker = Gunzip()
    async for piece in pieces:
        for part in unpacker.feed(piece):
            yield part
    for part in unpacker.close():
        yield part


def _normaliser(media_type: str) -> Normaliser:
    kind = media_type.strip().lower()
    if kind not in NORMALISERS:
        known = ", ".join(NORMALISERS)
        raise PermanentError(
            f"an upload is {known}, or multipart/form-data with such a file; not {kind or 'of no type'}",
            code="unsupported_media_type",
        )
    return NORMALISERS[kind]()


class _Form:
    """The first file of a form: a part with a file name, or called `file`. `kind` is its media type once it began."""

    def __init__(self, boundary: bytes) -> None:
        self.kind: str | None = None
        self.packed = False
        self.complete = False
        self._inside = False
        self._name = b""
        self._value = b""
        self._part: dict[str, bytes] = {}
        self._out: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part.clear,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
            },
        )

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The file's data in this piece. Raises UploadError."""
        try:
            self._parser.write(piece)
        except MultipartParseError as fault:
            raise UploadError(f"the form cannot be read: {fault}") from None
        out, self._out = self._out, []
        return iter(out)

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._part[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._part.get("content-disposition", b""))
        name = options.get(b"filename", b"").decode("utf-8", "replace").lower()
        if self.kind is not None or not (name or options.get(b"name") == b"file"):
            return
        kind = parse_options_header(self._part.get("content-type", b""))[0].decode("latin-1").lower()
        self.packed = name.endswith(".gz") or kind in {"application/gzip", "application/x-gzip"}
        name = name.removesuffix(".gz")
        by_name = next((found for suffix, found in _BY_SUFFIX.items() if name.endswith(suffix)), None)
        self.kind = kind if kind in NORMALISERS else by_name or kind
        self._inside = True

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._out.append(data[start:end])

    def _on_part_end(self) -> None:
        self.complete = self.complete or self._inside
        self._inside = False
