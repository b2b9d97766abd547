"""Sending webhooks to receivers that are late, rude, elsewhere or hostile: whatever they do is in the report."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from darkroom.adapters.addresses import LOOPBACK_TOO, PUBLIC_ONLY, AddressPolicy
from darkroom.adapters.webhooks import (
    HttpWebhookSender,
    new_webhook_secret,
    parse_retry_after,
    validate_webhook_url,
)
from darkroom.domain.errors import PermanentError
from darkroom.ports import AttemptReport
from tests.unit.test_addresses import StubResolver

SECRET = new_webhook_secret()
BODY = '{"type":"job.succeeded","data":{"prompt":"größer"}}'.encode()


class Receiver:
    """A caller's server: keeps what it got, answers what it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[web.Request], Any] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if self.answer is None:
            return web.Response(text="thank you")
        response: web.StreamResponse = await self.answer(request)
        return response

    def answers(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers=headers)

        self.answer = answer


@asynccontextmanager
async def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with receiving(receiver) as port:
        receiver.url = f"http://127.0.0.1:{port}/hook?token=receivers-secret"
        yield receiver


@asynccontextmanager
async def sender(
    policy: AddressPolicy = LOOPBACK_TOO,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109 - the sender's setting
    allow_http: bool = True,
    resolver: AbstractResolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[HttpWebhookSender]:
    async with HttpWebhookSender(
        timeout=timeout, allow_http=allow_http, policy=policy, resolver=resolver, ssl_context=ssl_context
    ) as sending:
        yield sending


async def send(sending: HttpWebhookSender, url: str, *, timestamp: datetime | None = None) -> AttemptReport:
    moment = timestamp or datetime.now(UTC)
    return await sending.send(url, secret=SECRET, webhook_id="msg_1", timestamp=moment, body=BODY)


def failed_as(report: AttemptReport, code: str) -> bool:
    assert report.error is not None
    assert report.status_code is None
    assert "receivers-secret" not in report.error
    return report.error.startswith(f"{code}: ") and len(report.error) > len(code) + 2


# --- what is sent ---


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
async def test_a_receiver_can_verify_what_it_gets(receiver: Receiver, zone: timezone) -> None:
    moment = datetime.now(zone).replace(microsecond=999_999)
    async with sender() as sending:
        report = await send(sending, receiver.url, timestamp=moment)
    headers, body = receiver.got[0]
    assert (report.status_code, report.error, report.response_excerpt) == (200, None, "thank you")
    assert body == BODY
    assert Webhook(SECRET).verify(body, headers)["type"] == "job.succeeded"
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(int(moment.timestamp()))
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "Darkroom-Webhooks/1"
    assert "cookie" not in headers


def test_a_secret_has_the_standards_form() -> None:
    secret = new_webhook_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_webhook_secret()


# --- what comes back ---


@pytest.mark.parametrize("status", [204, 400, 410, 429, 503])
async def test_the_status_is_reported_and_judged_by_others(receiver: Receiver, status: int) -> None:
    receiver.answers(status)
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert (report.status_code, report.error, report.response_excerpt) == (status, None, "")


async def test_redirects_are_reported_and_not_followed(receiver: Receiver) -> None:
    receiver.answers(307, headers={"Location": receiver.url})
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert report.status_code == 307
    assert len(receiver.got) == 1


async def test_every_attempt_connects_and_resolves_anew(receiver: Receiver) -> None:
    port = receiver.url.split(":")[2]
    moving = StubResolver(["127.0.0.1"], ["10.0.0.1"])
    async with sender(resolver=moving) as sending:
        assert (await send(sending, f"http://moving.example:{port}")).status_code == 200
        assert failed_as(await send(sending, f"http://moving.example:{port}"), "address_refused")


async def test_receivers_leave_no_cookies(receiver: Receiver) -> None:
    receiver.answers(200, headers={"Set-Cookie": "session=1"})
    port = receiver.url.split(":")[2]  # a name: aiohttp's own jar takes no cookies from bare addresses
    async with sender(resolver=StubResolver(["127.0.0.1"])) as sending:
        for _ in range(2):
            assert (await send(sending, f"http://receiver.example:{port}")).status_code == 200
    assert ["cookie" in headers for headers, _ in receiver.got] == [False, False]


async def test_only_the_first_kilobyte_is_kept_and_nothing_unprintable(receiver: Receiver) -> None:
    receiver.answers(500, b"\x1b[31mbad\x00\r\n\tnews \xe2\x80\xae\xff" + "ü".encode() * 5000)
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert report.response_excerpt.startswith("[31mbad news ?üüü")
    assert report.response_excerpt.isprintable()
    assert 900 < len(report.response_excerpt.encode()) <= 1024


async def test_an_endless_answer_is_not_read_on(receiver: Receiver) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        while True:  # ends with the connection
            await response.write(b"x" * 65536)
            sent += 65536

    receiver.answer = endless
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert (report.status_code, report.response_excerpt) == (202, "x" * 1024)
    assert sent < 30_000_000


async def test_compressed_answers_are_not_unpacked(receiver: Receiver) -> None:
    receiver.answers(200, gzip.compress(b"unpacked"), headers={"Content-Encoding": "gzip"})
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert report.status_code == 200
    assert "unpacked" not in report.response_excerpt


async def test_a_status_counts_even_if_its_body_never_ends(receiver: Receiver) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half of it")
        assert request.transport is not None
        request.transport.close()
        return response

    receiver.answer = half
    async with sender() as sending:
        report = await send(sending, receiver.url)
    assert (report.status_code, report.response_excerpt) == (200, "half of it")


# --- what goes wrong ---


async def test_a_receiver_that_is_silent_is_a_timeout(receiver: Receiver) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    receiver.answer = silent
    async with sender(timeout=0.2) as sending:
        report = await send(sending, receiver.url)
    assert failed_as(report, "timeout")
    assert 150 < report.latency_ms < 2000


async def test_nobody_listening_is_a_failed_connection() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        async with sender() as sending:
            report = await send(sending, f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/")
    assert failed_as(report, "connect_failed")


async def test_a_name_without_address_is_a_failed_look_up() -> None:
    async with sender() as sending:
        assert failed_as(await send(sending, "http://nothing.invalid/"), "dns_failed")
        assert failed_as(await send(sending, f"http://{'a' * 64}.example/"), "dns_failed")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 99999]
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_ends_without_an_answer_is_lost(answer: bytes, *, reset: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY[-5:])
        writer.write(answer)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server, sender() as sending:
        report = await send(sending, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert failed_as(report, "connection_lost")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_with_a_private_address_is_refused(receiver: Receiver, address: str) -> None:
    port = receiver.url.split(":")[2]
    async with sender(PUBLIC_ONLY, resolver=StubResolver([address])) as sending:
        assert failed_as(await send(sending, f"http://inside.example:{port}"), "address_refused")
    assert not receiver.got


async def test_a_private_address_in_the_url_is_refused(receiver: Receiver) -> None:
    async with sender(PUBLIC_ONLY) as sending:
        assert failed_as(await send(sending, receiver.url), "address_refused")
    assert not receiver.got


@pytest.mark.parametrize(
    "url", ["http://receiver.example/", "https://u:p@receiver.example/", "https://", "nonsense", "https://a.example/#f"]
)
async def test_a_url_that_would_not_be_accepted_today_is_not_sent_to(url: str) -> None:
    async with sender(allow_http=False, resolver=StubResolver(["127.0.0.1"])) as sending:
        assert failed_as(await send(sending, url), "invalid_url")


# --- TLS ---


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A self-signed certificate for `name`: the server's context, and the file a client would trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private = directory / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file, private)
    return server, file


async def test_tls_is_verified_against_the_name_in_the_url(tmp_path: Path) -> None:
    tls, trusted = certificate(tmp_path, "receiver.example")
    here = StubResolver(["127.0.0.1"])
    receiver = Receiver()
    async with receiving(receiver, tls) as port:
        async with sender(resolver=here, ssl_context=ssl.create_default_context(cafile=trusted)) as sending:
            assert (await send(sending, f"https://receiver.example:{port}/")).status_code == 200
            other = await send(sending, f"https://other.example:{port}/")
        async with sender(resolver=here) as sending:
            stranger = await send(sending, f"https://receiver.example:{port}/")
    assert failed_as(other, "tls_failed")
    assert "other.example" in str(other.error)
    assert failed_as(stranger, "tls_failed")
    assert "self-signed" in str(stranger.error)
    assert len(receiver.got) == 1


async def test_a_plain_server_behind_https_is_a_failed_handshake(receiver: Receiver) -> None:
    async with sender() as sending:
        assert failed_as(await send(sending, receiver.url.replace("http:", "https:")), "tls_failed")


# --- Retry-After ---


async def test_retry_after_is_reported(receiver: Receiver) -> None:
    receiver.answers(503, headers={"Retry-After": "120"})
    async with sender() as sending:
        assert (await send(sending, receiver.url)).retry_after == 120.0


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 13:01:30 +0100", 90.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 12:01:30 -0000", 90.0),
        ("-5", None),
        ("1e3", None),
        ("nan", None),
        ("soon", None),
        ("٣٠", None),
        ("9" * 400, None),
        ("", None),
        ("Thu, 99 Jan 2026 12:01:30 GMT", None),
        ("Thu, 01 Jan 99999999 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOON) == seconds


# --- at acceptance ---


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks/1?token=a%2Fb",
        "https://example.com",
        "HTTPS://Example.COM:8443/",
        "https://bücher.example/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "https://notlocalhost.example/",
        "https://notlocalhost/",
    ],
)
def test_a_good_url_is_accepted(url: str) -> None:
    validate_webhook_url(url, allow_http=False, policy=PUBLIC_ONLY)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "//example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://:password@example.com/",
        "https://@127.0.0.1/",
        "https://example.com/#fragment",
        "https://example.com/#",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://[::1/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Injected: 1",
        "https://example.com/" + "a" * 2030,
        "https://localhost/",
        "https://LOCALHOST./",
        "https://api.localhost/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00:ec2::254]/",
        "https://127。0。0。1/",
    ],
)
def test_a_bad_url_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(PermanentError) as refused:
        validate_webhook_url(url, allow_http=False, policy=PUBLIC_ONLY)
    assert refused.value.code == "invalid_webhook_url"
    assert refused.value.message.startswith("webhook URL ")


def test_plain_http_and_private_ranges_are_accepted_where_allowed() -> None:
    validate_webhook_url("http://127.0.0.1:9000/", allow_http=True, policy=LOOPBACK_TOO)
    validate_webhook_url("http://localhost:9000/", allow_http=True, policy=LOOPBACK_TOO)
    with pytest.raises(PermanentError):
        validate_webhook_url("http://10.0.0.1/", allow_http=True, policy=LOOPBACK_TOO)
