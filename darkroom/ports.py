"""What services need from the outside world. Adapters provide these; tests may provide stand-ins that pass the same suite."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from darkroom.domain.generation import Completed, GenerationStatus, ListedRequest, RequestRef, Verdict


class Generator(Protocol):
    """fal's queue, for one model at a time. Every method has its own time limit and follows no redirects."""

    async def submit(
        self, model: str, arguments: Mapping[str, Any], *, start_timeout: int, callback_url: str | None, send_by: float
    ) -> RequestRef:
        """Send the paid POST, once, on a fresh connection.

        `send_by` is a `time.monotonic()` value: past it nothing is sent (the process was frozen), and TransientError
        with code `not_sent` is raised. Returns the reference when fal took the request. Raises, when fal certainly did
        not take it: PermanentError, RateLimitedError, BlockedError, TransientError. Raises UncertainError in every
        other case: the request may be running and billed.
        """

    async def status(self, ref: RequestRef) -> GenerationStatus:
        """Look once. Raises TransientError for anything unreadable (401, 403, 429 and 5xx included), ResultGoneError on 404/410."""

    async def result(self, ref: RequestRef, completed: Completed) -> Verdict:
        """Fetch the verdict of a completed request, billing header included.

        Raises ResultPendingError when fal says it is not there yet, TransientError for anything that is not fal's own
        word about the generation, ResultGoneError when it has expired.
        """

    async def cancel(self, ref: RequestRef) -> bool:
        """Ask fal to stop. True when fal took the wish (it may still complete and be billed), False when it was too late."""

    async def list_requests(self, model: str, *, since: datetime, until: datetime) -> list[ListedRequest]:
        """The account's requests of that time, read to the last page. Raises TransientError or BlockedError when any page fails."""

    def parse_output(self, output: Mapping[str, Any]) -> Verdict | None:
        """Read the output payload of a listed request; None when it holds no usable pictures."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A verified picture on this machine. `file` is open and at its start; `sha256` is in hex; sizes in bytes and pixels."""

    file: BinaryIO
    size: int
    sha256: str
    content_type: str
    width: int
    height: int
    blank: bool


class MediaFetcher(Protocol):
    """Downloads pictures from fal's media hosts, without the API key."""

    def fetch(self, url: str) -> AbstractAsyncContextManager[Picture]:
        """Stream one picture to this machine and verify it.

        Raises TransientError (network, 5xx, 429), ResultGoneError (404, 410), UnreadableMediaError (truncated, too
        large, not an image, unreadable), PermanentError with code `media_host_refused` (host not on the allow-list, a
        private address behind it, a redirect).
        """


class ArtifactStore(Protocol):
    """The deployment's bucket."""

    async def put_picture(self, key: str, picture: Picture, metadata: Mapping[str, str]) -> None:
        """Upload; a repeat overwrites itself. After return the object is durable. Raises TransientError or BlockedError."""

    async def put_json(self, key: str, document: Mapping[str, Any]) -> None:
        """Upload a JSON document. Raises TransientError or BlockedError."""

    async def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are no error. Raises TransientError or BlockedError."""

    async def check(self) -> None:
        """One cheap look at the bucket. Raises TransientError or BlockedError when pictures could not be stored now."""

    def presign(self, key: str) -> tuple[str, datetime]:
        """A URL that reads the object without credentials (SigV4), and when it expires (UTC). No network."""


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What one delivery attempt met. `error` is set exactly when no HTTP status was received; latency in milliseconds."""

    status_code: int | None
    error: str | None
    latency_ms: int
    response_excerpt: str
    retry_after: float | None


class WebhookSender(Protocol):
    """Sends one signed webhook. Never raises for what the receiver does: that is the report."""

    async def send(self, url: str, *, secret: str, webhook_id: str, timestamp: datetime, body: bytes) -> AttemptReport:
        """POST once, signed (Standard Webhooks), to an address that is checked at the moment of connecting; no redirects."""
