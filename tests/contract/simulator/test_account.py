"""What the account can read: the listing, the billing events, and the simulator's own ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.config import Config, FaultRule
from tests.contract.simulator.kit import MODEL, SLOW, SMALL, Fal, StartSimulator

_LISTING = f"/v1/models/requests/by-endpoint?endpoint_id={MODEL}"


async def test_the_listing_pages_from_the_latest_end_and_omits_what_runs(start: StartSimulator) -> None:
    fal = await start(Config(latency=0, concurrency=1))
    taken = [await fal.generated({**SMALL, "seed": seed}) for seed in range(5)]
    seen, cursor = [], ""
    while True:
        status, page = await fal.get(f"{_LISTING}&limit=2&expand=payloads{cursor}")
        assert status == 200
        seen += page["items"]
        if not page["has_more"]:
            break
        if not cursor:  # a request that ends between two pages shifts nothing
            await fal.generated({**SMALL, "seed": 99})
        cursor = f"&cursor={page['next_cursor']}"
    assert [item["request_id"] for item in seen] == [one["request_id"] for one in reversed(taken)]
    assert [item["json_input"]["seed"] for item in seen] == [4, 3, 2, 1, 0]
    assert {item["status_code"] for item in seen} == {200}
    assert all(item["sent_at"] <= item["started_at"] <= item["ended_at"] for item in seen)
    assert seen[0]["json_output"] == (await fal.get(taken[4]["response_url"]))[1]


async def test_a_running_request_is_not_listed(start: StartSimulator) -> None:
    fal = await start(SLOW)
    await fal.submit()
    assert (await fal.get(_LISTING))[1]["items"] == []


async def test_the_listing_keeps_to_its_window(fal: Fal) -> None:
    await fal.generated()
    _, page = await fal.get(f"{_LISTING}&start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z")
    assert page == {"items": [], "has_more": False, "next_cursor": None}
    _, page = await fal.get(f"{_LISTING}&start=2020-01-01T00:00:00Z")
    assert len(page["items"]) == 1
    assert "json_input" not in page["items"][0]
    for bad in ("&limit=101", "&limit=x", "&cursor=9", "&start=yesterday"):
        assert (await fal.get(_LISTING + bad))[0] == 422


@pytest.mark.parametrize(("name", "status"), [("listing_403", 403), ("listing_5xx", 503)])
async def test_the_listing_cannot_be_read(fal: Fal, name: str, status: int) -> None:
    await fal.arm(name)
    async with fal.http.get(fal.origin + _LISTING) as response:
        assert response.status == status


async def test_cancel_is_told_that_nobody_knows_the_request(start: StartSimulator) -> None:
    fal = await start(SLOW)
    _, taken = await fal.submit()
    await fal.arm("cancel_404")
    async with fal.http.put(taken["cancel_url"]) as response:
        assert response.status == 404
    assert (await fal.get("/_sim/inflight"))[1] == {"queued": 0, "running": 1}


async def test_billing_events_name_units_and_price(fal: Fal) -> None:
    taken = await fal.generated()
    _, body = await fal.get(f"/v1/models/billing-events?request_id={taken['request_id']}")
    assert [(item["output_units"], item["unit_price"]) for item in body["items"]] == [(0.003072, 0.008)]


async def test_the_ledger_is_kept_in_a_file_and_forgotten_on_reset(start: StartSimulator, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fal = await start(Config(latency=0, ledger_path=path, faults={"submit_408": FaultRule(0.0)}))
    taken = await fal.generated()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["request_id"] for line in lines} == {taken["request_id"]}
    assert (lines[0]["outcome"], lines[-1]["outcome"]) == ("queued", "completed")
    assert lines[-1].items() >= (await fal.ledger())["requests"][0].items()
    _, summary = await fal.get("/_sim/ledger?summary=1")
    assert summary["totals"] == {"billed": 1, "billable_units": "0.003072", "outcomes": {"completed": 1}}
    assert "requests" not in summary
    await fal.arm("submit_401", times=5)
    async with fal.http.post(f"{fal.origin}/_sim/reset") as response:
        assert response.status == 200
    ledger = await fal.ledger()
    assert (ledger["requests"], ledger["counters"]["posts"], path.read_text()) == ([], 0, "")
    assert (await fal.submit())[0] == 200
