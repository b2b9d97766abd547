"""What fal says about one generation request, in our words. Sources: fal-client 1.0.3 and fal's queue documentation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from darkroom.domain.errors import DarkroomError


@dataclass(frozen=True, slots=True)
class RequestRef:
    """fal's name for a request and the URLs it returned for it. Stored as returned, never built."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class InQueue:
    """fal holds the request and has not started it; `position` is how many stand before it, None where not said."""

    position: int | None


@dataclass(frozen=True, slots=True)
class InProgress:
    """A runner works on the request; it will most likely be billed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """fal is done. There is no FAILED status: a failure is COMPLETED with an error, or a result that is not a 2xx."""

    error: str | None = None
    error_type: str | None = None
    inference_seconds: float | None = None


GenerationStatus = InQueue | InProgress | Completed


@dataclass(frozen=True, slots=True)
class MediaRef:
    """An image at fal's media host: public, not promised to stay, fetched without the API key."""

    url: str
    content_type: str | None
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class Generated:
    """fal's verdict: pictures. `billable_units` is X-Fal-Billable-Units (megapixels), None where not sent."""

    media: tuple[MediaRef, ...]
    seed: int | None
    has_nsfw_concepts: tuple[bool, ...]
    billable_units: Decimal | None


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """fal's verdict: no pictures. `error` is a PermanentError (the caller's) or a TransientError (submit again)."""

    error: DarkroomError
    billable_units: Decimal | None


Verdict = Generated | GenerationFailed


@dataclass(frozen=True, slots=True)
class ListedRequest:
    """One item of fal's request listing (by-endpoint), which is ordered by end time and may omit running requests."""

    request_id: str
    sent_at: datetime | None
    ended_at: datetime | None
    status_code: int | None
    input: dict[str, Any] | None
    output: dict[str, Any] | None
