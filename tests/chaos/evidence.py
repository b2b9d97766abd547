"""What every side says when a run is over: fal's ledger, the records, the bucket, the receiver. No judgement."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from redis.asyncio import Redis

from darkroom.adapters.s3 import S3Bucket
from darkroom.domain.batch import batch_key
from darkroom.domain.errors import NotFoundError
from tests.chaos.load import Wish
from tests.chaos.outcome import FILES, BatchOutcome
from tests.chaos.receiver import Inbox

_AT_ONCE = 8
_PAGE = 100
_PREFIX = "renders/"  # the default of DARKROOM_S3_PREFIX


@dataclass(frozen=True, slots=True)
class Stored:
    """One picture as three sides have it: sha256 of what lies in the bucket and of what fal's media host serves."""

    key: str
    in_bucket: str | None
    at_fal: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the judgement is made from. Jobs and events are as the API shows them, the ledger as fal keeps it."""

    wishes: list[Wish]
    accepted: dict[str, str]
    jobs: dict[str, dict[str, Any]]
    events: list[dict[str, Any]]
    ledger: list[dict[str, Any]]
    counters: dict[str, int]
    fired: dict[str, int]
    pictures: dict[str, list[Stored]]
    sidecars: dict[str, dict[str, Any] | None]
    inbox: Inbox
    double_charges: list[str]
    permits: int
    outcomes: list[BatchOutcome] = field(default_factory=list)
    slowest_recovery: float | None = None
    orphans: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def requests_of(self) -> dict[str, list[dict[str, Any]]]:
        """Fal's ledger by the prompt that each request carries: what fal did for each wish, whoever knows of it."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.ledger:
            found[entry["input"]["prompt"]].append(entry)
        return found

    def document(self) -> dict[str, Any]:
        """For the forensic folder."""
        return {
            "accepted": self.accepted,
            "jobs": self.jobs,
            "events": self.events,
            "ledger": self.ledger,
            "counters": self.counters,
            "fired": self.fired,
            "pictures": {job: [(p.key, p.in_bucket, p.at_fal) for p in found] for job, found in self.pictures.items()},
            "sidecars": self.sidecars,
            "double_charges": self.double_charges,
            "outcomes": [
                {"batch": one.batch, "files": {name: text.decode() for name, text in one.files.items()}}
                for one in self.outcomes
            ],
            "bad_signatures": self.inbox.bad_signatures,
            "contradictions": self.inbox.contradictions,
        }


class Sources:
    """Where evidence is read. `api` and `simulator` are sessions that lead there; `plain` carries no key."""

    def __init__(
        self,
        *,
        api: aiohttp.ClientSession,
        simulator: aiohttp.ClientSession,
        plain: aiohttp.ClientSession,
        redis: Redis,
        bucket: S3Bucket,
    ) -> None:
        self._api = api
        self._plain = plain
        self._simulator = simulator
        self._redis = redis
        self._bucket = bucket
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job of the account, by id."""
        return {job["id"]: job for job in await self._pages("/v1/jobs")}

    async def events(self) -> list[dict[str, Any]]:
        """The account's whole log."""
        return await self._pages("/v1/events")

    async def ledger(self) -> dict[str, Any]:
        """The simulator's: every request that it took, and what it counted."""
        async with self._simulator.get("/_sim/ledger") as answer:
            document: dict[str, Any] = await answer.json()
            return document

    async def outcomes(self) -> list[BatchOutcome]:
        """Every batch of the account, and what lies in the bucket for it."""
        return [BatchOutcome(batch, await self._files_of(batch["id"])) for batch in await self._pages("/v1/batches")]

    async def double_charges(self) -> list[str]:
        """What the records themselves know of second charges."""
        return [str(name) for name in await self._redis.zrange("dr:double_charges", 0, -1)]

    async def pictures(self, jobs: dict[str, dict[str, Any]]) -> dict[str, list[Stored]]:
        """Both copies of every picture that a record names, downloaded and hashed."""
        ended = [job for job in jobs.values() if job["images"]]
        found = await asyncio.gather(*(self._pictures_of(job) for job in ended))
        return {job["id"]: stored for job, stored in zip(ended, found, strict=True)}

    async def sidecars(self, jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
        """The job.json beside the pictures of every succeeded job; None where there is none."""
        done = [job for job in jobs.values() if job["status"] == "succeeded" and job["images"]]
        found = await asyncio.gather(*(self._sidecar(job) for job in done))
        return {job["id"]: document for job, document in zip(done, found, strict=True)}

    async def _pages(self, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            async with self._api.get(path, params={"limit": str(_PAGE), **cursor}) as answer:
                answer.raise_for_status()
                page = await answer.json()
            rows += page["data"]
            if not page["has_more"]:
                return rows
            cursor = {"cursor": page["next_cursor"]}

    async def _files_of(self, batch_id: str) -> dict[str, bytes]:
        account = await self._redis.hget(f"dr:batch:{batch_id}", "account")
        found = {}
        for name in FILES:
            with suppress(NotFoundError):
                found[name] = await self._bucket.get_bytes(batch_key(_PREFIX, str(account), batch_id, name))
        return found

    async def _pictures_of(self, job: dict[str, Any]) -> list[Stored]:
        found = []
        for image in job["images"]:
            media = f"/files/{job['fal_request_id']}/{image['key'].rpartition('/')[2]}"
            async with self._room:
                in_bucket = await self._hash(self._plain, image["url"])
                at_fal = await self._hash(self._simulator, media)
            found.append(Stored(image["key"], in_bucket, at_fal))
        return found

    async def _hash(self, session: aiohttp.ClientSession, url: str) -> str | None:
        async with session.get(url) as answer:
            return hashlib.sha256(await answer.read()).hexdigest() if answer.status == 200 else None

    async def _sidecar(self, job: dict[str, Any]) -> dict[str, Any] | None:
        key = job["images"][0]["key"].rpartition("/")[0] + "/job.json"
        async with self._room:
            try:
                return await self._bucket.get_json(key)
            except (NotFoundError, ValueError):
                return None


def dump(document: object) -> str:
    """JSON for a person."""
    return json.dumps(document, indent=1, default=str)
