"""Every fault the program knows, in one tree. Policy looks at these classes only, never at a vendor's codes.

DarkroomError
├── TransientError        passes by itself; try again with backoff
│   ├── NotSentError          nothing left this machine
│   └── ResultPendingError    fal says that the result is not there yet
├── RateLimitedError      everyone slows down; costs no attempt
├── PermanentError        the caller's: trying again changes nothing
├── BlockedError          the operator's: a refused key, an empty balance, a missing bucket; everything waits
├── UncertainError        a paid POST whose outcome nobody knows; reconciled, never repeated
├── ResultGoneError       fal no longer knows the request or its result
├── UnreadableMediaError  bytes arrived and are not the picture they should be; tried again a bounded number of times
├── NotFoundError         no such thing, or another account's
├── ConflictError         the thing is not in a state in which this can be done
└── UnavailableError      the store of records is away; nothing can be said about what was asked
"""

from __future__ import annotations

from typing import Any


class DarkroomError(Exception):
    """Something went wrong that the program has a word for.

    `code` is one of the documented table, `message` is readable by the job's owner, `upstream` is what the other
    side said (never a secret, never a URL that carries one).
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, upstream: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.upstream = upstream


class TransientError(DarkroomError):
    """Passes by itself; try again with backoff."""

    code = "upstream_unavailable"


class NotSentError(TransientError):
    """Nothing left this machine: no connection came about, or it was too late to send. No job is to blame."""

    code = "fal_unreachable"


class ResultPendingError(TransientError):
    """fal says that the result is not there yet. Never a final failure (fal-protocol: 400 or 202 before completion)."""

    code = "result_pending"


class RateLimitedError(DarkroomError):
    """Everyone slows down; costs no attempt. `retry_after` is in seconds, None when the other side named no time."""

    code = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        upstream: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, upstream=upstream)
        self.retry_after = retry_after


class PermanentError(DarkroomError):
    """The caller's: trying the same again changes nothing."""

    code = "rejected_by_fal"


class BlockedError(DarkroomError):
    """The operator's: a refused key, an empty balance, a missing bucket. Nothing fails, everything waits."""

    code = "blocked"


class UncertainError(DarkroomError):
    """A paid POST whose outcome nobody knows. It is reconciled, never repeated."""

    code = "outcome_unknown"


class ResultGoneError(DarkroomError):
    """fal no longer knows the request or its result (kept 1 hour, 6 minutes from 10 KB on)."""

    code = "result_lost"


class UnreadableMediaError(DarkroomError):
    """Bytes arrived and are not the picture they should be: truncated, not an image, the wrong size."""

    code = "artifact_unreadable"


class NotFoundError(DarkroomError):
    """No such thing, or another account's: the two are not to be told apart."""

    code = "not_found"


class ConflictError(DarkroomError):
    """The thing exists, and is not in a state in which this can be done."""

    code = "conflict"


class UnavailableError(DarkroomError):
    """The store of records is away: what was asked may or may not have happened. Repeat with the same key."""

    code = "unavailable"
