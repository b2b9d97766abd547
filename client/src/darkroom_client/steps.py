"""What an operation may ask of the outside world, and how its answers are read. No I/O happens here.

An operation is a generator: it yields steps, is sent their outcome, and returns its result. The two transports
(transport.py) carry steps out, one blocking and one awaiting; everything worth getting right is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from darkroom_client.errors import (
    BY_STATUS,
    DarkroomError,
    Mistake,
    ServerError,
    UnexpectedAnswerError,
    UnreachableError,
)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is sent in pieces and never held as a whole. `pieces` begins it anew, so that it can be repeated."""

    content_type: str
    pieces: Callable[[], Iterator[bytes]]
    gzipped: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What tells the API how to read it."""
        return {"Content-Type": self.content_type} | ({"Content-Encoding": "gzip"} if self.gzipped else {})


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the API, sent with the key. Its body is `json`, or an `upload` that is sent from its start.

    `repeatable`: sending it twice does what sending it once does, so a lost answer may be followed by a repeat.
    `timeout` is the longest silence in seconds.
    """

    method: str
    path: str
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    upload: Upload | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Fetch:
    """One GET of a signed URL, sent without the key: it goes to the bucket, not to the API."""

    url: str
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A good answer whose body is still to be read. The one opened before is closed."""


@dataclass(frozen=True, slots=True)
class Send:
    """Outcome: Answer, or the httpx.RequestError that was met."""

    call: Call


@dataclass(frozen=True, slots=True)
class Open:
    """Outcome: Opened where the status is 200; else Answer, or the httpx.RequestError that was met."""

    call: Call | Fetch


@dataclass(frozen=True, slots=True)
class Read:
    """Outcome: the next bytes of what is open, b"" at its end, or the httpx.RequestError that was met."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Outcome: None, after that many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """Reads from the disk for a while, without a connection. Outcome: what the function returns."""

    function: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Together(Generic[T]):
    """Runs operations of their own, so many at a time. Outcome: None, when all are through.

    What one of them raises ends the others at their next step, and is raised.
    """

    plans: Sequence[Plan[T]]
    limit: int


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hands an item of a stream to the caller. Outcome: None, when the caller wants the next."""

    item: T


Step = Send | Open | Read | Sleep | Work[Any] | Together[Any]
Outcome = Any
"""What a step brings back: see each."""

Plan = Generator[Step, Any, T]
"""An operation that returns one thing."""

Stream = Generator[Step | Emit[T], Any, None]
"""An operation that returns things one after another."""


def fault_of(outcome: Answer | httpx.RequestError) -> DarkroomError | None:
    """What is wrong with an outcome, as our own error; None for a 2xx."""
    if isinstance(outcome, httpx.RequestError):
        return UnreachableError(_silence(outcome))
    if 200 <= outcome.status < 300:
        return None
    if 300 <= outcome.status < 400:  # never followed: the key is for one server only
        return UnexpectedAnswerError(f"redirected (HTTP {outcome.status}): DARKROOM_URL must name the API itself")
    problem = _problem(outcome.body)
    kind = BY_STATUS.get(outcome.status, ServerError)
    return kind(
        str(problem.get("detail") or problem.get("title") or f"HTTP status {outcome.status}"),
        status=outcome.status,
        code=str(problem.get("code") or "http_error"),
        title=str(problem.get("title") or ""),
        errors=_mistakes(problem.get("errors")),
        retry_after=retry_after(outcome.headers),
    )


def read(model: type[M], body: bytes) -> M:
    """The body as that model. Raises UnexpectedAnswerError."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswerError(
            f"the answer is not a {model.__name__} of Darkroom's API ({where or 'body'}: {first['msg']})"
        ) from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now that `Retry-After` asks for, given as a number or as a date; None where it cannot be read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _silence(error: httpx.RequestError) -> str:
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"no connection: {reason}"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer in time ({type(error).__name__})"
    return f"the connection broke: {reason}"


def _problem(body: bytes) -> dict[str, Any]:
    """A problem document (RFC 9457), or nothing: a proxy's error page says nothing worth showing."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _mistakes(listed: object) -> list[Mistake]:
    entries = listed if isinstance(listed, list) else []
    return [
        Mistake(detail=str(entry.get("detail", "")), pointer=entry.get("pointer"), parameter=entry.get("parameter"))
        for entry in entries
        if isinstance(entry, dict)
    ]
