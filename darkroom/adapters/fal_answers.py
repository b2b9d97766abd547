"""What fal's answers mean, in our errors. Pure: no network, no clock but the one that reads an HTTP date.

The order of the questions about the paid POST's answer is DESIGN.md's: is there a request id, is it a rejection, and
everything else is uncertain. Shapes are those of fal's queue documentation and of fal-client 1.0.3; where reports
differ, every reading is handled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from darkroom.domain.errors import (
    BlockedError,
    DarkroomError,
    PermanentError,
    RateLimitedError,
    TransientError,
)

UPSTREAM_LIMIT = 2_000
MESSAGE_LIMIT = 300
SHOWN_ITEMS = 20
CONTENT_POLICY = "content_policy_violation"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ERROR_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# The scheme's length is bounded, or a long word would take time by its square.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://\S+")
_BALANCE = re.compile(r"balance|credit|billing|payment", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end. Names in `headers` are lower case; `document` is None when there is no JSON."""

    status: int
    headers: Mapping[str, str]
    document: Any
    text: str

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = ()) -> Answer:
        """Decode an answer. In one that is not a success each of `secrets` is blotted out first: errors get shown."""
        text = body.decode("utf-8", "replace")
        if not 200 <= status < 300:
            for secret in secrets:
                text = text.replace(secret, "[secret]")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        return cls(status, {name.lower(): value for name, value in headers.items()}, document, text)

    @property
    def succeeded(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object of the body; empty when it is anything else."""
        return self.document if isinstance(self.document, dict) else {}

    @property
    def request_id(self) -> str | None:
        """The request id, from the body or else the `x-fal-request-id` header; None when absent or unfit for a URL."""
        for found in (self.fields.get("request_id"), self.headers.get("x-fal-request-id")):
            if isinstance(found, str) and _REQUEST_ID.fullmatch(found):
                return found
        return None

    @property
    def error_type(self) -> str | None:
        """What went wrong, in fal's own words. Only fal's servers say it; a proxy in between does not."""
        for found in (self.fields.get("error_type"), self.headers.get("x-fal-error-type")):
            if word := as_code(found):
                return word
        return None

    @property
    def retryable(self) -> bool | None:
        """`X-Fal-Retryable` (in newer text `X-Fal-Needs-Retry`); None when fal does not say."""
        said = self.headers.get("x-fal-retryable") or self.headers.get("x-fal-needs-retry")
        return {"true": True, "1": True, "false": False, "0": False}.get((said or "").strip().lower())

    @property
    def detail(self) -> object:
        """What the body says about an error: `detail`, a list or a string, or the text that stands in its place."""
        for name in ("detail", "error", "message"):
            if self.fields.get(name):
                return self.fields[name]
        return (
            None if self.document is not None or "<" in self.text[:100] else self.text[:UPSTREAM_LIMIT].strip() or None
        )

    def upstream(self) -> dict[str, Any]:
        """The part of the answer that is kept with an error: at most 2 kB, without URLs, without the echoed input."""
        said: dict[str, Any] = {"status": self.status}
        if self.error_type:
            said["error_type"] = self.error_type
        if self.detail is not None:
            said["detail"] = _shown(self.detail)
        retry_after = read_retry_after(self)
        if retry_after is not None:
            said["retry_after"] = retry_after
        return said


def as_code(error_type: object) -> str | None:
    """An error type of fal's that is fit to be a code of ours: a lower-case word; None otherwise."""
    return error_type if isinstance(error_type, str) and _ERROR_TYPE.fullmatch(error_type) else None


def read_rejection(answer: Answer) -> DarkroomError | None:
    """The error of a paid POST that fal certainly did not take; None when the answer does not say so.

    Certain are a 4xx other than 408, and a 5xx in fal's own words that names no request.
    """
    status = answer.status
    if 400 <= status < 500 and status != 408:
        return _refusal(answer)
    if status >= 500 and answer.error_type and answer.request_id is None:
        return TransientError(
            sentence("fal could not take the request", answer.detail),
            code=answer.error_type,
            upstream=answer.upstream(),
        )
    return None


def _refusal(answer: Answer) -> DarkroomError:
    """The error that a 4xx stands for: the operator's, everyone's, a passing one, or else the caller's."""
    if answer.status == 429:
        message = sentence("fal asks to slow down", answer.detail)
        return RateLimitedError(message, retry_after=read_retry_after(answer), upstream=answer.upstream())
    if answer.status in (409, 425):
        return TransientError(sentence("fal could not take it now", answer.detail), upstream=answer.upstream())
    return _operators_error(answer) or input_error(answer)


def _operators_error(answer: Answer) -> BlockedError | None:
    """A 404 or 405 that is not in fal's JSON speaks of a wrong address: it must not fail a whole batch."""
    status, upstream, detail = answer.status, answer.upstream(), answer.detail
    if status == 401:
        return BlockedError("fal refused the API key.", code="fal_key_refused", upstream=upstream)
    if status == 402 or (status == 403 and _BALANCE.search(answer.text)):
        return BlockedError(sentence("fal's balance is used up", detail), code="fal_out_of_balance", upstream=upstream)
    if status == 403:
        return BlockedError(sentence("fal locked the account", detail), code="fal_locked", upstream=upstream)
    if status in (404, 405) and not answer.fields:
        return BlockedError("fal's queue is not at the configured address.", code="fal_misrouted", upstream=upstream)
    return None


def input_error(answer: Answer) -> PermanentError:
    """The verdict on the caller's input, in one readable sentence, with what fal said as `upstream`."""
    if violates_content_policy(answer):
        return PermanentError(
            sentence("fal's content policy refused the request", answer.detail),
            code=CONTENT_POLICY,
            upstream=answer.upstream(),
        )
    return PermanentError(
        sentence("fal refused the input", answer.detail), code="invalid_input", upstream=answer.upstream()
    )


def violates_content_policy(answer: Answer) -> bool:
    """Whether fal named its content policy, as the error's type or as the type of one item of `detail`."""
    items = answer.detail if isinstance(answer.detail, list) else []
    types = {item.get("type") for item in items if isinstance(item, dict) and isinstance(item.get("type"), str)}
    return CONTENT_POLICY in types or answer.error_type == CONTENT_POLICY


def read_retry_after(answer: Answer) -> float | None:
    """`Retry-After` in seconds, never negative; it may be a number or an HTTP date. None when absent or unreadable."""
    said = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", said):
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def sentence(opening: str, detail: object) -> str:
    """One sentence for the job's owner: the opening and what `detail` (list or string) says, cut, without URLs."""
    said = _cut(_plain(_spoken(detail)), MESSAGE_LIMIT).rstrip(". ")
    return f"{opening}: {said}." if said else f"{opening}."


def _spoken(detail: object) -> str:
    if isinstance(detail, list):
        return "; ".join(filter(None, map(_spoken_item, detail[:SHOWN_ITEMS])))
    return _spoken_item(detail)


def _spoken_item(detail: object) -> str:
    if isinstance(detail, dict):
        loc = detail.get("loc")
        steps = (
            [str(step) for step in loc if isinstance(step, str | int) and step != "body"]
            if isinstance(loc, list)
            else []
        )
        said = (detail.get(name) for name in ("msg", "message", "type"))
        message = next((text for text in said if isinstance(text, str) and text), "")
        return f"{'.'.join(steps)}: {message}" if steps else message
    return detail if isinstance(detail, str) else ""


def _shown(detail: object) -> object:
    """`detail` as it may be kept: known keys of each item, no URL, cut to the limit."""
    if isinstance(detail, list):
        kept = [_item(item) for item in detail[:SHOWN_ITEMS]]
        while kept and len(json.dumps(kept)) > UPSTREAM_LIMIT:
            kept.pop()
        return kept
    return _cut(_plain(_spoken(detail)), UPSTREAM_LIMIT)


def _item(item: object) -> object:
    """One item of a validation error, without `input` (what was sent, again) and `url` (fal's documentation)."""
    if not isinstance(item, dict):
        return _cut(_plain(_spoken_item(item)), MESSAGE_LIMIT)
    kept: dict[str, object] = {}
    if isinstance(item.get("loc"), list):
        steps = [step for step in item["loc"][:10] if isinstance(step, str | int)]
        kept["loc"] = [_cut(_plain(step), 100) if isinstance(step, str) else step for step in steps]
    for name in ("type", "msg"):
        if isinstance(item.get(name), str):
            kept[name] = _cut(_plain(item[name]), MESSAGE_LIMIT)
    return kept


def _plain(text: str) -> str:
    return " ".join(_URL.sub("[url]", text[: 5 * UPSTREAM_LIMIT]).split())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
