"""Pictures from fal's media hosts: fetched without the API key, from allowed hosts only, verified before storing."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import BinaryIO, cast

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from darkroom.adapters.addresses import (
    ANYWHERE,
    LOOPBACK_TOO,
    PUBLIC_ONLY,
    AddressPolicy,
    AddressRefusedError,
    ThreadResolver,
    guarded_connector,
    literal_address,
)
from darkroom.domain.errors import PermanentError, ResultGoneError, TransientError, UnreadableMediaError
from darkroom.ports import Picture

FAL_MEDIA_HOSTS = ("*.fal.media", "*.fal.run")
MAX_SIDE = 14142  # pixels; the most that fal's toolkit takes (fal-protocol, section 5)
_SPOOL_BYTES = 8 * 1024 * 1024  # kept in memory up to here, in an unnamed file beyond
DECODE_PIXELS = 50_000_000  # what is decoded whole, at up to four bytes a pixel

UNREADABLE = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error)
"""Pillow's ways of saying that a file is broken; SyntaxError is its own choice for a bad header."""


class MediaDownloader:
    """Implements `ports.MediaFetcher` with aiohttp.

    `allowed_hosts` are globs of `host` (on the scheme's usual port) or `host:port`. A loopback host named there
    exactly, with its port, may speak plain http; any other host named there exactly may do so, at whatever address,
    when it is in `allow_http_hosts` too. Everyone else is fetched from by https, with a public address behind the name.
    Times are in seconds: `idle_timeout` between two pieces, `total_timeout` for one whole download.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str] = FAL_MEDIA_HOSTS,
        allow_http_hosts: Sequence[str] = (),
        max_bytes: int = 512 * 1024 * 1024,
        total_timeout: float = 120.0,
        idle_timeout: float = 20.0,
        decode_threads: int = 2,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed_hosts = [_HostPattern.parse(text) for text in allowed_hosts]
        self._allow_http_hosts = [_HostPattern.parse(text) for text in allow_http_hosts]
        self._max_bytes = max_bytes
        self._total_timeout = total_timeout
        self._idle_timeout = idle_timeout
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._sessions: dict[AddressPolicy, aiohttp.ClientSession] = {}  # no connection serves two kinds of trust
        self._decoding = ThreadPoolExecutor(decode_threads, thread_name_prefix="picture")

    @asynccontextmanager
    async def fetch(self, url: str) -> AsyncIterator[Picture]:
        """Stream one picture to this machine and verify it; the file is gone when the context ends.

        Raises as `ports.MediaFetcher.fetch` says.
        """
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            file = cast("BinaryIO", spool)
            size, sha256 = await self._download(url, file)
            look = await asyncio.get_running_loop().run_in_executor(self._decoding, inspect_picture, file, size)
            file.seek(0)
            yield Picture(file, size, sha256, look.content_type, look.width, look.height, look.blank)

    async def close(self) -> None:
        """Close the connections and the threads. Downloads under way end in TransientError."""
        for session in self._sessions.values():
            await session.close()
        if self._resolver is not None:
            await self._resolver.close()
        self._decoding.shutdown(wait=False, cancel_futures=True)

    async def _download(self, url: str, file: BinaryIO) -> tuple[int, str]:
        """Write the body to `file`; return its size and SHA-256."""
        target, policy = self._admit(url)
        try:
            async with (
                asyncio.timeout(self._total_timeout),
                asyncio.timeout(self._idle_timeout) as idle,
                self._session(policy).get(target, allow_redirects=False) as response,
            ):
                _check_status(response)
                return await self._receive(response, file, idle)
        except AddressRefusedError as refused:
            raise _refused(refused.message) from None
        except aiohttp.InvalidURL:
            raise _refused("fal's picture has no usable URL") from None
        except TimeoutError:
            raise TransientError(f"{target.host} was too slow in sending the picture") from None
        except aiohttp.ClientPayloadError:
            raise UnreadableMediaError(f"{target.host} stopped in the middle of the picture") from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"{target.host} could not be fetched from: {type(error).__name__}") from error

    async def _receive(
        self, response: aiohttp.ClientResponse, file: BinaryIO, idle: asyncio.Timeout
    ) -> tuple[int, str]:
        if (response.content_length or 0) > self._max_bytes:
            raise UnreadableMediaError(f"the picture is larger than {self._max_bytes} bytes")
        loop = asyncio.get_running_loop()
        size, digest = 0, hashlib.sha256()
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > self._max_bytes:
                raise UnreadableMediaError(f"the picture is larger than {self._max_bytes} bytes")
            digest.update(piece)
            file.write(piece)
            idle.reschedule(loop.time() + self._idle_timeout)
        return size, digest.hexdigest()

    def _admit(self, url: str) -> tuple[yarl.URL, AddressPolicy]:
        """Decide whether `url` may be fetched at all, and which addresses may be behind it."""
        try:
            target = yarl.URL(url)
            host, port = (target.raw_host or "").lower(), target.port
        except ValueError:
            raise _refused("fal's picture has no readable URL") from None
        if target.scheme not in {"http", "https"} or not host or port is None or target.raw_user is not None:
            raise _refused("fal's picture is not at a plain https URL")
        usual = target.is_default_port()
        matching = [pattern for pattern in self._allowed_hosts if pattern.matches(host, port, usual_port=usual)]
        if not matching:
            raise _refused(f"{host}:{port} is not among the allowed media hosts")
        if any(pattern.is_exactly(host, port) for pattern in matching):
            if any(pattern.is_exactly(host, port) for pattern in self._allow_http_hosts):
                return target, ANYWHERE
            if _is_loopback(host):
                return target, LOOPBACK_TOO
        if target.scheme != "https":
            raise _refused(f"{host}:{port} may be fetched from by https only")
        return target, PUBLIC_ONLY

    def _session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        if policy not in self._sessions:
            self._resolver = self._resolver or ThreadResolver()
            self._sessions[policy] = aiohttp.ClientSession(
                connector=guarded_connector(policy, self._resolver, ssl_context=self._ssl_context),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # asyncio.timeout is the only clock
                auto_decompress=False,
                read_bufsize=512 * 1024,
                headers={"User-Agent": "Darkroom/1", "Accept": "image/*", "Accept-Encoding": "identity"},
            )
        return self._sessions[policy]


@dataclass(frozen=True, slots=True)
class _HostPattern:
    """One entry of an allow-list. Without a port it stands for the scheme's usual one."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> _HostPattern:
        host, colon, port = text.strip().lower().rpartition(":")
        if not colon or not port.isdigit():
            host, port = text.strip().lower(), ""
        return cls(host.removeprefix("[").removesuffix("]"), int(port) if port else None)

    def matches(self, host: str, port: int, *, usual_port: bool) -> bool:
        return fnmatchcase(host, self.host) and (usual_port if self.port is None else port == self.port)

    def is_exactly(self, host: str, port: int) -> bool:
        return (self.host, self.port) == (host, port)


def _is_loopback(host: str) -> bool:
    literal = literal_address(host)
    return host == "localhost" or (literal is not None and literal.is_loopback)


def _refused(why: str) -> PermanentError:
    return PermanentError(why, code="media_host_refused")


def _check_status(response: aiohttp.ClientResponse) -> None:
    host, status = response.url.host, response.status
    if status == 200:
        return
    if 300 <= status < 400:
        raise _refused(f"{host} redirects, which is not followed")
    if status in {404, 410}:
        raise ResultGoneError(f"{host} no longer has the picture ({status})")
    # 401 and 403 as well: a media host's refusal is about this moment, and the picture behind it is paid for.
    raise TransientError(f"{host} answered {status}")


# --- what the bytes are -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PictureLook:
    """What a look at the bytes said. `blank`: the whole picture is one colour (fal's unsafe pictures are black)."""

    content_type: str
    width: int
    height: int
    blank: bool


def inspect_picture(file: BinaryIO, size: int) -> PictureLook:
    """Verify that `file` holds one complete PNG, JPEG or WebP of `size` bytes. CPU work: call it in a thread.

    No more is decoded than the answer needs: a PNG's checksums cover every byte, a JPEG is decoded at an eighth of its
    size. Raises UnreadableMediaError when it is something else, damaged, incomplete, or larger than MAX_SIDE.
    """
    file.seek(0)
    start = file.read(16)
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _look_at_png(file, size)
        if start.startswith(b"\xff\xd8\xff"):
            return _look_at_jpeg(file, size)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _look_at_webp(file, size)
    except UNREADABLE as error:
        raise UnreadableMediaError(f"the picture cannot be read: {error}") from error
    raise UnreadableMediaError("what arrived is neither PNG nor JPEG nor WebP")


def _look_at_png(file: BinaryIO, size: int) -> PictureLook:
    chunks = _png_chunks(file, size)
    kind, header = next(chunks)
    if kind != b"IHDR" or len(header) != 13:
        raise UnreadableMediaError("the PNG has no header")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    _check_sides(width, height)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    rows = None if interlaced or depth not in {8, 16} or not samples else _PngRows(width, samples * depth // 8)
    for kind, data in chunks:
        if kind == b"IDAT" and rows is not None:
            rows.feed(data)
    if rows is not None:
        if rows.uniform and rows.count < height:
            raise UnreadableMediaError("the PNG has fewer rows than its header says")
        blank = rows.uniform
    else:  # a form that fal has not been seen to send
        blank = width * height <= DECODE_PIXELS and _is_one_colour(PngImagePlugin.PngImageFile(_rewound(file)))
    return PictureLook("image/png", width, height, blank)


def _png_chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield every chunk up to IEND, its checksum verified."""
    file.seek(8)
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise UnreadableMediaError("the PNG ends too early")
        length, kind = struct.unpack(">I4s", head)
        if length + 4 > size - file.tell():  # before reading: a lying length must not cost its memory
            raise UnreadableMediaError("the PNG ends too early")
        data = file.read(length)
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(file.read(4), "big"):
            raise UnreadableMediaError("the PNG is damaged: a checksum does not match")
        yield kind, data


@dataclass(slots=True)
class _PngRows:
    """Tells whether all rows are of one colour, inflating only until one is not: in most pictures that is the first.

    The picture is not decoded: for rows of one colour the five filters' results are known in closed form.
    """

    width: int
    pixel_bytes: int
    uniform: bool = True
    count: int = 0
    _colour: bytes = b""
    _pending: bytes = b""
    _inflater: zlib._Decompress = field(default_factory=zlib.decompressobj)

    def feed(self, data: bytes) -> None:
        row_bytes = 1 + self.width * self.pixel_bytes
        while self.uniform:
            self._pending += self._inflater.decompress(data, row_bytes - len(self._pending))
            if len(self._pending) < row_bytes:
                return  # the next chunk holds the rest
            data = self._inflater.unconsumed_tail  # may be empty while the inflater still holds whole rows
            self._look_at(self._pending)
            self._pending = b""

    def _look_at(self, row: bytes) -> None:
        first, rest = row[1 : 1 + self.pixel_bytes], row[1 + self.pixel_bytes :]
        above = self._colour or bytes(self.pixel_bytes)
        zero = bytes(self.pixel_bytes)
        if row[0] == 0:  # none
            colour, repeated = first, first
        elif row[0] == 1:  # sub: the pixel to the left
            colour, repeated = first, zero
        elif row[0] == 2:  # up
            colour, repeated = _plus(first, above), first
        elif row[0] == 3:  # average of left and up, rounded down
            colour = _plus(first, bytes(value // 2 for value in above))
            means = (-((value + up) // 2) % 256 for value, up in zip(colour, above, strict=True))
            repeated = _plus(colour, bytes(means))
        elif row[0] == 4:  # Paeth: up for the first pixel, then left
            colour, repeated = _plus(first, above), zero
        else:
            raise UnreadableMediaError("the PNG has an unknown filter")
        self.uniform = colour == (self._colour or colour) and rest == repeated * (self.width - 1)
        self._colour = colour
        self.count += 1


def _plus(one: bytes, other: bytes) -> bytes:
    return bytes((a + b) % 256 for a, b in zip(one, other, strict=True))


def _look_at_jpeg(file: BinaryIO, size: int) -> PictureLook:
    file.seek(max(0, size - 256))
    if not file.read().rstrip(b"\0").endswith(b"\xff\xd9"):
        raise UnreadableMediaError("the JPEG ends too early")
    image = JpegImagePlugin.JpegImageFile(_rewound(file))  # not Image.open: its limit is global, and half of ours
    width, height = image.size
    _check_sides(width, height)
    # Reading through to the last block finds what is missing, and at an eighth of the size it costs a fraction.
    image.draft(None, (max(1, width // 8), max(1, height // 8)))
    blank = _is_one_colour(image)
    if blank and width * height <= DECODE_PIXELS:  # a fine regular pattern may average out: look at it in full
        blank = _is_one_colour(JpegImagePlugin.JpegImageFile(_rewound(file)))
    return PictureLook("image/jpeg", width, height, blank)


def _look_at_webp(file: BinaryIO, size: int) -> PictureLook:
    """The model's schema has no WebP; one that comes anyway is told by its right name."""
    start = _rewound(file).read(30)
    if int.from_bytes(start[4:8], "little") + 8 > size:
        raise UnreadableMediaError("the WebP ends too early")
    if start[12:16] == b"VP8X":
        width, height = 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    elif start[12:16] == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", start[26:30]))
    if width * height > DECODE_PIXELS:  # before Pillow opens it: it allocates two whole canvases at once
        raise UnreadableMediaError(f"the WebP has {width}x{height} pixels, which is too many")
    return PictureLook("image/webp", width, height, _is_one_colour(WebPImagePlugin.WebPImageFile(_rewound(file))))


def _is_one_colour(image: Image.Image) -> bool:
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in cast("tuple[tuple[float, float], ...]", bands))


def _check_sides(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise UnreadableMediaError(f"the picture has {width}x{height} pixels, which no request can have asked for")


def _rewound(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file
