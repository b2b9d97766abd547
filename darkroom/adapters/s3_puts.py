"""Storing whole objects over aiohttp, on the event loop: signed by boto3's signer, sent without its machinery.

Every picture of a batch is three objects, and `put_object` takes 3 ms of CPU and a thread for each; this takes 0.7 ms.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import BinaryIO, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl
from botocore.httpsession import get_cert_path

_TRIES: Final = 3
_FIRST_WAIT_SECONDS: Final = 0.2
_PIECE: Final = 256 * 1024
_ANSWER_BYTES: Final = 64 * 1024
_CODE: Final = re.compile(rb"<Code>([^<]{1,100})</Code>")
_PASSING: Final = frozenset({"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError"})

Sign = Callable[[], tuple[str, Mapping[str, str]]]
"""URL and headers of the PUT, signed now: a signature ages."""


class PutRefusedError(Exception):
    """S3 answered something other than 200."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code or status)
        self.status = status
        self.code = code


class ObjectPuts:
    """PUTs to one endpoint. Times in seconds and per try; a PUT is tried three times, as boto3 does."""

    def __init__(self, *, connections: int, connect_timeout: float, read_timeout: float) -> None:
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=read_timeout, ceil_threshold=60
        )
        self._session: aiohttp.ClientSession | None = None

    async def put(self, sign: Sign, body: BinaryIO, size: int) -> None:
        """Store the body, from its start. Raises PutRefusedError, aiohttp.ClientError, TimeoutError, OSError."""
        for number in range(_TRIES):
            try:
                await self._try(sign, body, size)
            except PutRefusedError as refused:
                if number == _TRIES - 1 or not (refused.status >= 500 or refused.code in _PASSING):
                    raise
            except (aiohttp.ClientError, TimeoutError, OSError):
                if number == _TRIES - 1:
                    raise
            else:
                return
            await asyncio.sleep(random.uniform(0, _FIRST_WAIT_SECONDS * 2**number))  # noqa: S311 - jitter

    async def close(self) -> None:
        """Close the connections. What is under way fails."""
        if self._session is not None:
            await self._session.close()

    async def _try(self, sign: Sign, body: BinaryIO, size: int) -> None:
        url, headers = sign()
        target = yarl.URL(url, encoded=True)
        async with self._http(target).put(
            target,
            headers={**headers, "Content-Length": str(size)},
            data=_pieces(body),
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                code = _CODE.search(await answer.content.read(_ANSWER_BYTES))
                raise PutRefusedError(answer.status, code[1].decode(errors="replace") if code else "")
            await answer.read()  # so that the connection can serve the next

    def _http(self, target: yarl.URL) -> aiohttp.ClientSession:
        if self._session is None:
            tls = ssl.create_default_context(cafile=get_cert_path(True))  # noqa: FBT003 - as boto3 asks it
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=tls),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(target),  # trust_env would look for it anew, in a thread, for every object
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            )
        return self._session


def _proxy(target: yarl.URL) -> str | None:
    """The environment's, as boto3 has it."""
    return None if proxy_bypass(target.host or "") else getproxies().get(target.scheme)


async def _pieces(body: BinaryIO) -> AsyncIterator[bytes]:
    body.seek(0)
    while piece := body.read(_PIECE):
        yield piece
