"""The stack that a measurement runs on, and what it asks of its API and of the simulator."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from infra.local.stack import Stack

T = TypeVar("T")

ENDED_BATCH = frozenset({"completed", "cancelled", "failed", "expired"})
PRICE = 0.008
"""US dollars a megapixel: fal's, and Darkroom's default."""

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Terms:
    """What a stack is started with."""

    slots: int = field(default=40, metadata={"help": "fal's slots, DARKROOM_FAL_CONCURRENCY too"})
    ahead: int = field(default=8, metadata={"help": "DARKROOM_FAL_QUEUE_AHEAD"})
    latency: float = field(default=1.0, metadata={"help": "mean seconds of a run"})
    sigma: float = field(default=0.25, metadata={"help": "shape of its log-normal; 0: every run takes as long"})
    workers: int = field(default=2, metadata={"help": "worker processes"})
    held: int = field(default=64, metadata={"help": "DARKROOM_WORKER_CONCURRENCY"})
    start: int = field(default=600, metadata={"help": "DARKROOM_FAL_START_TIMEOUT_SECONDS"})
    longest: int = field(default=120, metadata={"help": "DARKROOM_FAL_MAX_RUN_SECONDS"})

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser, **defaults: float) -> None:
        """An option for each; `defaults` are this measurement's own."""
        for one in fields(cls):
            default = defaults.get(one.name, one.default)
            told = f"{one.metadata['help']} (default {default:g})"
            parser.add_argument(f"--{one.name}", type=type(one.default), default=default, help=told)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """What was asked for."""
        return cls(**{one.name: getattr(options, one.name) for one in fields(cls)})

    def __str__(self) -> str:
        return (
            f"{self.slots} slots of {self.latency:g} s, DARKROOM_FAL_QUEUE_AHEAD={self.ahead}, "
            f"{self.workers} workers of {self.held} jobs"
        )


class Caller:
    """An account's way to the API. What is refused raises httpx.HTTPStatusError."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self.api = api

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """A document."""
        return _document(await self.api.get(path, params=query))

    async def post(self, path: str, body: object = None, **query: str) -> dict[str, Any]:
        """What a POST is answered."""
        return _document(await self.api.post(path, json=body, params=query))

    async def upload(self, lines: bytes, **query: str) -> str:
        """Send JSONL as a batch; its id."""
        headers = {"Content-Type": "application/jsonl"}
        answer = _document(await self.api.post("/v1/batches", content=lines, params=query, headers=headers))
        return str(answer["id"])

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """The batch now."""
        return await self.get(f"/v1/batches/{batch_id}")

    async def batch_when(
        self,
        batch_id: str,
        true_of: Callable[[dict[str, Any]], object],
        what: str,
        seconds: float = 600,
        *,
        every: float = _LOOK_SECONDS,
    ) -> dict[str, Any]:
        """The batch as soon as that is true of it; looks so often. Raises TimeoutError."""

        async def look() -> dict[str, Any] | None:
            batch = await self.batch(batch_id)
            return batch if true_of(batch) else None

        return await until(look, f"{batch_id} is {what}", seconds, every=every)

    async def batch_in(
        self, batch_id: str, *statuses: str, seconds: float = 600, every: float = _LOOK_SECONDS
    ) -> dict[str, Any]:
        """The batch as soon as it is in one of these statuses. Raises TimeoutError."""
        return await self.batch_when(
            batch_id, lambda batch: batch["status"] in statuses, " or ".join(statuses), seconds, every=every
        )

    async def rendered(self, prompt: str, size: str) -> dict[str, Any]:
        """Ask for one picture as an interactive job, and wait for its end."""
        job = await self.post("/v1/jobs", {"input": {"prompt": prompt, "image_size": size}})
        while job["status"] not in {"succeeded", "failed", "cancelled"}:
            job = await self.get(f"/v1/jobs/{job['id']}", wait="60")
        return job


class House:
    """A running stack: its first account's `caller`, and fal behind it."""

    def __init__(self, stack: Stack, caller: Caller, fal: httpx.AsyncClient) -> None:
        self.stack = stack
        self.caller = caller
        self._fal = fal

    async def ledger(self) -> dict[str, Any]:
        """The simulator's."""
        return _document(await self._fal.get("/_sim/ledger"))

    @asynccontextmanager
    async def another_caller(self) -> AsyncIterator[Caller]:
        """A second account, made by `darkroom-admin`."""
        account = await asyncio.to_thread(self._admin, "accounts", "create", "another")
        key = await asyncio.to_thread(self._admin, "keys", "create", account)
        async with _client(self.stack.url, key) as api:
            yield Caller(api)

    def _admin(self, *arguments: str) -> str:
        assert self.stack.valkey is not None
        program = str(Path(sysconfig.get_path("scripts")) / "darkroom-admin")
        environment = {"PATH": os.environ["PATH"], "DARKROOM_REDIS_URL": self.stack.valkey.url}
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@asynccontextmanager
async def house(terms: Terms, *, size: str = "square_hd") -> AsyncIterator[House]:
    """A stack in a folder of its own, gone afterwards. A few pictures of that size are rendered already.

    So the connections stand, and the simulator has drawn the pictures that it serves. Of the user's environment only
    PATH is taken.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "DARKROOM_FAL_CONCURRENCY": str(terms.slots),
            "DARKROOM_FAL_QUEUE_AHEAD": str(terms.ahead),
            "DARKROOM_WORKER_CONCURRENCY": str(terms.held),
            "DARKROOM_FAL_START_TIMEOUT_SECONDS": str(terms.start),
            "DARKROOM_FAL_MAX_RUN_SECONDS": str(terms.longest),
        }
        simulator = ["--concurrency", str(terms.slots), "--latency", str(terms.latency), "--pool"]
        simulator += ["--latency-sigma", str(terms.sigma)]
        stack = Stack(Path(folder), environment=environment, workers=terms.workers, simulator_arguments=simulator)
        await asyncio.to_thread(stack.__enter__)
        try:
            assert stack.simulator is not None
            async with _client(stack.url, stack.api_key) as api, _client(stack.simulator.url) as fal:
                opened = House(stack, Caller(api), fal)
                warming = (opened.caller.rendered(f"warming up {number}", size) for number in range(20))
                await asyncio.gather(*warming)
                yield opened
        finally:
            await asyncio.to_thread(stack.__exit__, None, None, None)


def _client(url: str, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Shorter than the servers', so that no request meets a connection that is just being closed.
    limits = httpx.Limits(keepalive_expiry=2)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits, trust_env=False)


def _document(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    document: dict[str, Any] = json.loads(answer.content)
    return document


async def until(
    look: Callable[[], Awaitable[T | None]], what: str, seconds: float, *, every: float = _LOOK_SECONDS
) -> T:
    """The first answer of `look` that is true. Raises TimeoutError, which says what was waited for."""
    give_up_at = time.monotonic() + seconds
    while not (found := await look()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(every)
    return found


def lines_of(prompts: Iterable[str], size: str = "square_hd") -> bytes:
    """The JSONL of a batch, a line a prompt."""
    rows = (
        {"custom_id": f"line-{number}", "input": {"prompt": prompt, "image_size": size}}
        for number, prompt in enumerate(prompts, 1)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
