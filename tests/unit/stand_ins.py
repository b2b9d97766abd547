"""Small stand-ins for the ports, told beforehand what to answer; and a clock that jumps instead of waiting."""

# ruff: noqa: ARG002 - a stand-in is given what the port is given, and needs little of it

from __future__ import annotations

import asyncio
import io
import selectors
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from darkroom.domain.errors import DarkroomError, ResultGoneError
from darkroom.domain.generation import (
    Completed,
    Generated,
    GenerationStatus,
    ListedRequest,
    MediaRef,
    RequestRef,
    Verdict,
)
from darkroom.domain.job import Artifact, Job, Submission
from darkroom.domain.lifecycle import JobEvent, JobStatus, Lane, Place, Stage, SubmissionStatus
from darkroom.ports import (
    Acceptance,
    Hold,
    Limits,
    Message,
    Opening,
    Picture,
    Settlement,
    Source,
    Trouble,
    Wish,
)

T = TypeVar("T")

CREATED_MS = 1_700_000_000_000
REF = RequestRef("req-1", "https://q/req-1/status", "https://q/req-1", "https://q/req-1/cancel")
UNITS = Decimal("1.048576")


# time -----------------------------------------------------------------------------------------------------------------


class _JumpingSelector(selectors.DefaultSelector):
    """Adds up what it was asked to wait, and waits for nothing."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.waited += timeout or 0
        return super().select(0 if timeout is not None else None)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only when every task waits for it. For tests without sockets."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.waited


def play(story: Coroutine[Any, Any, T]) -> T:
    """Run to the end without waiting for time to pass."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(story)


# records --------------------------------------------------------------------------------------------------------------


def a_job(**fields: Any) -> Job:  # noqa: ANN401 - Job's own
    job = Job(
        id="job_1",
        account_id="acct_1",
        status=JobStatus.RUNNING,
        stage=Stage.SUBMITTING,
        place=Place.LEASE,
        model="fal-ai/krea-2/turbo",
        arguments={"prompt": "Mars", "seed": 7},
        lane=Lane.INTERACTIVE,
        metadata={},
        webhook_url=None,
        estimate_usd=Decimal("0.008388608"),
        attempts=0,
        errored=0,
        created_at=CREATED_MS,
        started_at=CREATED_MS,
        finished_at=None,
        deadline_at=None,
        next_attempt_at=None,
        cancel_requested=False,
        lease="lease_1",
        version=1,
    )
    return replace(job, **fields)


def a_submission(status: SubmissionStatus = SubmissionStatus.ACCEPTED, **fields: Any) -> Submission:  # noqa: ANN401
    submission = Submission("sub_1", "job_1", status, CREATED_MS, ref=REF)
    return replace(submission, **fields)


def pictures(count: int = 1, **fields: Any) -> Generated:  # noqa: ANN401 - Generated's own
    media = tuple(MediaRef(f"https://m/{index}.png", "image/png", 64, 64) for index in range(count))
    return replace(Generated(media, 7, (False,) * count, UNITS), **fields)


# what happens, in order -----------------------------------------------------------------------------------------------


class Answers:
    """What a stand-in says, in order; the last answer repeats. An exception is raised, a function is called."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    async def next(self) -> Any:  # noqa: ANN401 - whatever it was told
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


class FakeTransitions:
    """Implements `ports.Transitions`: takes everything, keeps it in `did`."""

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.kept: list[Artifact] = []
        self.opening = Answers(Opening.OPENED)
        self.acceptance = Answers(Acceptance.ACCEPTED)
        self.claims = Answers(None)
        self.heartbeats = Answers(Hold.HELD)
        self.keeps = Answers(True)  # noqa: FBT003 - the answer itself

    def names(self) -> list[str]:
        return [step[0] for step in self.did]

    async def claim(self, job_id: str, lease: str) -> Job | None:
        self.did.append(("claim", job_id))
        found: Job | None = await self.claims.next()
        return replace(found, lease=lease) if found else None

    async def heartbeat(self, leases: Sequence[tuple[str, str]]) -> list[Hold]:
        self.did.extend(("heartbeat", *pair) for pair in leases)
        return [await self.heartbeats.next() for _ in leases]

    async def rescue(self, job_id: str, lease: str) -> bool:
        self.did.append(("rescue", job_id, lease))
        return True

    async def open_submission(self, job: Job, submission_id: str) -> Opening:
        opening: Opening = await self.opening.next()
        self.did.append(("open", opening))
        return opening

    async def accept_submission(self, submission_id: str, ref: RequestRef, source: Source) -> Acceptance:
        acceptance: Acceptance = await self.acceptance.next()
        self.did.append(("accept", ref.request_id, source))
        return acceptance

    async def reject_submission(self, submission_id: str, error: DarkroomError) -> None:
        self.did.append(("reject", error.code))

    async def finish_submission(
        self, submission_id: str, verdict: Verdict | ResultGoneError, cost_usd: Decimal | None
    ) -> None:
        self.did.append(("verdict", type(verdict).__name__, cost_usd))

    async def keep_artifact(self, job_id: str, lease: str, artifact: Artifact) -> bool:
        self.did.append(("keep", artifact.index, artifact.key))
        self.kept.append(artifact)
        return bool(await self.keeps.next())

    async def snooze(self, job_id: str, lease: str) -> bool:
        self.did.append(("snooze", lease))
        return True

    async def retry(self, job_id: str, lease: str, *, delay: float, error: DarkroomError, counts: bool) -> bool:
        self.did.append(("retry", error.code, counts))
        return True

    async def doubt(self, job_id: str, lease: str, submission_id: str, error: DarkroomError) -> bool:
        self.did.append(("doubt", error.code))
        return True

    async def settle(self, submission_id: str, settlement: Settlement, *, delay: float = 0) -> bool:
        self.did.append(("settle", settlement, delay))
        return True

    async def finish(self, job_id: str, lease: str, event: JobEvent, error: DarkroomError | None = None) -> bool:
        self.did.append(("finish", event, error.code if error else None))
        return True

    async def expire(self, job_id: str) -> None:
        self.did.append(("expire", job_id))


class FakeSchedule:
    """Implements `ports.Schedule`: nothing is due; keeps in `did` what stops submissions."""

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.clock = datetime.fromtimestamp(CREATED_MS / 1000, tz=UTC)
        self.storage = Answers(None)
        self.tripped = False

    async def now(self) -> datetime:
        return self.clock

    async def seen(self, worker_id: str) -> None:
        pass

    async def announce_limits(self, limits: Limits) -> None:
        pass

    async def dispatch(self) -> float | None:
        return None

    async def tick(self) -> list[str]:
        return []

    async def leases(self) -> list[tuple[str, str, int]]:
        return []

    async def take_outbox(self, wait: float) -> list[Message]:
        await asyncio.sleep(wait)
        return []

    async def cool_down(self, seconds: float) -> None:
        self.did.append(("cool_down", seconds))

    async def trip(self, job_id: str, error: DarkroomError, trouble: Trouble) -> bool:
        self.did.append(("trip", error.code, trouble))
        return self.tripped

    async def close_gate(self, job_id: str, error: DarkroomError) -> None:
        self.did.append(("close_gate", error.code))

    async def set_storage(self, fault: DarkroomError | None) -> None:
        self.did.append(("set_storage", fault.code if fault else None))
        await self.storage.next()

    async def sweep(self, retention_days: int) -> list[str]:
        return []

    @asynccontextmanager
    async def wishes(self) -> AsyncIterator[AsyncIterator[Wish]]:
        async def none() -> AsyncIterator[Wish]:
            await asyncio.Event().wait()
            yield Wish("", cancel=False)

        yield none()


class FakeGenerator:
    """Implements `ports.Generator`: fal, as it was told to answer."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.submits = Answers(REF)
        self.statuses = Answers(Completed())
        self.results = Answers(pictures())
        self.cancels = Answers(True)  # noqa: FBT003 - the answer itself
        self.listings = Answers([])

    async def submit(
        self, model: str, arguments: Mapping[str, Any], *, start_timeout: int, callback_url: str | None, send_by: float
    ) -> RequestRef:
        self.did.append("submit")
        ref: RequestRef = await self.submits.next()
        return ref

    async def status(self, ref: RequestRef) -> GenerationStatus:
        self.did.append("status")
        status: GenerationStatus = await self.statuses.next()
        return status

    async def result(self, ref: RequestRef, completed: Completed) -> Verdict:
        self.did.append("result")
        verdict: Verdict = await self.results.next()
        return verdict

    async def cancel(self, ref: RequestRef) -> bool:
        self.did.append("cancel")
        return bool(await self.cancels.next())

    async def list_requests(self, model: str, *, since: datetime, until: datetime) -> list[ListedRequest]:
        self.did.append("list")
        listed: list[ListedRequest] = await self.listings.next()
        return listed

    def reference(self, model: str, request_id: str) -> RequestRef:
        return RequestRef(request_id, f"https://q/{request_id}/status", f"https://q/{request_id}", "https://q/cancel")

    def parse_output(self, output: Mapping[str, Any]) -> Verdict | None:
        return pictures() if output else None


class FakeMedia:
    """Implements `ports.MediaFetcher`."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.answers = Answers(a_picture)

    def fetch(self, url: str) -> AbstractAsyncContextManager[Picture]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Picture]:
            self.fetched.append(url)
            yield await self.answers.next()

        return opened()


def a_picture(width: int = 64, height: int = 64) -> Picture:
    return Picture(io.BytesIO(b"png"), 3, "ab" * 32, "image/png", width, height, blank=False)


class FakeThumbnails:
    """Implements `ports.Thumbnails`."""

    def __init__(self) -> None:
        self.answers = Answers(b"small")

    async def make(self, picture: Picture) -> bytes | None:
        found: bytes | None = await self.answers.next()
        return found


class FakeBucket:
    """Implements `ports.ArtifactStore`."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.puts = Answers(None)

    async def put_picture(self, key: str, picture: Picture, metadata: Mapping[str, str]) -> None:
        await self.puts.next()
        self.objects[key] = dict(metadata)

    async def put_json(self, key: str, document: Mapping[str, Any]) -> None:
        await self.puts.next()
        self.objects[key] = dict(document)

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> None:
        await self.puts.next()
        self.objects[key] = data

    async def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)

    async def check(self) -> None:
        await self.puts.next()

    def presign(self, key: str) -> tuple[str, datetime]:
        return f"https://s3/{key}", datetime.fromtimestamp(CREATED_MS / 1000, tz=UTC)


async def settle_down(turns: int = 50) -> None:
    """Let every task run until it waits for something."""
    for _ in range(turns):
        await asyncio.sleep(0)
