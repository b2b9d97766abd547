"""The callers: they ask for pictures as a careful client does, change their minds, and remember what was promised."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import aiohttp

_AT_ONCE = 8
_PATIENCE_SECONDS = 120.0
_RETRY_SECONDS = 0.25


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

    def request(self, webhook_url: str) -> dict[str, Any]:
        """The body of POST /v1/jobs."""
        wanted = {
            "prompt": self.prompt,
            "seed": self.seed,
            "num_images": self.pictures,
            "image_size": "square",
            "output_format": self.format,
        }
        body: dict[str, Any] = {"input": wanted, "lane": self.lane, "webhook_url": webhook_url}
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
            job = await self._insist(
                "/v1/jobs", json=wish.request(self._webhook_url), headers={"Idempotency-Key": wish.prompt}
            )
        self.accepted[wish.prompt] = job["id"]
        if wish.cancel_after is not None:
            self._minds.append(asyncio.create_task(self._cancel(job["id"], wish.cancel_after)))

    async def _cancel(self, job_id: str, after: float) -> None:
        await asyncio.sleep(after)
        await self._insist(f"/v1/jobs/{job_id}/cancel")

    async def _insist(self, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - aiohttp's own arguments
        """POST until the answer is 202, as the API's 503 and a broken connection both ask for."""
        while True:
            try:
                async with self._session.post(path, **request) as answer:
                    if answer.status == 202:
                        document: dict[str, Any] = await answer.json()
                        return document
                    if answer.status < 500:
                        raise AssertionError(f"{path} answered {answer.status}: {await answer.text()}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.repeats += 1
            await asyncio.sleep(_RETRY_SECONDS)
