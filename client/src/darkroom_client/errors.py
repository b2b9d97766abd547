"""Everything that can go wrong, in one tree.

DarkroomError
├── MisuseError            the client was given what cannot be used; nothing was sent
├── UnreachableError       no answer came, however often it was tried
├── UnexpectedAnswerError  something answered that does not speak Darkroom's API
├── ApiError               the API refused; says why
│   ├── InvalidRequestError    400, 413, 415, 422: mend what `errors` points to
│   ├── UnauthorizedError      401, 403
│   ├── NotFoundError          404
│   ├── ConflictError          409: the thing is not in a state in which this can be done
│   ├── RateLimitedError       429: wait for `retry_after` seconds
│   ├── UnavailableError       502, 503, 504: passes by itself
│   └── ServerError            500 and the rest
├── WaitTimeoutError       the job or batch has not ended in the time given; it goes on
├── DownloadError          a picture or a file did not arrive
│   ├── IntegrityError         it did, and is not what was named
│   └── UnsafePathError        it would have been written outside of its directory
└── WebhookInvalidError    not signed with this secret, too old, or not readable
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from darkroom_client.batch_models import Batch
    from darkroom_client.models import Job


class DarkroomError(Exception):
    """Anything this package raises on purpose. `message` is for people and never holds a key or a signed URL."""

    retry_after: float | None = None
    """Seconds that the other side asked to wait; None when it did not say."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class MisuseError(DarkroomError, ValueError):
    """The client was given what cannot be used (no API key, a URL that is none). Nothing was sent."""


class UnreachableError(DarkroomError):
    """No answer came, however often it was tried: what was asked may or may not have happened."""


class UnexpectedAnswerError(DarkroomError):
    """Something answered that does not speak Darkroom's API, such as a proxy or another server."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a request: a JSON pointer into the body or a parameter's name, and what is wrong there."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class ApiError(DarkroomError):
    """The API refused. `code` is one of its documented table, `errors` the mistakes in the request."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        title: str = "",
        errors: Sequence[Mistake] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.title = title
        self.errors = tuple(errors)
        self.retry_after = retry_after


class InvalidRequestError(ApiError):
    """The request has mistakes: the same again would be refused again."""


class UnauthorizedError(ApiError):
    """No key, or not a valid one."""


class NotFoundError(ApiError):
    """There is no such thing, or it belongs to another account."""


class ConflictError(ApiError):
    """The thing exists, and is not in a state in which this can be done."""


class RateLimitedError(ApiError):
    """Too much was asked. `retry_after` says in how many seconds it may be asked again."""


class UnavailableError(ApiError):
    """The service is away for now. What was asked may have happened."""


class ServerError(ApiError):
    """The fault is the service's."""


class WaitTimeoutError(DarkroomError):
    """It has not ended in the time given. It goes on; `job` or `batch` is how it was last seen (None: not once)."""

    def __init__(self, message: str, job: Job | None = None, batch: Batch | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.batch = batch


class DownloadError(DarkroomError):
    """A picture or a file did not arrive. `passing`: trying again may help. `status`: the bucket's, if it answered."""

    def __init__(self, message: str, *, passing: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class IntegrityError(DownloadError):
    """What arrived has another length or SHA-256 than was named. Nothing of it was kept."""


class UnsafePathError(DownloadError):
    """The place that was named for it is not inside of the directory. Nothing was written there."""


class WebhookInvalidError(DarkroomError):
    """Not signed with this secret, too old, or not readable: do not believe it."""


BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
"""Which error a status is; ServerError where it is not named."""
