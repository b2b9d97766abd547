"""What callers send, and the envelopes around what they get. The records themselves: domain/representation.py."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from darkroom.domain.batch_line import Metadata
from darkroom.domain.krea import MODEL, KreaInput, PlainText
from darkroom.domain.lifecycle import DeliveryStatus, JobStatus, Lane, Stage
from darkroom.domain.representation import DeliveryView, EventView, JobView

DEADLINE_SECONDS_MAX: Final = 30 * 86400


_NAME: Final = "[0-9a-hjkmnp-tv-z]{26}$"


def _written_as(pattern: str, example: str) -> BeforeValidator:
    """Pydantic reads numbers as times too; here only what ISO 8601 writes is one."""

    def check(value: object) -> object:
        if isinstance(value, str) and not re.match(pattern, value):
            raise ValueError(f"must be written like {example}")
        return value

    return BeforeValidator(check)


Moment = Annotated[AwareDatetime, _written_as(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", "2026-02-01T12:00:00Z")]
Day = Annotated[date, _written_as(r"\d{4}-\d\d-\d\d$", "2026-02-01")]
Wait = Annotated[int, Field(ge=0, le=60, description="Seconds to wait for the job's end before answering.")]
Limit = Annotated[int, Field(ge=1, le=100)]


class JobRequest(BaseModel):
    """A generation to be rendered. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    input: KreaInput
    model: Annotated[PlainText, Field(examples=[MODEL])] = MODEL
    lane: Annotated[Lane, Field(description="An interactive job goes before all bulk ones.")] = Lane.INTERACTIVE
    webhook_url: Annotated[
        PlainText | None, Field(description="Told when the job ends; signed with the account's secret.")
    ] = None
    metadata: Metadata = {}
    deadline_seconds: Annotated[
        StrictInt | None,
        Field(ge=1, le=DEADLINE_SECONDS_MAX, description="From acceptance; ends the job only while nothing was paid."),
    ] = None


class ReplayRequest(BaseModel):
    """How an ended job may start again."""

    model_config = ConfigDict(extra="forbid")

    accept_charge: Annotated[
        StrictBool, Field(description="Submit again even where an earlier submission was or may have been charged.")
    ] = False


class WaitQuery(BaseModel):
    """Query of one job."""

    model_config = ConfigDict(extra="forbid")

    wait: Wait = 0


class JobsQuery(BaseModel):
    """Query of a listing of jobs."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    stage: Stage | None = None
    lane: Lane | None = None
    batch_id: Annotated[str, Field(pattern="^batch_" + _NAME)] | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    limit: Limit = 20
    cursor: Annotated[str, Field(max_length=512)] | None = None


class EventsQuery(BaseModel):
    """Query of the event log."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,15}$", description="`next_cursor` of the last answer, or the last event's `seq`."),
    ] = None
    limit: Limit = 50


class DeliveriesQuery(BaseModel):
    """Query of the newest deliveries."""

    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[str, Field(pattern="^job_" + _NAME)] | None = None
    status: DeliveryStatus | None = None


class UsageQuery(BaseModel):
    """Query of the usage: days in UTC, both included."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first_day: Annotated[Day | None, Field(alias="from")] = None
    last_day: Annotated[Day | None, Field(alias="to")] = None


class JobList(BaseModel):
    """Jobs, newest first. A page may hold fewer than asked for and still have a next one."""

    data: list[JobView]
    has_more: bool
    next_cursor: str | None


class EventList(BaseModel):
    """Events in the order they happened. `next_cursor` is always there: ask again with it later for what is new."""

    data: list[EventView]
    has_more: bool
    next_cursor: str


class DeliveryList(BaseModel):
    """The newest deliveries, at most 100."""

    data: list[DeliveryView]


class UsageCounts(BaseModel):
    """Jobs accepted and ended, pictures stored, and what fal billed."""

    jobs: int = Field(description="Accepted.")
    succeeded: int
    failed: int
    cancelled: int
    pictures: int
    spend_usd: float


class UsageDay(UsageCounts):
    """One day, UTC."""

    date: date


class Usage(BaseModel):
    """Per day, days without anything included, and all together."""

    object: Literal["usage"] = "usage"
    data: list[UsageDay]
    totals: UsageCounts


class WebhookSecret(BaseModel):
    """What the account's webhooks are signed with (Standard Webhooks)."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class Health(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The API can work; `degraded` says what makes jobs wait."""

    status: Literal["ok", "degraded"]
    degraded: list[str] = Field(examples=[["fal: out of balance"]])
