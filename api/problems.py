"""Every error as `application/problem+json` (RFC 9457), with a code of one documented table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from darkroom.domain.errors import (
    BlockedError,
    ConflictError,
    DarkroomError,
    NotFoundError,
    PermanentError,
    RateLimitedError,
    TransientError,
    UnavailableError,
)

MEDIA_TYPE: Final = "application/problem+json"

_RETRY_SECONDS: Final = 2.0
"""For what passes by itself and named no time."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of error. `remedy` is for the caller; `pointer` names the field where it is always the same."""

    status: int
    title: str
    remedy: str
    pointer: str | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "invalid_request": Kind(422, "Invalid request", "Mend what `errors` points to."),
    "invalid_json": Kind(422, "Invalid JSON", "Send one JSON object in UTF-8, at most 64 levels deep."),
    "body_too_large": Kind(413, "Body too large", "Send less; the limit is in `detail`."),
    "unsupported_media_type": Kind(415, "Unsupported media type", "Send a `Content-Type` that this route takes."),
    "unauthorized": Kind(401, "Unauthorized", "Send a valid key: `Authorization: Bearer KEY`."),
    "not_found": Kind(404, "Not found", "There is no such thing, or it belongs to another account."),
    "method_not_allowed": Kind(405, "Method not allowed", "See the `Allow` header."),
    "idempotency_key_invalid": Kind(
        422, "Invalid Idempotency-Key", "Send 1 to 255 printable ASCII characters, quoted or bare."
    ),
    "idempotency_key_reused": Kind(422, "Idempotency-Key reused", "Use a new key for a new request."),
    "model_unknown": Kind(422, "Unknown model", "Leave `model` out, or send fal-ai/krea-2/turbo.", "/model"),
    "invalid_webhook_url": Kind(
        422, "Invalid webhook URL", "Name a public https address, without credentials or fragment.", "/webhook_url"
    ),
    "invalid_cursor": Kind(422, "Invalid cursor", "Use `next_cursor` as it was given, with the same key's account."),
    "job_not_replayable": Kind(409, "Job not replayable", "Only failed and cancelled jobs can be replayed."),
    "charge_not_accepted": Kind(409, "Charge not accepted", 'Send {"accept_charge": true} if paying again is fine.'),
    "job_not_ended": Kind(409, "Job not ended", "Cancel the job first, or wait for its end."),
    "job_deleted": Kind(409, "Job deleted", "Use a new Idempotency-Key to render again."),
    "invalid_upload": Kind(422, "Invalid upload", "Send JSON lines, CSV, or JSON with `items`, in UTF-8."),
    "batch_too_large": Kind(413, "Batch too large", "Send at most 100,000 lines and 256 MB, unpacked, in each batch."),
    "upload_in_progress": Kind(409, "Upload in progress", "Wait for the other upload with this Idempotency-Key."),
    "batch_removed": Kind(409, "Batch removed", "Use a new Idempotency-Key to render again."),
    "batch_state": Kind(409, "Not in this state", "Look at the batch's status first."),
    "budget_used_up": Kind(409, "Budget used up", "Resume with a higher `budget_usd`."),
    "conflict": Kind(409, "Conflict", "Look at the thing's state first."),
    "rate_limited": Kind(429, "Too many requests", "Wait for `Retry-After` seconds."),
    "too_many_waiting": Kind(429, "Too many jobs waiting", "Wait until some of the account's jobs are done."),
    "store_full": Kind(503, "Store full", "Nothing was accepted. Repeat later."),
    "unavailable": Kind(
        503, "Unavailable", "The store of records is away. It may have happened: repeat with the same Idempotency-Key."
    ),
    "storage_unavailable": Kind(503, "Storage unavailable", "The bucket cannot be used now. Nothing was lost; repeat."),
    "callback_unverified": Kind(401, "Callback unverified", "Only fal's own signed callbacks are taken."),
    "callback_keys_unavailable": Kind(503, "Callback keys unavailable", "fal's keys cannot be fetched now. Repeat."),
    "http_error": Kind(400, "HTTP error", "The request is not one that this server answers."),
    "internal": Kind(500, "Internal error", "The fault is ours, and it is in the logs. Nothing is known to be lost."),
}
"""The documented table: docs/errors.md holds the same."""

_CLASSES: Final[tuple[tuple[type[DarkroomError], str], ...]] = (
    (NotFoundError, "not_found"),
    (ConflictError, "conflict"),
    (UnavailableError, "unavailable"),
    (RateLimitedError, "rate_limited"),
    (PermanentError, "invalid_request"),
    (TransientError, "storage_unavailable"),
    (BlockedError, "storage_unavailable"),
)
"""What an error is whose own code is not of this table: adapters have codes of their own."""

_HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class Mistake(BaseModel):
    """One mistake in the request: where (a JSON pointer into the body, or a parameter's name), and what."""

    pointer: str | None = Field(default=None, examples=["/input/num_images"])
    parameter: str | None = Field(default=None, description="A query parameter or header.")
    detail: str = Field(examples=["Input should be less than or equal to 4"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="Where this kind of error is explained.", examples=["/problems/invalid_request"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.", examples=["/v1/jobs"])
    code: str = Field(description="One of the documented table.", examples=["invalid_request"])
    errors: list[Mistake] | None = None


class InvalidRequestError(PermanentError):
    """The request has these mistakes."""

    code = "invalid_request"

    def __init__(self, message: str, mistakes: list[Mistake], *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.mistakes = mistakes


class UnauthorizedError(PermanentError):
    """No key, or not a valid one."""

    code = "unauthorized"


def problem_response(
    request: Request,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    mistakes: list[Mistake] | None = None,
) -> Response:
    """The answer for one error. `status` is the code's own where it is not given."""
    kind = KINDS[code]
    if not mistakes and kind.pointer:
        mistakes = [Mistake(pointer=kind.pointer, detail=detail)]
    status = status or kind.status
    problem = Problem(
        type=f"/problems/{code}",
        title=kind.title,
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=mistakes or None,
    )
    # Escaped to ASCII: a path or a field's name may hold what UTF-8 cannot say.
    body = json.dumps(problem.model_dump(mode="json", exclude_none=True))
    return Response(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every error that leaves the application a problem document. `routes` are the application's own."""
    app.state.routes = routes
    app.add_exception_handler(DarkroomError, _on_darkroom_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_fault)


def code_of(error: DarkroomError) -> str:
    """The table's code for an error: its own where the table has it, else its class's."""
    if error.code in KINDS:
        return error.code
    return next((code for kind, code in _CLASSES if isinstance(error, kind)), "internal")


def sentence(finding: str) -> str:
    """Pydantic's message without its preamble for errors that validators raise."""
    return finding.removeprefix("Value error, ")


async def _on_darkroom_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DarkroomError)
    code = code_of(error)
    headers = dict(getattr(error, "headers", {}))
    if KINDS[code].status in {429, 503}:
        seconds = error.retry_after if isinstance(error, RateLimitedError) and error.retry_after else _RETRY_SECONDS
        headers["Retry-After"] = str(math.ceil(seconds))
    if code == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="darkroom"'
    detail = error.message
    if code == "unavailable":
        detail += "; what was asked may have happened: repeat it with the same Idempotency-Key"
    mistakes = error.mistakes if isinstance(error, InvalidRequestError) else None
    return problem_response(request, code, detail, headers=headers, mistakes=mistakes)


async def _on_invalid_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        Mistake(parameter=".".join(str(part) for part in fault["loc"][1:]) or None, detail=sentence(fault["msg"]))
        for fault in error.errors()
    ]
    # What parameters have against each other is of none of them.
    detail = "; ".join(": ".join(filter(None, (mistake.parameter, mistake.detail))) for mistake in mistakes)
    return problem_response(request, "invalid_request", detail, mistakes=mistakes)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    detail = KINDS["not_found"].remedy if error.status_code == 404 else str(error.detail)
    headers = _allow(request) if error.status_code == 405 else error.headers
    return problem_response(request, code, detail, headers=headers, status=error.status_code)


def _allow(request: Request) -> dict[str, str]:
    """All methods of the path: the router names those of the first route that it met."""
    methods = {
        method
        for route in request.app.state.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods
    }
    return {"Allow": ", ".join(sorted(methods))}


async def _on_fault(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the server logs it
    return problem_response(request, "internal", KINDS["internal"].remedy)


def page(codes: Mapping[str, Kind]) -> str:
    """The table, or one line of it, for a person who followed a problem's `type`."""
    rows = "".join(
        f"<tr id={escape(code)}><td><code>{escape(code)}</code><td>{kind.status} {HTTPStatus(kind.status).phrase}"
        f"<td>{escape(kind.title)}<td>{escape(kind.remedy)}"
        for code, kind in codes.items()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>Darkroom: errors</title>"
        "<style>body{font:16px/1.5 system-ui;margin:2rem}td,th{padding:.3rem 1rem .3rem 0;text-align:left}</style>"
        f"<h1>Errors</h1><table><tr><th>code<th>status<th>title<th>what to do{rows}</table>"
    )
