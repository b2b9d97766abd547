"""What the API can do, one operation each: what is sent, and what comes back.

Every operation is a plan (steps.py): `Client` runs it blocking, `AsyncClient` awaits it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from darkroom_client.errors import MisuseError
from darkroom_client.event_models import Event
from darkroom_client.models import (
    Delivery,
    DeliveryStatus,
    Job,
    JobStatus,
    Lane,
    Listed,
    Readiness,
    Stage,
    Usage,
    WebhookSecret,
)
from darkroom_client.patience import Patience, ask
from darkroom_client.steps import Call, Emit, Plan, Stream, read

PREFER_WAIT_MAX: Final = 60
"""Seconds that the API lets one request wait."""

SLACK: Final = 15.0
"""Seconds of silence that are borne beyond what a request asks to wait."""

# jobs -----------------------------------------------------------------------------------------------------------------


def create_job(  # noqa: PLR0913 - by name: the fields of the request and of the model's input
    patience: Patience,
    prompt: str | None = None,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name for it
    seed: int | None = None,
    image_size: str | Mapping[str, int] | None = None,
    num_images: int | None = None,
    acceleration: str | None = None,
    output_format: str | None = None,
    enable_safety_checker: bool | None = None,
    model: str | None = None,
    lane: Lane | None = None,
    webhook_url: str | None = None,
    metadata: Mapping[str, str] | None = None,
    deadline_seconds: int | None = None,
    idempotency_key: str | None = None,
    wait: int | None = None,
) -> Plan[Job]:
    """Ask for a picture; returns the accepted job, which will end in succeeded, failed or cancelled.

    Give either a prompt (with the model's other fields) or `input`, the model's whole input. Repeating with the same
    `idempotency_key` gives the same job: one is generated per call, so that the call itself is safe to retry. Give your
    own to be safe across restarts of your program too.

    Args:
        patience: set by the client.
        prompt: what the picture shows.
        input: the model's whole input, instead of prompt, seed, image_size, …
        seed: image i uses seed + i; drawn when not given.
        image_size: a preset such as "landscape_16_9", or {"width": 1024, "height": 768}.
        num_images: 1 to 4.
        acceleration: "none" or "regular".
        output_format: "png" or "jpeg".
        enable_safety_checker: on unless False.
        model: fal-ai/krea-2/turbo unless given.
        lane: "interactive" (default) goes before all "bulk".
        webhook_url: told when the job ends.
        metadata: up to 16 strings of yours that come back with the job.
        deadline_seconds: from acceptance; ends the job only while nothing was paid.
        idempotency_key: 1 to 255 printable ASCII characters.
        wait: seconds, at most 60, to wait for the end before answering; see `jobs.wait` for longer.

    Raises:
        MisuseError: both or neither of prompt and input.
        ApiError: refused; see its subclasses.
        UnreachableError: no answer came. The job may exist: repeat with the same idempotency_key, if you gave one.
    """
    fields = {
        "prompt": prompt,
        "seed": seed,
        "image_size": image_size,
        "num_images": num_images,
        "acceleration": acceleration,
        "output_format": output_format,
        "enable_safety_checker": enable_safety_checker,
    }
    extras = {
        "model": model,
        "lane": lane,
        "webhook_url": webhook_url,
        "metadata": metadata,
        "deadline_seconds": deadline_seconds,
    }
    headers = {"Idempotency-Key": checked_key(idempotency_key) if idempotency_key is not None else str(uuid.uuid4())}
    if wait:
        headers["Prefer"] = f"wait={min(wait, PREFER_WAIT_MAX)}"
    call = Call(
        "POST",
        "/v1/jobs",
        json={"input": _input(input, _given(fields)), **_given(extras)},
        headers=headers,
        timeout=min(wait or 0, PREFER_WAIT_MAX) + SLACK * 2,
    )
    answer = yield from ask(patience, call)
    return read(Job, answer.body)


def get_job(patience: Patience, job_id: str, *, wait: int = 0) -> Plan[Job]:
    """One job. With `wait` (seconds, at most 60) the answer comes when it has ended, or after that time as it is."""
    seconds = min(wait, PREFER_WAIT_MAX)
    call = Call("GET", route("/v1/jobs/{}", job_id), query={"wait": seconds or None}, timeout=seconds + SLACK)
    answer = yield from ask(patience, call)
    return read(Job, answer.body)


def list_jobs(
    patience: Patience,
    *,
    status: JobStatus | None = None,
    stage: Stage | None = None,
    lane: Lane | None = None,
    batch_id: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    page_size: int = 100,
) -> Stream[Job]:
    """Jobs, newest first, page by page as they are asked for. Moments must be aware of their time zone."""
    query: dict[str, str | int | None] = {
        "status": status,
        "stage": stage,
        "lane": lane,
        "batch_id": batch_id,
        "created_after": created_after.isoformat() if created_after else None,
        "created_before": created_before.isoformat() if created_before else None,
        "limit": page_size,
    }
    while True:
        answer = yield from ask(patience, Call("GET", "/v1/jobs", query=query))
        page = read(Listed[Job], answer.body)
        for job in page.data:
            yield Emit(job)
        if not page.has_more or page.next_cursor is None:
            return
        query["cursor"] = page.next_cursor


def cancel_job(patience: Patience, job_id: str) -> Plan[Job]:
    """Ask that a job ends; repeatable. What fal is working on may still complete: its pictures are kept then."""
    answer = yield from ask(patience, Call("POST", route("/v1/jobs/{}/cancel", job_id)))
    return read(Job, answer.body)


def replay_job(patience: Patience, job_id: str, *, accept_charge: bool = False) -> Plan[Job]:
    """Give a failed or cancelled job a new life. What was paid is resumed, not paid again.

    Not repeated when its answer was lost: the job may have run, and ended, in between.

    Raises:
        ConflictError: `charge_not_accepted` where it may cost again and accept_charge is not True;
            `job_not_replayable` for what is neither failed nor cancelled.
        UnreachableError: it may have happened: look at the job first.
    """
    call = Call("POST", route("/v1/jobs/{}/replay", job_id), json={"accept_charge": accept_charge}, repeatable=False)
    answer = yield from ask(patience, call)
    return read(Job, answer.body)


def delete_job(patience: Patience, job_id: str) -> Plan[None]:
    """Delete an ended job and its pictures. Raises ConflictError while it has not ended."""
    yield from ask(patience, Call("DELETE", route("/v1/jobs/{}", job_id)))


def events_path(job_id: str) -> str:
    """Where the API streams the changes of one job."""
    return route("/v1/jobs/{}/events", job_id)


# the account ----------------------------------------------------------------------------------------------------------


def list_events(patience: Patience, *, after: int = 0, page_size: int = 100) -> Stream[Event]:
    """The account's log, oldest first, up to now. To catch up later: `after` the last event's `seq`."""
    cursor = str(after)
    while True:
        answer = yield from ask(patience, Call("GET", "/v1/events", query={"cursor": cursor, "limit": page_size}))
        page = read(Listed[Event], answer.body)
        for event in page.data:
            yield Emit(event)
        if not page.has_more or page.next_cursor is None:
            return
        cursor = page.next_cursor


def list_deliveries(
    patience: Patience, *, job_id: str | None = None, status: DeliveryStatus | None = None
) -> Plan[list[Delivery]]:
    """The newest deliveries of webhooks, at most 100, each with all its attempts."""
    answer = yield from ask(patience, Call("GET", "/v1/deliveries", query={"job_id": job_id, "status": status}))
    return read(Listed[Delivery], answer.body).data


def redeliver(patience: Patience, delivery_id: str) -> Plan[Delivery]:
    """Send an event once more, under the same webhook-id."""
    answer = yield from ask(patience, Call("POST", route("/v1/deliveries/{}/redeliver", delivery_id)))
    return read(Delivery, answer.body)


def get_usage(patience: Patience, *, first_day: date | None = None, last_day: date | None = None) -> Plan[Usage]:
    """Jobs, pictures and spend per day (UTC, both included); the last 30 days unless given."""
    query = {
        "from": first_day.isoformat() if first_day else None,
        "to": last_day.isoformat() if last_day else None,
    }
    answer = yield from ask(patience, Call("GET", "/v1/usage", query=query))
    return read(Usage, answer.body)


def get_readiness(patience: Patience) -> Plan[Readiness]:
    """What makes all jobs wait now, if anything. Raises UnavailableError while the store of records is away."""
    answer = yield from ask(patience, Call("GET", "/readyz"))
    return read(Readiness, answer.body)


def get_webhook_secret(patience: Patience) -> Plan[str]:
    """What the account's webhooks are signed with, for `verify_webhook`."""
    answer = yield from ask(patience, Call("GET", "/v1/webhook-secret"))
    return read(WebhookSecret, answer.body).secret


# ----------------------------------------------------------------------------------------------------------------------


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _input(whole: Mapping[str, Any] | None, fields: dict[str, Any]) -> Mapping[str, Any]:
    if whole is None:
        if "prompt" not in fields:
            raise MisuseError("a job needs a prompt, or an input")
        return fields
    if fields:
        raise MisuseError(f"input is the model's whole input: {', '.join(fields)} must be inside it")
    return whole


def checked_key(key: str) -> str:
    """The idempotency key, if it is one. Raises MisuseError."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?", key):
        raise MisuseError("an idempotency key has 1 to 255 printable ASCII characters, no space around them")
    return key


def route(template: str, record_id: str) -> str:
    """Ids are letters, digits and underscores: anything else would lead to another route."""
    if not re.fullmatch(r"\w+", record_id, re.ASCII):
        raise MisuseError(f"{record_id!r} is not an id")
    return template.format(record_id)
