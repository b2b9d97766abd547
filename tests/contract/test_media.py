"""Fetching pictures from a media host that does everything wrong at one time or another; knowing what is a picture."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from darkroom.adapters.media import MediaDownloader, PictureLook, inspect_picture
from darkroom.domain.errors import (
    DarkroomError,
    PermanentError,
    ResultGoneError,
    TransientError,
    UnreadableMediaError,
)
from tests.unit.test_addresses import StubResolver


def noise(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 60) for _ in range(3)])


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


PNG = encoded(noise(96, 64), "PNG")


class MediaHost:
    """A media host on a free port: answers each path as a test tells it to, and remembers the requests."""

    def __init__(self) -> None:
        self.origin = ""
        self.requests: list[web.Request] = []
        self.answers: dict[str, Callable[[web.Request], Any]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        response: web.StreamResponse = await self.answers[request.path](request)
        return response

    def serves(self, path: str, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> str:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, status=status, headers=headers)

        self.answers[path] = answer
        return self.origin + path


@asynccontextmanager
async def running(handler: Callable[[web.Request], Any]) -> AsyncIterator[int]:
    """Serve every path with `handler`; the port."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def host() -> AsyncIterator[MediaHost]:
    host = MediaHost()
    async with running(host.handle) as port:
        host.origin = f"http://127.0.0.1:{port}"
        yield host


@asynccontextmanager
async def downloader(**values: Any) -> AsyncIterator[MediaDownloader]:  # noqa: ANN401 - MediaDownloader's own
    values.setdefault("resolver", StubResolver(["127.0.0.1"]))
    values.setdefault("total_timeout", 10.0)
    media = MediaDownloader(**values)
    try:
        yield media
    finally:
        await media.close()


@pytest.fixture
async def media(host: MediaHost) -> AsyncIterator[MediaDownloader]:
    async with downloader(allowed_hosts=[host.origin.removeprefix("http://")], max_bytes=1_000_000) as media:
        yield media


async def refusal(media: MediaDownloader, url: str) -> DarkroomError:
    with pytest.raises(DarkroomError) as refused:
        async with media.fetch(url):
            pass
    return refused.value


# --- what arrives well ---


async def test_a_picture_arrives_whole_and_described(host: MediaHost, media: MediaDownloader) -> None:
    async with media.fetch(host.serves("/files/one.png", PNG)) as picture:
        assert picture.file.read() == PNG
        assert picture.size == len(PNG)
        assert picture.sha256 == hashlib.sha256(PNG).hexdigest()
        assert (picture.content_type, picture.width, picture.height) == ("image/png", 96, 64)
        assert not picture.blank
    assert picture.file.closed


async def test_no_credentials_and_no_cookies_are_sent(host: MediaHost, media: MediaDownloader) -> None:
    url = host.serves("/one.png", PNG, headers={"Set-Cookie": "a=b"})
    for _ in range(2):
        async with media.fetch(url):
            pass
    for request in host.requests:
        assert not {"authorization", "cookie"} & {name.lower() for name in request.headers}


async def test_a_body_in_chunks_is_as_good(host: MediaHost, media: MediaDownloader) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(PNG), 1000):
            await response.write(PNG[start : start + 1000])
        return response

    host.answers["/chunks.png"] = drip
    async with media.fetch(host.origin + "/chunks.png") as picture:
        assert picture.sha256 == hashlib.sha256(PNG).hexdigest()


async def test_a_picture_too_big_for_memory_goes_through_a_file(host: MediaHost) -> None:
    async with downloader(allowed_hosts=[host.origin.removeprefix("http://")]) as media:
        data = encoded(noise(2000, 1600), "PNG", compress_level=1)
        assert len(data) > 8 * 1024 * 1024
        async with media.fetch(host.serves("/big.png", data)) as picture:
            assert hashlib.sha256(picture.file.read()).hexdigest() == picture.sha256


# --- what the host does wrong ---


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
async def test_a_host_in_trouble_passes_by_itself(host: MediaHost, media: MediaDownloader, status: int) -> None:
    assert isinstance(await refusal(media, host.serves("/one.png", b"no", status=status)), TransientError)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_picture_that_is_gone_is_gone(host: MediaHost, media: MediaDownloader, status: int) -> None:
    assert isinstance(await refusal(media, host.serves("/one.png", b"no", status=status)), ResultGoneError)


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_refused_and_not_followed(host: MediaHost, media: MediaDownloader, status: int) -> None:
    host.serves("/secret", PNG)
    url = host.serves("/moved.png", b"", status=status, headers={"Location": host.origin + "/secret"})
    refused = await refusal(media, url)
    assert isinstance(refused, PermanentError)
    assert refused.code == "media_host_refused"
    assert [request.path for request in host.requests] == ["/moved.png"]


async def raw_server(answer: bytes, *, reset: bool = False) -> asyncio.Server:
    """A server below HTTP: sends these bytes and closes, or resets."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(PNG) + 10),  # promises more than it sends
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(PNG) + 10),
    ],
)
async def test_a_body_shorter_than_promised_is_unreadable(head: bytes) -> None:
    async with await raw_server(head + PNG) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with downloader(allowed_hosts=[address]) as media:
            assert isinstance(await refusal(media, f"http://{address}/a.png"), UnreadableMediaError)


@pytest.mark.parametrize("length", [len(PNG) - 10, 0])
async def test_a_body_longer_than_promised_is_not_taken_for_the_picture(length: int) -> None:
    async with await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + PNG) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with downloader(allowed_hosts=[address]) as media:
            # Where the surplus comes with the rest, aiohttp finds the whole answer malformed: worth asking again.
            refused = await refusal(media, f"http://{address}/a.png")
            assert isinstance(refused, UnreadableMediaError | TransientError)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"SSH-2.0-OpenSSH\r\n\r\n"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_lost_before_the_answer_passes_by_itself(answer: bytes, *, reset: bool) -> None:
    async with await raw_server(answer, reset=reset) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with downloader(allowed_hosts=[address]) as media:
            assert isinstance(await refusal(media, f"http://{address}/a.png"), TransientError)


async def test_a_host_that_is_away_passes_by_itself() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody_listens.getsockname()[1]}"
        async with downloader(allowed_hosts=[address]) as media:
            assert isinstance(await refusal(media, f"http://{address}/a.png"), TransientError)


async def test_an_endless_body_is_given_up_at_the_limit(host: MediaHost, media: MediaDownloader) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:  # ends with the connection
            await response.write(bytes(65536))
            sent += 65536

    host.answers["/endless.png"] = endless
    assert isinstance(await refusal(media, host.origin + "/endless.png"), UnreadableMediaError)
    assert sent < 30_000_000  # the limit is 1 MB; the rest is the sockets' buffers


async def test_a_body_announced_too_large_is_not_even_begun(host: MediaHost, media: MediaDownloader) -> None:
    async def announce(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000001"})
        await response.prepare(request)
        await asyncio.Event().wait()  # never sends a byte of it
        return response

    host.answers["/huge.png"] = announce
    announced = await refusal(media, host.origin + "/huge.png")
    assert isinstance(announced, UnreadableMediaError)
    assert "larger than 1000000 bytes" in announced.message


async def test_a_download_may_take_longer_than_one_pause_may(host: MediaHost) -> None:
    async def unhurried(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(PNG))})
        await response.prepare(request)
        for start in range(0, len(PNG), 1 + len(PNG) // 8):
            await response.write(PNG[start : start + 1 + len(PNG) // 8])
            await asyncio.sleep(0.1)  # what is tested is the passing of time
        return response

    host.answers["/unhurried.png"] = unhurried
    async with (
        downloader(allowed_hosts=[host.origin.removeprefix("http://")], idle_timeout=0.4) as media,
        media.fetch(host.origin + "/unhurried.png") as picture,
    ):
        assert picture.size == len(PNG)


async def test_a_host_that_stops_sending_is_given_up(host: MediaHost) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(PNG))})
        await response.prepare(request)
        await response.write(PNG[:1000])
        await asyncio.Event().wait()
        return response

    host.answers["/stall.png"] = stall
    async with downloader(
        allowed_hosts=[host.origin.removeprefix("http://")], idle_timeout=0.2, total_timeout=60
    ) as media:
        slow = await asyncio.wait_for(refusal(media, host.origin + "/stall.png"), 5)
    assert isinstance(slow, TransientError)
    assert "too slow" in slow.message


async def test_a_host_that_does_not_even_begin_is_given_up(host: MediaHost) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    host.answers["/silent.png"] = silent
    async with downloader(allowed_hosts=[host.origin.removeprefix("http://")], idle_timeout=0.2) as media:
        slow = await asyncio.wait_for(refusal(media, host.origin + "/silent.png"), 5)
    assert "too slow" in slow.message


async def test_a_slow_drip_is_given_up_at_the_total_limit(host: MediaHost) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(PNG))})
        await response.prepare(request)
        for byte in PNG:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.02)  # what is tested is the passing of time
        return response

    host.answers["/drip.png"] = drip
    hosts = [host.origin.removeprefix("http://")]
    async with downloader(allowed_hosts=hosts, idle_timeout=0.3, total_timeout=0.5) as media:
        assert "too slow" in (await refusal(media, host.origin + "/drip.png")).message


# --- which hosts are asked at all ---


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/a.png",
        "ftp://v3.fal.media/a.png",
        "https://fal.media.example/a.png",
        "https://evilfal.media/a.png",
        "https://v3.fal.media@evil.example/a.png",
        "https://user:secret@v3.fal.media/a.png",
        "https://v3.fal.media:8443/a.png",
        "https://evil.example/v3.fal.media",
        "https://evil.example#.fal.media",
        "https://127.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://[v3.fal.media/a.png",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "",
    ],
)
async def test_other_hosts_and_other_schemes_are_refused_unasked(url: str) -> None:
    resolver = StubResolver(["127.0.0.1"])
    async with downloader(resolver=resolver) as media:
        refused = await refusal(media, url)
    assert isinstance(refused, PermanentError)
    assert refused.code == "media_host_refused"
    assert "secret" not in refused.message
    assert not resolver.asked


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("url", ["https://v3b.fal.media/a.png", "https://V3B.Fal.Media/a.png"])
async def test_an_allowed_name_with_a_private_address_is_refused(url: str, address: str) -> None:
    async with downloader(resolver=StubResolver([address])) as media:
        refused = await refusal(media, url)
    assert isinstance(refused, PermanentError)
    assert refused.code == "media_host_refused"
    assert "no public address" in refused.message


async def test_a_loopback_host_counts_only_with_its_port(host: MediaHost) -> None:
    url = host.serves("/one.png", PNG)
    async with downloader(allowed_hosts=["127.0.0.1", "127.0.0.1:1", "127.0.0.*:*"]) as media:
        assert (await refusal(media, url)).code == "media_host_refused"
    assert not host.requests


async def test_a_glob_opens_no_loopback(host: MediaHost) -> None:
    port = host.origin.rpartition(":")[2]
    async with downloader(allowed_hosts=[f"*:{port}"]) as media:
        assert (await refusal(media, host.serves("/one.png", PNG))).code == "media_host_refused"
    assert not host.requests


async def test_a_named_host_may_speak_http_where_that_is_allowed(host: MediaHost) -> None:
    """Compose's simulator: a private address behind a plain name."""
    port = host.origin.rpartition(":")[2]
    host.serves("/one.png", PNG)
    named, url = f"Simulator:{port}", f"http://simulator:{port}/one.png"
    async with downloader(allowed_hosts=[named]) as media:
        assert (await refusal(media, url)).code == "media_host_refused"
    async with downloader(allowed_hosts=[named], allow_http_hosts=[named]) as media, media.fetch(url) as picture:
        assert picture.width == 96
    async with downloader(allow_http_hosts=[named]) as media:  # allowed nowhere but in the exception
        assert (await refusal(media, url)).code == "media_host_refused"


# --- what is a picture ---


async def test_a_page_instead_of_a_picture_is_unreadable(host: MediaHost, media: MediaDownloader) -> None:
    url = host.serves("/one.png", b"<html>" * 100, headers={"Content-Type": "image/png"})
    assert isinstance(await refusal(media, url), UnreadableMediaError)
    assert isinstance(await refusal(media, host.serves("/none.png", b"")), UnreadableMediaError)
    compressed = host.serves("/gzip.png", gzip.compress(PNG), headers={"Content-Encoding": "gzip"})
    assert isinstance(await refusal(media, compressed), UnreadableMediaError)


def look(data: bytes) -> PictureLook:
    return inspect_picture(io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    ("form", "options", "content_type"),
    [
        ("PNG", {}, "image/png"),
        ("JPEG", {}, "image/jpeg"),
        ("JPEG", {"progressive": True}, "image/jpeg"),
        ("WEBP", {}, "image/webp"),
        ("WEBP", {"lossless": True}, "image/webp"),
        ("WEBP", {"exif": b"Exif\0\0"}, "image/webp"),
    ],
)
@pytest.mark.parametrize("size", [(97, 61), (1, 1), (3, 500)])
def test_type_and_size_are_read(form: str, options: dict[str, Any], content_type: str, size: tuple[int, int]) -> None:
    seen = look(encoded(noise(*size), form, **options))
    assert (seen.content_type, seen.width, seen.height) == (content_type, *size)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_unreadable(form: str) -> None:
    data = encoded(noise(64, 48), form)
    for length in {0, 1, 8, 20, 33, len(data) // 4, len(data) // 2, len(data) - 13, len(data) - 1}:
        with pytest.raises(UnreadableMediaError):
            look(data[:length])


def test_a_jpeg_padded_to_its_length_is_unreadable() -> None:
    """A write that never finished, in a file made to size: Pillow alone decodes it, half grey."""
    data = encoded(noise(512, 512), "JPEG")
    half = data[: len(data) // 2]
    with pytest.raises(UnreadableMediaError):
        look(half.ljust(len(data), b"\0"))


class CarefulFile(io.BytesIO):
    """Refuses to be asked for more than it holds: a real file would set the memory aside first."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is None or size <= len(self.getbuffer())
        return super().read(size)


def test_a_lying_chunk_length_costs_no_memory() -> None:
    lying = PNG[:33] + struct.pack(">I", 0xFFFFFFF0) + PNG[37:]
    with pytest.raises(UnreadableMediaError):
        inspect_picture(CarefulFile(lying), len(lying))


def test_every_damaged_byte_of_a_png_is_found() -> None:
    data = encoded(noise(16, 16), "PNG")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(UnreadableMediaError):
            look(bytes(damaged))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("width", "height"), [(200_000, 200_000), (14143, 1), (0, 5)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(UnreadableMediaError, match="no request can have asked"):
        look(png(width, height, bytes(100)))


def test_a_png_with_fewer_rows_than_its_header_says_is_unreadable() -> None:
    with pytest.raises(UnreadableMediaError, match="fewer rows"):
        look(png(4, 4, bytes(13) * 3))


def test_what_zlib_cannot_read_is_unreadable() -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    broken = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"nonsense") + png_chunk(b"IEND", b"")
    with pytest.raises(UnreadableMediaError):
        look(broken)


# --- the black, unsafe picture ---


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 77)])
@pytest.mark.parametrize("size", [(64, 64), (1, 700), (700, 1)])
def test_a_picture_of_one_colour_is_blank(form: str, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    assert look(encoded(Image.new("RGB", size, colour), form, lossless=True)).blank


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("place", [(0, 0), (63, 0), (31, 40), (0, 63), (63, 63)])
def test_one_spot_makes_it_a_picture(form: str, place: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 64))
    image.putpixel(place, (255, 255, 255))
    assert not look(encoded(image, form, quality=95)).blank


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_blank_is_known_in_every_kind_of_png(mode: str) -> None:
    assert look(encoded(Image.new(mode, (50, 50)), "PNG")).blank
    spotted = Image.new(mode, (50, 50))
    spotted.putpixel((49, 49), (1, 1, 1, 1) if mode == "RGBA" else (1, 1) if mode == "LA" else 1)
    assert not look(encoded(spotted, "PNG")).blank


def filtered(kinds: list[int], pixels: list[list[bytes]]) -> bytes:
    """Filter rows as PNG's specification says (section 9), pixel by pixel: the slow way, for comparison."""
    size = len(pixels[0][0])
    above = [bytes(size)] * len(pixels[0])
    out = bytearray()
    for kind, row in zip(kinds, pixels, strict=True):
        out.append(kind)
        left, corner = bytes(size), bytes(size)
        for pixel, up in zip(row, above, strict=True):
            out += bytes(
                (x - predicted(kind, a, b, c)) % 256 for x, a, b, c in zip(pixel, left, up, corner, strict=True)
            )
            left, corner = pixel, up
        above = row
    return bytes(out)


def predicted(kind: int, a: int, b: int, c: int) -> int:
    if kind == 4:
        return min((a, b, c), key=lambda value: abs(a + b - c - value))
    return (0, a, b, (a + b) // 2)[kind]


@pytest.mark.parametrize(
    "kinds", [[kind] * 5 for kind in range(5)] + [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 4, 3, 2, 2]]
)
def test_blank_is_known_under_every_filter(kinds: list[int]) -> None:
    one = bytes([200, 3, 129])
    rows = [[one] * 6 for _ in kinds]
    assert look(png(6, 5, filtered(kinds, rows))).blank
    for y in range(5):
        for x in range(6):
            spotted = [list(row) for row in rows]
            spotted[y][x] = bytes([200, 3, 130])
            assert not look(png(6, 5, filtered(kinds, spotted))).blank
