"""Readings on the wire: requests that cost nothing, may be lost, and share a few connections.

On aiohttp, not on the httpx of fal-client's handles: one reading costs 0.12 to 0.18 ms of CPU here and
1.2 to 1.9 ms there (measured with 8 and 64 at a time), each job makes several, and one loop holds all the jobs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from darkroom.adapters.fal_answers import Answer
from darkroom.adapters.fal_origins import TrustedOrigins
from darkroom.domain.errors import TransientError

BODY_LIMIT = 16 * 1024 * 1024
CHUNK = 64 * 1024
CONNECTIONS = 32
# Shorter than any proxy's usual idle limit, so that few readings meet a connection that was closed meanwhile.
KEEPALIVE_SECONDS = 15


class Reader:
    """Asks the trusted origins, and sends `headers`, the key among them, to no other. Belongs to one event loop."""

    def __init__(
        self,
        trusted: TrustedOrigins,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext,
        time_limit: float,
        secrets: Sequence[str],
    ) -> None:
        self._trusted = trusted
        self._headers = headers
        self._tls = tls
        self._time_limit = time_limit
        self._secrets = secrets
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection. Readings under way fail."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, url: str, query: Mapping[str, str] | None = None) -> Answer:
        """One reading, whatever its status; no redirect is followed.

        A broken connection is met by one more try, aiohttp's own (RFC 9112, 9.3.1: what is idempotent may be repeated).
        Raises TransientError when no whole answer came within the time limit (waiting for a free connection counts),
        when it is larger than 16 MiB, and for a URL that is not trusted, where nothing is sent.
        """
        if url not in self._trusted:
            raise TransientError("This request's URL leads away from fal; nothing was sent.", code="fal_url_refused")
        address = URL(url, encoded=True)  # as fal returned it: no character of it is quoted anew
        if query is not None:
            address = address.with_query(query)
        try:
            async with (
                asyncio.timeout(self._time_limit),
                self._opened().request(method, address, allow_redirects=False) as response,
            ):
                body = await _read_limited(response)
        except (aiohttp.ClientError, OSError) as fault:
            raise TransientError("fal could not be reached.", code="fal_unreachable") from fault
        return Answer.read(response.status, response.headers, body, secrets=self._secrets)

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made on first use: aiohttp ties it to the loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=self._tls, ttl_dns_cache=60
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the limit is ours, over all of it
            )
        return self._session


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise TransientError("fal's answer is larger than 16 MiB.", code="answer_too_large")
    return bytes(body)
