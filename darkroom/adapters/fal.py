"""fal's queue, on the fal-client package: one paid POST, and readings that never end a job by themselves.

The only file that imports fal_client. Facts are those of the fal-client 1.0.3 source and fal's queue documentation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import fal_client
import httpx
from fal_client.client import USER_AGENT, AppId

from darkroom.adapters import fal_readings
from darkroom.adapters.fal_answers import Answer, read_rejection
from darkroom.adapters.fal_origins import TrustedOrigins, checked_base_url
from darkroom.adapters.fal_post import PaidPost, UnusualAnswerError
from darkroom.adapters.fal_reader import Reader
from darkroom.domain.errors import ResultGoneError, TransientError, UncertainError
from darkroom.domain.generation import Completed, GenerationStatus, ListedRequest, RequestRef, Verdict

PAGE_SIZE = 100
MAX_PAGES = 1_000


def quiet_http_logs() -> None:
    """Keep httpx, httpcore and fal-client from logging URLs: at INFO httpx logs each one, callback token included."""
    for name in ("httpx", "httpcore", "fal_client"):
        logging.getLogger(name).setLevel(logging.WARNING)


class FalQueue:
    """`darkroom.ports.Generator` for fal. Belongs to the event loop that first uses it; `close()` it there.

    Times are in seconds: `submit_timeout` bounds the POST from connecting to the answer's last byte, `read_timeout`
    each reading. The key is sent to the origins of `queue_url` and `api_url` and to https://*.fal.run, nowhere else;
    no redirect is followed and no proxy of the environment used. `allow_http_hosts` names hosts (`host` or `host:port`)
    that may be plain http beside loopback. Raises ValueError for URLs outside that, and for a key that is no header.
    """

    def __init__(
        self,
        *,
        key: str,
        queue_url: str = "https://queue.fal.run",
        api_url: str = "https://api.fal.ai",
        allow_http_hosts: frozenset[str] = frozenset(),
        submit_timeout: float,
        read_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not key or not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("the fal key is empty or holds characters that no key has")
        self._key = key
        self._queue_url = checked_base_url(queue_url, allow_http_hosts)
        self._api_url = checked_base_url(api_url, allow_http_hosts)
        self._trusted = TrustedOrigins(self._queue_url, self._api_url)
        self._submit_timeout = submit_timeout
        self._headers = {"Authorization": f"Key {key}", "User-Agent": USER_AGENT, "Accept": "application/json"}
        self._clock = clock
        # Loading the CA bundle costs tens of milliseconds: once, for both kinds of connections.
        tls = httpx.create_ssl_context()
        self._fresh = httpx.AsyncHTTPTransport(
            verify=tls, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        self._reader = Reader(
            self._trusted, headers=self._headers, tls=tls, time_limit=read_timeout, secrets=self._secrets(None)
        )

    async def close(self) -> None:
        """Close every connection. Requests under way fail; call it after they are done."""
        await self._reader.close()
        await self._fresh.aclose()

    async def submit(
        self, model: str, arguments: Mapping[str, Any], *, start_timeout: int, callback_url: str | None, send_by: float
    ) -> RequestRef:
        """Send the paid POST, once, on a fresh connection: see `Generator.submit` for the guarantee.

        `start_timeout` (seconds, above 1) is sent under both names that fal has used for it. An answer other than a
        plain acceptance is settled by `_settle`.
        """
        post = PaidPost(
            self._fresh,
            self._queue_url,
            send_by=send_by,
            time_limit=self._submit_timeout,
            secrets=self._secrets(callback_url),
            clock=self._clock,
        )
        async with httpx.AsyncClient(
            transport=post, headers=self._headers, follow_redirects=False, trust_env=False
        ) as http:
            try:
                handle = await _OneHttpClient(http, self._submit_timeout).submit(
                    model,
                    dict(arguments),
                    webhook_url=callback_url,
                    headers={"X-Fal-Request-Start-Timeout": str(start_timeout)},
                    start_timeout=start_timeout,
                )
            except UnusualAnswerError as unusual:
                return await self._settle(model, unusual.answer)
        return self._checked(
            model, handle.request_id, status=handle.status_url, response=handle.response_url, cancel=handle.cancel_url
        )

    async def _settle(self, model: str, answer: Answer) -> RequestRef:
        """What an unusual answer to the POST means.

        With no request id: a rejection where the answer is one, else uncertain. A 2xx with an id is an acceptance. An
        id in any other answer may be a request that runs, or only the label that fal's gateway puts on each answer, a
        429 included; nobody documents which. So its status is read once:

        | the status | 4xx other than 408         | 408, 3xx, 5xx                                     |
        |------------|----------------------------|---------------------------------------------------|
        | known      | accepted: fal has it       | accepted                                          |
        | 404, 410   | rejected, as fal said      | uncertain: a 404 right after the POST is no proof |
        | unreadable | rejected, as fal said      | accepted: the id is the best there is; it is watched |
        """
        rejection = read_rejection(answer)
        request_id = answer.request_id
        if request_id is None:
            raise rejection or _uncertain(answer)
        fields = answer.fields
        ref = self._checked(
            model,
            request_id,
            status=fields.get("status_url"),
            response=fields.get("response_url"),
            cancel=fields.get("cancel_url"),
        )
        if answer.succeeded:
            return ref
        try:
            await self.status(ref)
        except ResultGoneError as gone:
            raise rejection or _uncertain(answer) from gone
        except TransientError:
            if rejection is not None:
                raise rejection from None
        return ref

    async def status(self, ref: RequestRef) -> GenerationStatus:
        """Look once: see `Generator.status`."""
        return fal_readings.read_status(await self._reader.ask("GET", ref.status_url))

    async def result(self, ref: RequestRef, completed: Completed) -> Verdict:
        """Fetch the verdict of a completed request: see `Generator.result` and `fal_readings.read_verdict`."""
        return fal_readings.read_verdict(await self._reader.ask("GET", ref.response_url), completed)

    async def cancel(self, ref: RequestRef) -> bool:
        """Ask fal to stop. False when it was too late (400, 409) or fal knows no such request (404, 410)."""
        answer = await self._reader.ask("PUT", ref.cancel_url)
        if not answer.succeeded and answer.status not in (400, 404, 409, 410):
            raise fal_readings.unreadable(answer)
        return answer.succeeded

    async def list_requests(self, model: str, *, since: datetime, until: datetime) -> list[ListedRequest]:
        """The account's requests between two aware times, to the last page: all of them or an exception.

        Source: fal's platform API, `GET /v1/models/requests/by-endpoint`. Ordered by end time; running ones may be
        missing. Raises BlockedError with code `listing_refused` when the key may not list, TransientError otherwise.
        """
        query = {"endpoint_id": model, "start": _rfc3339(since), "end": _rfc3339(until), "expand": "payloads"}
        query["limit"] = str(PAGE_SIZE)
        found: list[ListedRequest] = []
        cursors: set[str] = set()
        for _ in range(MAX_PAGES):
            answer = await self._reader.ask("GET", f"{self._api_url}/v1/models/requests/by-endpoint", query)
            page, cursor = fal_readings.read_listing(answer)
            found += page
            if cursor is None:
                return found
            if cursor in cursors:
                break
            cursors.add(cursor)
            query["cursor"] = cursor
        raise TransientError("fal's request listing has no end.", code="malformed_listing")

    def parse_output(self, output: Mapping[str, Any]) -> Verdict | None:
        """Read the output payload of a listed request; None when it holds no usable pictures. No units are in it."""
        return fal_readings.read_output(output, None)

    def reference(self, model: str, request_id: str) -> RequestRef:
        """The reference of a request known by its id alone (adopted), built as fal-client's own handles build it.

        The URLs hold the model's owner and app only: one built from the full slug answers 405.
        """
        app = AppId.from_endpoint_id(model)
        path = "/".join(filter(None, (app.namespace, app.owner, app.alias)))
        url = f"{self._queue_url}/{path}/requests/{quote(request_id, safe='')}"
        return RequestRef(request_id, status_url=f"{url}/status", response_url=url, cancel_url=f"{url}/cancel")

    def _checked(self, model: str, request_id: str, *, status: object, response: object, cancel: object) -> RequestRef:
        """The URLs as fal returned them, but built where one is missing or leads where the key must not go."""
        built = self.reference(model, request_id)
        return RequestRef(
            request_id,
            status_url=status if isinstance(status, str) and status in self._trusted else built.status_url,
            response_url=response if isinstance(response, str) and response in self._trusted else built.response_url,
            cancel_url=cancel if isinstance(cancel, str) and cancel in self._trusted else built.cancel_url,
        )

    def _secrets(self, callback_url: str | None) -> list[str]:
        """What must not come back out of an error text: longest first, so that no part is left of a longer one."""
        secrets = {self._key, self._key.partition(":")[2]}
        if callback_url is not None:
            token = callback_url.rstrip("/").rpartition("/")[2]
            secrets |= {callback_url, quote(callback_url, safe=""), token}
        return sorted(filter(None, secrets), key=len, reverse=True)


class _OneHttpClient(fal_client.AsyncClient):
    """fal's client on an httpx client of ours, instead of the one that it makes for itself (it takes no transport)."""

    def __init__(self, http: httpx.AsyncClient, timeout: float) -> None:
        super().__init__(key="held by the httpx client", default_timeout=timeout)
        self._http = http

    @property
    async def _client(self) -> httpx.AsyncClient:
        return self._http


def _uncertain(answer: Answer) -> UncertainError:
    upstream = answer.upstream()
    if answer.request_id is not None:
        upstream["request_id"] = answer.request_id
    message = f"fal answered {answer.status} to the paid request: it may or may not have been taken."
    return UncertainError(message, upstream=upstream)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
