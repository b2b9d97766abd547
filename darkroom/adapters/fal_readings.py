"""What fal says about a request that it took: its status, its verdict, its pictures, its line in the listing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from darkroom.adapters.fal_answers import Answer, as_code, input_error, sentence, violates_content_policy
from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    ResultGoneError,
    ResultPendingError,
    TransientError,
)
from darkroom.domain.generation import (
    Completed,
    Generated,
    GenerationFailed,
    GenerationStatus,
    InProgress,
    InQueue,
    ListedRequest,
    MediaRef,
    Verdict,
)

# Runner's statuses that are a word about the input. Others (405, 409, ...) speak of the way to the result: a wrong
# reading of those would throw away a picture that was paid for.
INPUT_STATUSES = frozenset({400, 413, 415, 422})
# These speak of our reading, whatever became of the request.
OF_THE_READING = frozenset({401, 403, 405, 408, 429})
PERMANENT_TYPES = frozenset({"content_policy_violation", "bad_request"})
# On a 504 whose request did not start in time; its value says whose limit it was.
TIMEOUT_HEADER = "x-fal-request-timeout-type"
# fal documents none of these (there is no FAILED), but a request that ended must not be watched for ever.
ENDED_BADLY = frozenset({"CANCELLED", "CANCELED", "FAILED", "ERROR"})


def read_status(answer: Answer) -> GenerationStatus:
    """One look at a request: 202 or 200 with `status`; queue_position, logs and metrics may be missing.

    Raises ResultGoneError on 404 and 410, TransientError for everything else that is no status.
    """
    if answer.status in (404, 410):
        raise ResultGoneError("fal does not know this request any more.", upstream=answer.upstream())
    if not answer.succeeded:
        raise unreadable(answer)
    fields = answer.fields
    match fields.get("status"):
        case "IN_QUEUE":
            position = fields.get("queue_position")
            return InQueue(position if _is_int(position) else None)
        case "IN_PROGRESS":
            return InProgress()
        case "COMPLETED":
            return Completed(_text(fields.get("error")), _text(fields.get("error_type")), _inference_seconds(fields))
        case str(ended) if ended in ENDED_BADLY:
            error = _text(fields.get("error")) or f"the request ended as {ended.lower()}"
            return Completed(error, _text(fields.get("error_type")) or ended.lower(), _inference_seconds(fields))
        case _:
            raise TransientError("fal's status could not be read.", code="malformed_status")


def read_verdict(answer: Answer, completed: Completed) -> Verdict:
    """What the result's answer says about a completed request.

    A verdict is: pictures; a refused input (400, 413, 415, 422); a 5xx that carries fal's `error_type` or its timeout
    header; any answer about the request after a COMPLETED with an error. Otherwise a bare 5xx comes from something in
    between and is no verdict: taking it for one would pay for the picture again. Raises ResultPendingError for
    202 and for 400 "still in progress" (reports differ), ResultGoneError for 404 and 410, TransientError
    for the rest, with code `malformed_result` when a success holds no usable pictures.
    """
    units = read_billable_units(answer)
    failed = completed.error is not None or completed.error_type is not None
    if answer.succeeded and answer.status != 202:
        generated = read_output(answer.document, units)
        if generated is not None:
            return generated
        if failed:
            return GenerationFailed(_generation_error(answer, completed), units)
        raise TransientError("fal's result holds no usable pictures.", code="malformed_result")
    if answer.status == 202 or (answer.status == 400 and "in progress" in answer.text.lower()):
        raise ResultPendingError("fal says that the result is not there yet.")
    spoken = answer.error_type or TIMEOUT_HEADER in answer.headers
    if answer.status in INPUT_STATUSES or (answer.status >= 500 and spoken):
        return GenerationFailed(_generation_error(answer, completed), units)
    if failed and answer.status >= 400 and answer.status not in OF_THE_READING:
        return GenerationFailed(_generation_error(answer, completed), units)
    if answer.status in (404, 410):
        raise ResultGoneError("fal does not have this result any more.", upstream=answer.upstream())
    raise unreadable(answer)


def read_output(output: object, billable_units: Decimal | None) -> Generated | None:
    """The pictures of a result's JSON; None unless there is at least one and every one has a URL."""
    if not isinstance(output, Mapping) or not isinstance(output.get("images"), list):
        return None
    media = tuple(_media(image) for image in output["images"])
    usable = tuple(item for item in media if item is not None)
    if not usable or len(usable) < len(media):
        return None
    seed, flags = output.get("seed"), output.get("has_nsfw_concepts")
    nsfw = tuple(flag is True for flag in flags) if isinstance(flags, list) else ()
    return Generated(usable, seed if _is_int(seed) else None, nsfw, billable_units)


def read_billable_units(answer: Answer) -> Decimal | None:
    """`X-Fal-Billable-Units` (megapixels); None when absent or not a number of zero or more."""
    try:
        units = Decimal(answer.headers.get("x-fal-billable-units", "").strip())
    except InvalidOperation:
        return None
    return units if units.is_finite() and units >= 0 else None


def read_listing(answer: Answer) -> tuple[list[ListedRequest], str | None]:
    """One page of the request listing and the cursor of the next; None after the last page.

    A page that cannot be read in full raises: what is missing from a listing is proof of absence. Raises BlockedError
    with code `listing_refused` on 401 and 403, TransientError otherwise.
    """
    if answer.status in (401, 403):
        raise BlockedError("fal refused the request listing.", code="listing_refused", upstream=answer.upstream())
    if not answer.succeeded:
        raise unreadable(answer)
    fields = answer.fields
    items = next((fields[name] for name in ("items", "requests", "data") if isinstance(fields.get(name), list)), None)
    cursor = fields.get("next_cursor")
    if items is None or not (cursor is None or isinstance(cursor, str)) or (fields.get("has_more") and not cursor):
        raise TransientError("fal's request listing could not be read.", code="malformed_listing")
    return [_listed(item) for item in items], cursor or None


def unreadable(answer: Answer) -> TransientError:
    """The error of a reading that failed. It never ends a job: the work is running and paid for."""
    return TransientError(f"fal answered {answer.status} to a reading.", upstream=answer.upstream())


def _generation_error(answer: Answer, completed: Completed) -> DarkroomError:
    """Permanent for a refused input, for the types that mean one, and for a 5xx that fal marks as not worth a retry."""
    if answer.status in INPUT_STATUSES or violates_content_policy(answer):
        return input_error(answer)
    detail = completed.error if answer.succeeded or not answer.detail else answer.detail
    message = sentence("fal could not generate the pictures", detail)
    unnamed = "request_timeout" if TIMEOUT_HEADER in answer.headers else "generation_failed"
    code = answer.error_type or as_code(completed.error_type) or unnamed
    permanent = code in PERMANENT_TYPES or (answer.status >= 500 and answer.retryable is False)
    kind = PermanentError if permanent else TransientError
    return kind(message, code=code, upstream=answer.upstream())


def _media(image: object) -> MediaRef | None:
    if not isinstance(image, Mapping) or not isinstance(image.get("url"), str) or not image["url"]:
        return None
    width, height = image.get("width"), image.get("height")
    return MediaRef(
        image["url"],
        _text(image.get("content_type")),
        width if _is_int(width) else None,
        height if _is_int(height) else None,
    )


def _listed(item: object) -> ListedRequest:
    if not isinstance(item, Mapping) or not isinstance(item.get("request_id"), str):
        raise TransientError("fal's request listing holds an item without an id.", code="malformed_listing")
    status = item.get("status_code")
    return ListedRequest(
        item["request_id"],
        _moment(item.get("sent_at")),
        _moment(item.get("ended_at")),
        status if _is_int(status) else None,
        _object(item.get("json_input", item.get("input"))),
        _object(item.get("json_output", item.get("output"))),
    )


def _object(value: object) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _inference_seconds(fields: Mapping[str, Any]) -> float | None:
    metrics = fields.get("metrics")
    seconds = metrics.get("inference_time") if isinstance(metrics, Mapping) else None
    return float(seconds) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None


def _text(value: object) -> str | None:
    """A non-empty string, or the JSON of whatever else stands where one belongs; None for nothing."""
    if value is None or value == "" or value is False:
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
