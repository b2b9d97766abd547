"""The webhook sender: one signed POST to an address that a stranger chose, and an honest report of what it met."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import math
import re
import secrets
import ssl
import time
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from darkroom.adapters.addresses import (
    AddressPolicy,
    AddressRefusedError,
    ThreadResolver,
    guarded_connector,
    literal_address,
)
from darkroom.domain.errors import PermanentError
from darkroom.ports import AttemptReport

MAX_URL_LENGTH = 2048
EXCERPT_BYTES = 1024
EXCERPT_SECONDS = 2.0  # the verdict is in the status; nobody waits long for the prose after it


def new_webhook_secret() -> str:
    """Return a fresh secret in the Standard Webhooks form: `whsec_` and the base64 of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def validate_webhook_url(url: str, *, allow_http: bool, policy: AddressPolicy) -> None:
    """Accept a receiver's URL, or raise PermanentError with code `invalid_webhook_url`.

    Looks at the URL only: names are resolved, and their addresses judged, at each sending.
    """
    host = _parsed(url, allow_http=allow_http).raw_host or ""
    literal = literal_address(host)
    if literal is not None and not policy.permits(literal):
        raise _invalid("must not point to a private or reserved address")
    if f".{host.rstrip('.')}".endswith(".localhost") and not policy.permits(IPv4Address("127.0.0.1")):
        raise _invalid("must not point to this machine")


class HttpWebhookSender:
    """Implements `ports.WebhookSender` with aiohttp: a fresh look-up and a fresh connection for every attempt.

    `timeout` is in seconds, for everything from the look-up to the answer's headers. `policy` is applied to the address
    that is connected to. Must be made inside the event loop that uses it, and closed there.
    """

    def __init__(
        self,
        *,
        timeout: float,
        allow_http: bool,
        policy: AddressPolicy,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._allow_http = allow_http
        self._resolver = resolver or ThreadResolver()
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(policy, self._resolver, ssl_context=ssl_context, fresh=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # asyncio.timeout below is the only clock
            auto_decompress=False,  # a kilobyte of gzip is a megabyte of zeros
            headers={"User-Agent": "Darkroom-Webhooks/1", "Accept-Encoding": "identity"},
        )

    async def send(self, url: str, *, secret: str, webhook_id: str, timestamp: datetime, body: bytes) -> AttemptReport:
        """POST once and report. Whatever the receiver or the network does is the report; nothing of it is raised.

        `error` is `address_refused`, `dns_failed`, `connect_failed`, `tls_failed`, `timeout`, `connection_lost` or
        `invalid_url`, then a colon and readable text. `body` is UTF-8 and is sent byte for byte as it was signed.
        """
        headers = _signed_headers(secret, webhook_id, timestamp, body)
        began = time.monotonic()
        try:
            target = _parsed(url, allow_http=self._allow_http)
            async with asyncio.timeout(self._timeout):
                response = await self._session.post(target, data=body, headers=headers, allow_redirects=False)
        except (PermanentError, TimeoutError, aiohttp.ClientError, OSError, ValueError) as fault:
            return AttemptReport(
                status_code=None,
                error=_in_words(fault, self._timeout),
                latency_ms=_milliseconds_since(began),
                response_excerpt="",
                retry_after=None,
            )
        latency_ms = _milliseconds_since(began)
        async with response:
            return AttemptReport(
                status_code=response.status,
                error=None,
                latency_ms=latency_ms,
                response_excerpt=await _excerpt(response),
                retry_after=parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC)),
            )

    async def close(self) -> None:
        """Close the connections. Sends under way end as `connection_lost`."""
        await self._session.close()
        await self._resolver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110: seconds, or a date) as seconds from `now`; None where it is unreadable.

    Never negative, and not capped: how long a receiver may put us off is the retry policy's business.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _signed_headers(secret: str, webhook_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    # standardwebhooks 1.1 signs `timestamp.replace(tzinfo=utc)`, which is another instant for every other zone. The
    # header and the signature are both made from the same whole second, in UTC.
    second = math.floor(timestamp.timestamp())
    signature = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(second, UTC), body.decode())
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(second),
        "webhook-signature": signature,
        "content-type": "application/json",
    }


def _parsed(url: str, *, allow_http: bool) -> yarl.URL:
    """Read the URL with the parser that the request is made with: two parsers are two opinions about the host."""
    if len(url) > MAX_URL_LENGTH:
        raise _invalid(f"must not be longer than {MAX_URL_LENGTH} characters")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _invalid("must not contain spaces or control characters")
    try:
        parsed = yarl.URL(url)
        port = parsed.port
    except ValueError:
        raise _invalid("is not a URL") from None
    if parsed.scheme not in ({"https", "http"} if allow_http else {"https"}):
        raise _invalid("must begin with https://" + (" or http://" if allow_http else ""))
    if not parsed.raw_host or port == 0:
        raise _invalid("must name a host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise _invalid("must not carry credentials")
    if "#" in url:
        raise _invalid("must not have a fragment")
    return parsed


def _invalid(why: str) -> PermanentError:
    return PermanentError(f"webhook URL {why}", code="invalid_webhook_url")


def _in_words(fault: Exception, timeout: float) -> str:
    """Say what happened, without the URL: its query may be the receiver's secret."""
    match fault:
        case AddressRefusedError():
            words = f"address_refused: {fault.message}"
        case PermanentError():
            words = f"invalid_url: {fault.message}"
        case aiohttp.ClientConnectorDNSError():
            words = f"dns_failed: {fault.host} could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            words = f"tls_failed: {_reason(fault)}"
        case aiohttp.ClientConnectorError():
            words = f"connect_failed: {fault.os_error.strerror or 'no connection'}"
        case TimeoutError():
            words = f"timeout: no answer within {timeout:g} s"
        case aiohttp.ClientResponseError():
            words = "connection_lost: the answer was not HTTP"
        case ValueError():  # aiohttp.InvalidURL among others
            words = "invalid_url: no request could be made from it"
        case _:
            words = "connection_lost: closed before an answer came"
    return words


def _reason(fault: aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError) -> str:
    cause = fault.certificate_error if isinstance(fault, aiohttp.ClientConnectorCertificateError) else fault.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "reason", None) or "handshake failed"


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """Return the answer's first bytes as one line of printable text: it is shown in terminals and browsers."""
    start = bytearray()
    try:
        async with asyncio.timeout(EXCERPT_SECONDS):
            while len(start) < EXCERPT_BYTES and (piece := await response.content.readany()):
                start += piece
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # what arrived is what is shown
    text = bytes(start[:EXCERPT_BYTES]).decode("utf-8", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
