"""Batches at the door and their intake, on a real Valkey and a real S3; the workers' steps by hand."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from darkroom.adapters.redis.batches import RedisBatches
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.domain.batch import batch_job_id
from darkroom.domain.errors import BlockedError
from darkroom.service.close_batch import BatchCloser
from darkroom.service.intake_batch import BatchIntake
from darkroom.service.read_batch import BatchReader
from darkroom.service.walk_batch import BatchWalk
from infra.local.seaweedfs import SeaweedFS
from tests.integration.api_door import Door, Hand, is_problem, opened, served, until
from worker.batch_work import BatchWork

JSONL = {"Content-Type": "application/jsonl"}


def line(prompt: str = "a poster", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"input": {"prompt": prompt}, **more}


def lines(*documents: object) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with SeaweedFS(tmp_path_factory.mktemp("s3"), bucket="darkroom") as running:
        environment = running.client_environment()
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        yield {"s3_endpoint_url": running.url, **{name: environment[name] for name in names}}


class House:
    """The door, the bucket behind it, and what a worker would do."""

    def __init__(self, door: Door, redis: Redis) -> None:
        self.door = door
        self.client = door.client
        self.bucket = door.services.bucket
        self.hand = Hand(redis)
        batches = RedisBatches(redis)
        self.batches = batches
        reader = BatchReader(batches, self.bucket, prefix="renders/")
        self.work = BatchWork(
            batches,
            intake=BatchIntake(batches, self.bucket, prefix="renders/", price_per_megapixel=Decimal("0.008")),
            walk=BatchWalk(batches, remove=RedisJobs(redis).delete),
            closer=BatchCloser(batches, self.bucket, reader, bucket="darkroom", prefix="renders/"),
        )

    async def post(self, content: bytes, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:  # noqa: ANN401
        return await self.client.post("/v1/batches", content=content, headers=headers or JSONL, params=query)

    async def get(self, batch_id: str, part: str = "") -> Any:  # noqa: ANN401 - any JSON
        answer = await self.client.get(f"/v1/batches/{batch_id}{part}")
        assert answer.status_code == 200, answer.text
        return [json.loads(text) for text in answer.text.splitlines()] if part else answer.json()

    async def tick(self) -> None:
        """All that is due now, to its end."""
        for entry in await self.hand.schedule.tick():
            kind, _, name = entry.partition(":")
            await self.work._steps[kind](name)  # type: ignore[index]

    async def taken_in(self, content: bytes, headers: dict[str, str] | None = None, **query: Any) -> dict[str, Any]:  # noqa: ANN401
        answer = await self.post(content, headers, **query)
        assert answer.status_code == 202, answer.text
        assert answer.json()["status"] == "validating"
        await self.tick()
        batch: dict[str, Any] = await self.get(answer.json()["id"])
        return batch


@pytest.fixture
async def house(redis: Redis, valkey_url: str, s3: dict[str, str]) -> AsyncIterator[House]:
    async with opened(valkey_url, **s3) as door:
        yield House(door, redis)


FORMATS: dict[str, tuple[bytes, dict[str, str]]] = {
    "jsonl": (lines(line("a", custom_id="x"), line("b")), JSONL),
    "ndjson": (lines(line("a", custom_id="x"), line("b")), {"Content-Type": "application/x-ndjson"}),
    "gzip": (gzip.compress(lines(line("a", custom_id="x"), line("b"))), {**JSONL, "Content-Encoding": "gzip"}),
    "csv": (
        b'\xef\xbb\xbfcustom_id,prompt,num_images\r\nx,a,\r\n,"b",1\r\n',
        {"Content-Type": "text/csv; charset=utf-8"},
    ),
    "json": (
        json.dumps({"items": [line("a", custom_id="x"), line("b")]}).encode(),
        {"Content-Type": "application/json"},
    ),
    "form": (
        (
            b'--B\r\nContent-Disposition: form-data; name="note"\r\n\r\nhi\r\n--B\r\nContent-Disposition: form-data; '
            b'name="file"; filename="jobs.csv"\r\nContent-Type: application/octet-stream\r\n\r\n'
            b"custom_id,prompt\nx,a\n,b\n\r\n--B--\r\n"
        ),
        {"Content-Type": "multipart/form-data; boundary=B"},
    ),
}


@pytest.mark.parametrize("form", FORMATS)
async def test_every_format_becomes_the_same_jobs(house: House, form: str) -> None:
    batch = await house.taken_in(*FORMATS[form])
    assert (batch["status"], batch["counts"]["total"]) == ("queued", 2), batch
    jobs = (await house.client.get("/v1/jobs", params={"batch_id": batch["id"]})).json()["data"]
    assert [(job["input"]["prompt"], job["custom_id"], job["lane"]) for job in jobs] == [
        ("b", None, "bulk"),
        ("a", "x", "bulk"),
    ]
    assert all(isinstance(job["input"]["seed"], int) for job in jobs)
    kept = await house.bucket.get_bytes(f"renders/acct_{'0' * 26}/batches/{batch['id']}/input.jsonl")
    assert [json.loads(text)["input"]["prompt"] for text in kept.splitlines() if text] == ["a", "b"]


MISTAKES = lines(line("a", custom_id="x"), {"input": {}}, line("c", custom_id="x"), line("d")) + b"{no json\n"


async def test_with_one_mistake_nothing_starts(house: House) -> None:
    batch = await house.taken_in(MISTAKES)
    assert (batch["status"], batch["status_reason"], batch["counts"]["total"]) == ("failed", "invalid_lines", 0)
    assert (batch["valid"], batch["invalid"]) == (2, 3)
    assert [(e["line"], e["pointer"]) for e in batch["errors"]] == [(2, "/input/prompt"), (3, "/custom_id"), (5, "")]
    rows = await house.get(batch["id"], "/errors")
    assert [row["line"] for row in rows] == [2, 3, 5]
    assert "line 1" in rows[1]["error"]["message"]


async def test_lines_with_mistakes_are_skipped_where_that_is_wanted(house: House) -> None:
    batch = await house.taken_in(MISTAKES, on_invalid="skip")
    assert (batch["status"], batch["counts"]["total"], batch["invalid"]) == ("queued", 2, 3)
    await house.hand.complete(batch_job_id(batch["id"], 1), key="renders/0.png")
    await house.client.post(f"/v1/jobs/{batch_job_id(batch['id'], 4)}/cancel")
    await house.tick()
    batch = await house.get(batch["id"])
    assert batch["status"] == "completed"
    assert [row["line"] for row in await house.get(batch["id"], "/errors")] == [2, 3, 4, 5]


async def test_the_outcome_lies_in_the_bucket_when_it_ends(house: House) -> None:
    batch = await house.taken_in(lines(line(custom_id="a/b"), line("two")))
    first, second = (batch_job_id(batch["id"], n) for n in (1, 2))
    await house.hand.complete(first)
    (row,) = await house.get(batch["id"], "/results")
    assert (row["line"], row["custom_id"], row["job_id"]) == (1, "a/b", first), "readable while it runs"
    assert "X-Amz-Signature" in row["images"][0]["url"]
    await house.hand.complete(second)
    await house.tick()
    await house.tick()
    folder = f"renders/acct_{'0' * 26}/batches/{batch['id']}/"
    manifest = await house.bucket.get_json(folder + "manifest.json")
    assert (manifest["counts"]["succeeded"], manifest["pictures"]) == (2, 2)
    sums = (await house.bucket.get_bytes(folder + "SHA256SUMS")).decode().splitlines()
    assert sums == [f"{'00' * 32}  images/a%2Fb-0.png", f"{'00' * 32}  images/2-0.png"]
    rows = [json.loads(text) for text in (await house.bucket.get_bytes(folder + "results.jsonl")).splitlines()]
    assert [row["job_id"] for row in rows] == [first, second]
    assert "url" not in rows[0]["images"][0]
    assert (await house.bucket.get_bytes(folder + "errors.jsonl")) == b""
    page = (await house.bucket.get_bytes(folder + "index.html")).decode()
    assert page.count('"status":"succeeded"') == 2
    assert '"status":"completed"' in page
    assert '"full":"../../renders/0.png"' in page
    batch = await house.get(batch["id"])
    assert (batch["status"], batch["cost"]["spent_usd"]) == ("completed", pytest.approx(2 * 0.008388608))
    assert [r["line"] for r in (await _lines(house, batch["id"], after=1))] == [2]
    events = (await house.client.get("/v1/events")).json()["data"]
    assert events[-1]["type"] == "batch.completed"
    assert events[-1]["data"]["id"] == batch["id"]


async def test_its_files_are_named_once_they_are_there(house: House) -> None:
    batch = await house.taken_in(lines(line("one")))
    assert [file["name"] for file in (await _files(house, batch["id"]))] == ["input.jsonl"]
    await house.hand.complete(batch_job_id(batch["id"], 1))
    await house.tick()
    found = {file["name"]: file for file in await _files(house, batch["id"])}
    assert set(found) == {"input.jsonl", "results.jsonl", "errors.jsonl", "SHA256SUMS", "index.html", "manifest.json"}
    for file in found.values():
        async with httpx.AsyncClient() as anybody:
            answer = await anybody.get(file["url"])
        assert (answer.status_code, answer.content) == (200, await house.bucket.get_bytes(file["key"])), file["name"]
    failed = await house.taken_in(lines({"input": {}}))
    assert [file["name"] for file in (await _files(house, failed["id"]))] == ["input.jsonl", "errors.jsonl"]


async def _files(house: House, batch_id: str) -> list[dict[str, Any]]:
    answer = await house.client.get(f"/v1/batches/{batch_id}/files")
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_results_and_errors_come_in_parts_where_that_is_wanted(house: House) -> None:
    batch = await house.taken_in(lines(*(line(f"p{n}") for n in range(5))))
    names = [batch_job_id(batch["id"], n) for n in range(1, 6)]
    for name in (names[0], names[2], names[3]):
        await house.hand.complete(name)
    for name in (names[1], names[4]):
        await house.client.post(f"/v1/jobs/{name}/cancel")
    assert [row["line"] for row in await _lines(house, batch["id"], limit=2)] == [1, 3]
    assert [row["line"] for row in await _lines(house, batch["id"], limit=2, after=3)] == [4]
    assert [row["line"] for row in await house.get(batch["id"], "/errors?limit=1")] == [2]
    assert [row["line"] for row in await house.get(batch["id"], "/errors?limit=1&after=2")] == [5]
    is_problem(await house.client.get(f"/v1/batches/{batch['id']}/results?limit=0"), 422, "invalid_request")


@pytest.mark.parametrize(
    ("links", "full"), [("signed", "X-Amz-Signature="), ("download", '"full":"images/mars-0.png"')]
)
async def test_the_contact_sheet_shows_what_has_ended_by_now(house: House, links: str, full: str) -> None:
    batch = await house.taken_in(lines(line("red <planet>", custom_id="mars"), line("venus")))
    await house.hand.complete(batch_job_id(batch["id"], 1))
    answer = await house.client.get(f"/v1/batches/{batch['id']}/contact-sheet", params={"links": links})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store", "it holds signed URLs"
    assert answer.text.count('"status":"succeeded"') == 1
    assert "red \\u003cplanet>" in answer.text
    assert "venus" not in answer.text
    assert full in answer.text


async def _lines(house: House, batch_id: str, **query: Any) -> list[Any]:  # noqa: ANN401 - any query
    answer = await house.client.get(f"/v1/batches/{batch_id}/results", params=query)
    return [json.loads(text) for text in answer.text.splitlines()]


async def test_a_dry_run_says_what_it_would_come_to_and_stores_nothing(house: House, redis: Redis) -> None:
    await house.client.get("/v1/batches")
    keys = set(await redis.keys("*"))
    tried = (await house.post(MISTAKES, dry_run="true", on_invalid="skip", finish_by="2099-01-01T00:00:00Z")).json()
    assert (tried["valid"], tried["invalid"]) == (2, 3)
    assert tried["counts"] == {"lines": 5, "jobs": 2, "pictures": 2, "duplicate_inputs": 0}
    assert tried["cost"]["expected_usd"] == pytest.approx(2 * 0.008388608)
    assert tried["forecast"]["meets_finish_by"] is True
    assert [e["line"] for e in tried["errors"]] == [2, 3, 5]
    assert set(await redis.keys("*")) == keys


async def test_a_dry_run_counts_lines_that_ask_for_the_same(house: House) -> None:
    body = lines(line("a", custom_id="x"), line("b"), {"input": {"num_images": 1, "prompt": "a"}}, line("a"))
    tried = (await house.post(body, dry_run="true")).json()
    assert (tried["valid"], tried["counts"]["duplicate_inputs"]) == (4, 2)


async def test_job_events_need_a_receiver(house: House) -> None:
    problem = is_problem(await house.post(lines(line("a")), job_events="true"), 422, "invalid_request")
    assert (problem["detail"], problem["errors"]) == (
        "job_events needs webhook_url",
        [{"detail": "job_events needs webhook_url"}],
    )
    batch = await house.taken_in(lines(line("a")), job_events="true", webhook_url="https://a.example/")
    assert batch["job_events"] is True
    await house.hand.complete(batch_job_id(batch["id"], 1))
    await house.tick()
    owed = (await house.client.get("/v1/deliveries")).json()["data"]
    assert [delivery["event_type"] for delivery in owed] == ["batch.completed", "job.succeeded"]


async def _stages(house: House, batch_id: str) -> list[str]:
    """Of its jobs in line order; the same by the listing's filter."""
    jobs = (await house.client.get("/v1/jobs", params={"batch_id": batch_id})).json()["data"]
    stages = [job["stage"] for job in reversed(jobs)]
    for stage in set(stages):
        found = (await house.client.get("/v1/jobs", params={"batch_id": batch_id, "stage": stage})).json()["data"]
        assert len(found) == stages.count(stage), stage
    return stages


async def test_a_batchs_jobs_say_what_they_wait_for(house: House) -> None:
    batch = await house.taken_in(lines(line("a"), line("b")), canary=1)
    assert await _stages(house, batch["id"]) == ["waiting_for_slot", "paused"]
    await house.client.post(f"/v1/batches/{batch['id']}/pause")
    assert await _stages(house, batch["id"]) == ["paused", "paused"]
    await house.client.post(f"/v1/batches/{batch['id']}/resume")
    await house.hand.schedule.close_gate("", BlockedError("no balance"))
    assert await _stages(house, batch["id"]) == ["blocked", "paused"]
    later = await house.taken_in(lines(line("a")), not_before="2099-01-01T00:00:00Z")
    assert await _stages(house, later["id"]) == ["scheduled"]


async def test_a_used_up_budget_blocks(house: House) -> None:
    batch = await house.taken_in(lines(line("a"), line("b")), budget_usd="0.01")
    first, second = (batch_job_id(batch["id"], n) for n in (1, 2))
    await house.hand.complete(first)
    job = await house.hand.claim(second)
    assert await house.hand.transitions.open_submission(job, "sub_x") == "budget"
    assert await house.hand.transitions.snooze(job.id, job.lease or "")
    assert (await house.client.get(f"/v1/jobs/{second}")).json()["stage"] == "blocked"


async def test_an_idempotency_key_holds_for_the_whole_upload(house: House) -> None:
    body, key = lines(line("once")), {**JSONL, "Idempotency-Key": "k-1"}
    first = await house.post(body, key, name="n")
    again = await house.post(body, key, name="n")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    is_problem(await house.post(lines(line("twice")), key, name="n"), 422, "idempotency_key_reused")
    is_problem(await house.post(body, key, name="m"), 422, "idempotency_key_reused")


async def test_an_upload_in_progress_is_a_conflict(valkey_url: str, redis: Redis, s3: dict[str, str]) -> None:
    await redis.ping()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield lines(line("slow"))
        begun.set()
        await go_on.wait()
        yield lines(line("done"))

    headers = {**JSONL, "Idempotency-Key": "k-2"}
    async with served(valkey_url, **s3) as door:
        slow = asyncio.create_task(door.client.post("/v1/batches", content=slowly(), headers=headers))
        await begun.wait()
        await until(lambda: _holds(redis))
        whole = lines(line("slow"), line("done"))
        is_problem(await door.client.post("/v1/batches", content=whole, headers=headers), 409, "upload_in_progress")
        go_on.set()
        first = await slow
        assert first.status_code == 202
        again = await door.client.post("/v1/batches", content=whole, headers=headers)
        assert again.json()["id"] == first.json()["id"]


async def _holds(redis: Redis) -> bool:
    return bool(await redis.keys("dr:batch_idem:*"))


BAD_UPLOADS = {
    "a bomb": (
        gzip.compress(b"\n" * (300 * 1024 * 1024), 9),
        {**JSONL, "Content-Encoding": "gzip"},
        413,
        "batch_too_large",
    ),
    "too many lines": (b"{}\n" * 100_001, JSONL, 413, "batch_too_large"),
    "a long line": (b"x" * 300_000, JSONL, 413, "batch_too_large"),
    "no gzip": (b"hello", {**JSONL, "Content-Encoding": "gzip"}, 422, "invalid_upload"),
    "half a gzip": (gzip.compress(b"{}\n" * 999)[:-9], {**JSONL, "Content-Encoding": "gzip"}, 422, "invalid_upload"),
    "an unknown column": (b"prompt,colour\na,b\n", {"Content-Type": "text/csv"}, 422, "invalid_upload"),
    "an open quote": (b'prompt\n"a\n', {"Content-Type": "text/csv"}, 422, "invalid_upload"),
    "an array": (b"[]", {"Content-Type": "application/json"}, 422, "invalid_upload"),
    "a picture": (b"\x89PNG", {"Content-Type": "image/png"}, 415, "unsupported_media_type"),
    "a form without a file": (b"--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"}, 422, "invalid_upload"),
}


@pytest.mark.parametrize("what", BAD_UPLOADS)
async def test_an_upload_that_cannot_be_taken_leaves_nothing(house: House, redis: Redis, what: str) -> None:
    content, headers, status, code = BAD_UPLOADS[what]
    is_problem(await house.post(content, {**headers, "Idempotency-Key": "k"}), status, code)
    assert await redis.keys("dr:batch*") == []


async def test_an_empty_upload_fails(house: House) -> None:
    batch = await house.taken_in(b"\n\n")
    assert (batch["status"], batch["status_reason"]) == ("failed", "empty")


async def test_a_crash_in_the_middle_of_an_intake_leaves_nothing_running_and_is_made_up_for(
    house: House, redis: Redis
) -> None:
    answer = await house.post(lines(*(line(f"p{n}") for n in range(900))))
    batch_id = answer.json()["id"]
    intake = house.work._steps["intake"].__self__  # type: ignore[index,attr-defined]
    batch = await house.batches.get(batch_id)
    assert batch is not None
    original, calls = house.batches.add_jobs, 0

    class Dying:
        """The store, until its second slice."""

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
            return getattr(house.batches, name)

        async def add_jobs(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401 - passed on
            nonlocal calls
            calls += 1
            if calls > 1:
                raise RuntimeError("the worker died")
            return bool(await original(*args, **kwargs))

    dying = BatchIntake(Dying(), house.bucket, prefix="renders/", price_per_megapixel=Decimal("0.008"))
    with pytest.raises(RuntimeError):
        await dying.run(batch_id)
    await house.hand.schedule.dispatch()
    assert await redis.llen("dr:outbox") == 0
    half = await house.get(batch_id)
    assert (half["status"], 0 < half["counts"]["total"] < 900) == ("validating", True)
    await intake.run(batch_id)
    whole = await house.get(batch_id)
    assert (whole["status"], whole["counts"]["total"]) == ("queued", 900)


async def test_another_accounts_batch_does_not_exist(house: House) -> None:
    is_problem(await house.client.get("/v1/batches/batch_" + "0" * 26), 404, "not_found")
    is_problem(await house.client.post("/v1/batches/nonsense/cancel"), 404, "not_found")
    theirs = await house.taken_in(lines(line("a secret")))
    accounts = house.door.services.accounts
    await accounts.create("acct_" + "1" * 26, "other", "whsec_AAAA")
    await accounts.create_key("acct_" + "1" * 26, "the-key-of-another-account")
    stranger = {"Authorization": "Bearer the-key-of-another-account"}
    for part in ("", "/results", "/errors", "/files", "/contact-sheet"):
        is_problem(await house.client.get(f"/v1/batches/{theirs['id']}{part}", headers=stranger), 404, "not_found")
    for verb in ("pause", "resume", "cancel", "retry-failed"):
        is_problem(await house.client.post(f"/v1/batches/{theirs['id']}/{verb}", headers=stranger), 404, "not_found")


async def test_pause_resume_cancel_and_the_listing(house: House) -> None:
    ids = [
        (await house.taken_in(lines(line("a")), name=f"n{n}", not_before="2099-01-01T00:00:00Z"))["id"]
        for n in range(3)
    ]
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelling")):
        answer = await house.client.post(f"/v1/batches/{ids[0]}/{verb}")
        assert (answer.status_code, answer.json()["status"]) == (202, status), answer.text
    is_problem(await house.client.post(f"/v1/batches/{ids[0]}/pause"), 409, "batch_state")
    await house.tick()
    await house.tick()
    assert (await house.get(ids[0]))["status"] == "cancelled"
    page = (await house.client.get("/v1/batches", params={"limit": 2})).json()
    assert [batch["id"] for batch in page["data"]] == [ids[2], ids[1]]
    page = (await house.client.get("/v1/batches", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == ([ids[0]], False)
