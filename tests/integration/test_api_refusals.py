"""What the door refuses, and how: always a problem document with a code of the table, never a 500."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from api.problems import KINDS
from darkroom.domain.ids import new_id
from darkroom.settings import ApiSettings
from tests.integration.api_door import PROMPT, Door, is_problem, opened

TEXT = "application/json"


@pytest.fixture
async def door(redis: Redis, valkey_url: str) -> AsyncIterator[Door]:  # noqa: ARG001 - an empty database
    async with opened(valkey_url) as it:
        yield it


def given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON there is
    return {"input": {"prompt": "Mars", **fields}}


INVALID: list[tuple[Any, str]] = [
    ({}, "/input"),
    ({"input": {}}, "/input/prompt"),
    ({"input": None}, "/input"),
    ({"input": []}, "/input"),
    ([], ""),
    ("text", ""),
    (7, ""),
    (None, ""),
    (given(prompt=7), "/input/prompt"),
    (given(prompt=None), "/input/prompt"),
    (given(prompt="a\x00b"), "/input/prompt"),
    (given(num_images=5), "/input/num_images"),
    (given(num_images=0), "/input/num_images"),
    (given(num_images="2"), "/input/num_images"),
    (given(num_images=1.5), "/input/num_images"),
    (given(num_images=True), "/input/num_images"),
    (given(num_images=10**400), "/input/num_images"),
    (given(seed=2**63), "/input/seed"),
    (given(seed=-(10**1000)), "/input/seed"),
    (given(seed="7"), "/input/seed"),
    (given(image_size="huge"), "/input/image_size"),
    (given(image_size={"width": 0, "height": 10}), "/input/image_size/width"),
    (given(image_size={"width": 14143, "height": 10}), "/input/image_size/width"),
    (given(image_size={"width": 10}), "/input/image_size/height"),
    (given(image_size={"width": 10, "height": 10, "depth": 1}), "/input/image_size/depth"),
    (given(acceleration="high"), "/input/acceleration"),
    (given(sync_mode=True), "/input/sync_mode"),
    (given(enable_safety_checker="yes"), "/input/enable_safety_checker"),
    (given(output_format="webp"), "/input/output_format"),
    (given(promt="typo"), "/input/promt"),
    (given(**{"a/b~c": 1}), "/input/a~1b~0c"),
    ({**PROMPT, "inputs": {}}, "/inputs"),
    ({**PROMPT, "lane": "fast"}, "/lane"),
    ({**PROMPT, "model": 7}, "/model"),
    ({**PROMPT, "metadata": {"a": 1}}, "/metadata/a"),
    ({**PROMPT, "metadata": {"a": None}}, "/metadata/a"),
    ({**PROMPT, "metadata": {"a": "x" * 513}}, "/metadata/a"),
    ({**PROMPT, "metadata": {"k" * 65: "x"}}, "/metadata/" + "k" * 65),
    ({**PROMPT, "metadata": {str(i): "x" for i in range(17)}}, "/metadata"),
    ({**PROMPT, "metadata": "x"}, "/metadata"),
    ({**PROMPT, "metadata": {"a\x00": "x"}}, "/metadata"),
    ({**PROMPT, "deadline_seconds": 0}, "/deadline_seconds"),
    ({**PROMPT, "deadline_seconds": 30 * 86400 + 1}, "/deadline_seconds"),
    ({**PROMPT, "deadline_seconds": "60"}, "/deadline_seconds"),
    ({**PROMPT, "webhook_url": 7}, "/webhook_url"),
]


async def test_mistakes_in_a_body_are_pointed_at(door: Door) -> None:
    for body, pointer in INVALID:
        answer = await door.client.post("/v1/jobs", content=json.dumps(body), headers={"Content-Type": TEXT})
        problem = is_problem(answer, 422, "invalid_request")
        assert pointer in [mistake["pointer"] for mistake in problem["errors"]], body
    assert await door.services.redis.hget("dr:counts", "queued") is None


BROKEN: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("not JSON", b"{"),
    ("trailing text", b'{"input": {"prompt": "a"}} more'),
    ("single quotes", b"{'input': 1}"),
    ("NaN", b'{"input": {"prompt": "a", "seed": NaN}}'),
    ("Infinity", b'{"input": {"prompt": "a", "seed": -Infinity}}'),
    ("deep lists", b"[" * 100_000),
    ("deep closed lists", b"[" * 5_000 + b"]" * 5_000),
    ("deep objects", b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    ("deeper than anyone needs", b'{"input":' * 70 + b"1" + b"}" * 70),
    ("a number of 10,000 digits", b'{"input": {"prompt": "a", "seed": ' + b"9" * 10_000 + b"}}"),
    ("not UTF-8", b'{"input": {"prompt": "\xff\xfe"}}'),
    ("UTF-16", '{"input": {"prompt": "a"}}'.encode("utf-16")),
    ("raw NUL", b'{"input": {"prompt": "a\x00b"}}'),
]


@pytest.mark.parametrize("replaying", [False, True])
async def test_what_is_no_json_is_said_to_be_none(door: Door, replaying: bool) -> None:  # noqa: FBT001
    path = f"/v1/jobs/{(await door.create())['id']}/replay" if replaying else "/v1/jobs"
    for name, body in BROKEN:
        if not (replaying and not body):  # a replay needs no body
            answer = await door.client.post(path, content=body, headers={"Content-Type": TEXT})
            assert is_problem(answer, 422, "invalid_json"), name


@pytest.mark.parametrize("text", [r'{"input": {"prompt": "\ud800"}}', r'{"\udfff": 1, "input": {"prompt": "a"}}'])
async def test_lone_surrogates_are_refused(door: Door, text: str) -> None:
    is_problem(await door.client.post("/v1/jobs", content=text, headers={"Content-Type": TEXT}), 422, "invalid_request")


async def test_what_is_odd_but_right_is_taken(door: Door) -> None:
    """A byte order mark, a repeated name, an escape of a whole character, and no content type at all."""
    text = '\ufeff{"input": {"prompt": "first"}, "input": {"prompt": "\\ud83d\\ude00"}}'
    for headers in ({"Content-Type": "application/vnd.api+json; charset=utf-8"}, {}):
        answer = await door.client.post("/v1/jobs", content=text.encode(), headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.json()["input"]["prompt"] == "\U0001f600"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_other_media_types_are_refused(door: Door, kind: str) -> None:
    answer = await door.client.post("/v1/jobs", content=json.dumps(PROMPT), headers={"Content-Type": kind})
    is_problem(answer, 415, "unsupported_media_type")


async def test_another_model_is_refused(door: Door) -> None:
    answer = await door.client.post("/v1/jobs", json={**PROMPT, "model": "fal-ai/flux"})
    assert is_problem(answer, 422, "model_unknown")["errors"][0]["pointer"] == "/model"


@pytest.mark.parametrize(
    "url",
    ["nonsense", "ftp://a.example/", "http://127.0.0.1/", "http://169.254.169.254/", "https://u:p@a.example/", ""],
)
async def test_receivers_that_may_not_be_reached_are_refused(door: Door, url: str) -> None:
    answer = await door.client.post("/v1/jobs", json={**PROMPT, "webhook_url": url})
    assert is_problem(answer, 422, "invalid_webhook_url")["errors"][0]["pointer"] == "/webhook_url"


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "caf\xe9", "a\tb", '"a"b"' + "x" * 255])
async def test_odd_idempotency_keys_are_refused(door: Door, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = await door.client.post("/v1/jobs", json=PROMPT, headers=headers)  # type: ignore[arg-type]
    is_problem(answer, 422, "idempotency_key_invalid")


KEYED = [
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/x"),
    ("POST", "/v1/jobs/x/cancel"),
    ("POST", "/v1/jobs/x/replay"),
    ("DELETE", "/v1/jobs/x"),
    ("GET", "/v1/jobs/x/events"),
    ("GET", "/v1/events"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/webhook-secret"),
    ("GET", "/v1/deliveries"),
    ("POST", "/v1/deliveries/x/redeliver"),
]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer \xe9", "bearer"])
async def test_without_a_valid_key_nothing_is_looked_at(door: Door, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")}
    for method, path in KEYED:
        answer = await door.client.request(method, path, content=b"{", headers=headers)  # type: ignore[arg-type]
        is_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_revoked_key_opens_nothing(door: Door) -> None:
    assert (await door.client.get("/v1/jobs")).status_code == 200
    key = (await door.services.accounts.keys(f"acct_{'0' * 26}"))[0]
    await door.services.accounts.revoke_key(key.id)
    is_problem(await door.client.get("/v1/jobs"), 401, "unauthorized")


@pytest.mark.parametrize("name", ["x", "job_", "job_" + "U" * 26, "job_" + "0" * 25, "dlv_" + "0" * 26, "%00", "..%2F"])
async def test_what_is_no_id_is_not_found(door: Door, name: str) -> None:
    for method, path in KEYED:
        if "/x" in path:
            answer = await door.client.request(method, path.replace("/x", f"/{name}", 1))
            is_problem(answer, 404, "not_found")


async def test_another_accounts_things_do_not_exist(door: Door) -> None:
    await door.services.accounts.create("acct_" + "1" * 26, "other", "whsec_AAAA")
    await door.services.accounts.create_key("acct_" + "1" * 26, "the-key-of-another-account")
    mine = await door.create(webhook_url="https://a.example/")
    await door.client.post(f"/v1/jobs/{mine['id']}/cancel")
    mine = await door.create()
    await door.create()
    cursor = (await door.client.get("/v1/jobs?limit=1")).json()["next_cursor"]
    delivery = (await door.client.get("/v1/deliveries")).json()["data"][0]["id"]
    door.client.headers["Authorization"] = "Bearer the-key-of-another-account"
    for method, path in (
        *[("GET", ""), ("GET", "?wait=1"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/replay")],
        ("DELETE", ""),
    ):
        is_problem(await door.client.request(method, f"/v1/jobs/{mine['id']}{path}"), 404, "not_found")
    is_problem(await door.client.post(f"/v1/deliveries/{delivery}/redeliver"), 404, "not_found")
    is_problem(await door.client.get("/v1/jobs", params={"cursor": cursor}), 422, "invalid_cursor")
    for path in ("/v1/jobs", "/v1/events", "/v1/deliveries", f"/v1/deliveries?job_id={mine['id']}"):
        assert (await door.client.get(path)).json()["data"] == []


@pytest.mark.parametrize("cursor", ["x", "AAAA", "A" * 60, "é", "=", "a" * 513])
async def test_made_up_cursors_are_refused(door: Door, cursor: str) -> None:
    answer = await door.client.get("/v1/jobs", params={"cursor": cursor})
    is_problem(answer, 422, "invalid_request" if len(cursor) > 512 else "invalid_cursor")


async def test_a_cursor_with_one_letter_changed_is_refused(door: Door) -> None:
    for _ in range(2):
        await door.create()
    cursor = (await door.client.get("/v1/jobs?limit=1")).json()["next_cursor"]
    for position in (0, len(cursor) // 2, len(cursor) - 3):
        changed = cursor[:position] + ("A" if cursor[position] != "A" else "B") + cursor[position + 1 :]
        is_problem(await door.client.get("/v1/jobs", params={"cursor": changed}), 422, "invalid_cursor")


ODD_QUERIES = [
    "/v1/jobs?limit=0",
    "/v1/jobs?limit=101",
    "/v1/jobs?limit=x",
    "/v1/jobs?status=done",
    "/v1/jobs?staus=queued",
    "/v1/jobs?batch_id=job_" + "0" * 26,
    "/v1/jobs?created_after=yesterday",
    "/v1/jobs?created_after=2026-01-01T00:00:00",
    "/v1/events?cursor=-1",
    "/v1/events?cursor=x",
    "/v1/events?limit=1000",
    "/v1/deliveries?job_id=x",
    "/v1/deliveries?status=lost",
    "/v1/usage?from=2026-02-30",
    "/v1/usage?to=0",
    "/v1/jobs?created_before=0",
    "/v1/usage?from=2026-02-02&to=2026-02-01",
    "/v1/usage?from=2025-01-01&to=2026-01-02",
    "/v1/usage?from=0001-01-01",
]


async def test_odd_queries_are_refused(door: Door) -> None:
    for path in ODD_QUERIES:
        problem = is_problem(await door.client.get(path), 422, "invalid_request")
        assert all(mistake["parameter"] for mistake in problem["errors"]), path


async def test_odd_waits_are_refused(door: Door) -> None:
    job_id = (await door.create())["id"]
    for wait in ("61", "-1", "x", "1.5", ""):
        is_problem(await door.client.get(f"/v1/jobs/{job_id}", params={"wait": wait}), 422, "invalid_request")


async def test_the_router_speaks_in_problems_too(door: Door) -> None:
    is_problem(await door.client.get("/v2/jobs"), 404, "not_found")
    is_problem(await door.client.get("/v1/jobs/"), 404, "not_found")
    answer = await door.client.put("/v1/jobs", json={})
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    answer = await door.client.patch(f"/v1/jobs/{new_id('job')}")
    assert answer.headers["allow"] == "DELETE, GET"


async def test_every_kind_of_problem_has_its_page(door: Door) -> None:
    for code, kind in KINDS.items():
        page = await door.client.get(f"/problems/{code}", headers={"Authorization": ""})
        assert page.status_code == 200
        assert kind.title in page.text
    is_problem(await door.client.get("/problems/x"), 404, "not_found")


async def test_ids_of_nothing_are_not_found(door: Door) -> None:
    is_problem(await door.client.get(f"/v1/jobs/{new_id('job')}"), 404, "not_found")
    is_problem(await door.client.post(f"/v1/deliveries/{new_id('dlv')}_0/redeliver"), 404, "not_found")


def test_the_api_needs_no_key_of_fals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY", raising=False)
    assert ApiSettings().port == 8000
