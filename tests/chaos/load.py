"""The callers: they ask for pictures as a careful client does, change their minds, and remember what was promised."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from darkroom.domain.batch import batch_job_id

_AT_ONCE = 8
_PATIENCE_SECONDS = 120.0
_RETRY_SECONDS = 0.25
_UPLOAD_PATIENCE_SECONDS = 240.0
_UPLOAD_PIECES = 40
_UPLOAD_PAUSE_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Wish:
    """One job that someone wants. Its prompt is its name: fal's ledger, the records and the bucket all carry it."""

    prompt: str
    seed: int
    pictures: int
    format: str
    lane: str
    deadline_seconds: int | None = None
    cancel_after: float | None = None

    @property
    def input(self) -> dict[str, Any]:
        """What is wanted, in the model's words."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "num_images": self.pictures,
            "image_size": "square",
            "output_format": self.format,
        }

    def request(self, webhook_url: str) -> dict[str, Any]:
        """The body of POST /v1/jobs."""
        body: dict[str, Any] = {"input": self.input, "lane": self.lane, "webhook_url": webhook_url}
        if self.deadline_seconds is not None:
            body["deadline_seconds"] = self.deadline_seconds
        return body


def make_wishes(
    scenario: str, count: int, dice: random.Random, *, cancelled: float = 0.0, hurried: float = 0.0
) -> list[Wish]:
    """Wishes as the dice have it; `cancelled` and `hurried` are the shares that are cancelled or have a deadline."""
    over_seconds = max(5.0, count / 15)
    return [
        Wish(
            prompt=f"chaos {scenario} {number:05d}",
            seed=dice.randrange(2**31),
            pictures=dice.choices((1, 2, 3), (8, 1, 1))[0],
            format=dice.choice(("png", "jpeg")),
            lane=dice.choices(("interactive", "bulk"), (2, 8))[0],
            deadline_seconds=dice.randint(1, int(over_seconds)) if dice.random() < hurried else None,
            cancel_after=dice.uniform(0, over_seconds) if dice.random() < cancelled else None,
        )
        for number in range(count)
    ]


class Callers:
    """Sends wishes until each was accepted. `accepted` holds what a 202 was said to: job id by prompt."""

    def __init__(self, session: aiohttp.ClientSession, webhook_url: str) -> None:
        """`session` leads to the API and carries its key."""
        self.accepted: dict[str, str] = {}
        self.repeats = 0
        self._session = session
        self._webhook_url = webhook_url
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._minds: list[asyncio.Task[None]] = []

    async def ask_for(self, wishes: list[Wish]) -> None:
        """Return when every wish is accepted, and everyone who cancels has done so or never will.

        Raises TimeoutError when the API accepts nothing for two minutes.
        """
        await asyncio.gather(*(self._ask(wish) for wish in wishes))
        await asyncio.gather(*self._minds)

    async def _ask(self, wish: Wish) -> None:
        async with self._room, asyncio.timeout(_PATIENCE_SECONDS):
            key = {"Idempotency-Key": wish.prompt}
            job = await self._insist("/v1/jobs", lambda: {"json": wish.request(self._webhook_url), "headers": key})
        self.accepted[wish.prompt] = job["id"]
        if wish.cancel_after is not None:
            self._minds.append(asyncio.create_task(self._cancel(job["id"], wish.cancel_after)))

    async def _cancel(self, job_id: str, after: float) -> None:
        await asyncio.sleep(after)
        await self._insist(f"/v1/jobs/{job_id}/cancel")

    async def _insist(self, path: str, request: Callable[[], dict[str, Any]] = dict) -> dict[str, Any]:
        """POST until the answer is 202, as the API's 503 and a broken connection both ask for.

        `request` makes aiohttp's arguments, anew for each try. An upload that broke off holds its Idempotency-Key for
        a minute: a 409 says so.
        """
        while True:
            try:
                async with self._session.post(path, **request()) as answer:
                    if answer.status == 202:
                        document: dict[str, Any] = await answer.json()
                        return document
                    text = await answer.text()
                    if answer.status < 500 and "upload_in_progress" not in text:
                        raise AssertionError(f"{path} answered {answer.status}: {text}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.repeats += 1
            await asyncio.sleep(_RETRY_SECONDS)


class Uploader(Callers):
    """Sends all wishes as one batch, as over a thin line: there is time for something to die in the middle.

    With its 202 every line is promised a job, whose name follows from the batch and the line.
    """

    async def ask_for(self, wishes: list[Wish]) -> None:
        """Return when the batch is accepted. Raises TimeoutError when that takes four minutes."""
        rows = [{"custom_id": f"wish/{wish.prompt}", "input": wish.input} for wish in wishes]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        headers = {"Idempotency-Key": wishes[0].prompt, "Content-Type": "application/jsonl"}
        query = {"webhook_url": self._webhook_url}
        async with asyncio.timeout(_UPLOAD_PATIENCE_SECONDS):
            batch = await self._insist(
                "/v1/batches", lambda: {"data": _slowly(lines), "headers": headers, "params": query}
            )
        for line, wish in enumerate(wishes, 1):
            self.accepted[wish.prompt] = batch_job_id(batch["id"], line)


async def _slowly(content: bytes) -> AsyncIterator[bytes]:
    size = len(content) // _UPLOAD_PIECES + 1
    for start in range(0, len(content), size):
        yield content[start : start + size]
        await asyncio.sleep(_UPLOAD_PAUSE_SECONDS)
