"""A file of jobs the whole way: taken in, rendered, its outcome in the bucket, one webhook; whatever dies."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any
from urllib.parse import unquote, urljoin

import httpx
from PIL import Image

from tests.e2e.studio import Receiver, Studio, eventually

ENDED = {"completed", "cancelled", "failed", "expired"}


def upload(house: Studio, prompts: list[str], **query: Any) -> str:  # noqa: ANN401 - any query
    lines = [{"custom_id": f"c{n}", "input": {"prompt": p, "image_size": "square"}} for n, p in enumerate(prompts)]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    answer = house.api.post(
        "/v1/batches", content=content, params=query, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def batch(house: Studio, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = house.api.get(f"/v1/batches/{batch_id}").json()
    return found


def in_status(house: Studio, batch_id: str, *statuses: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        seen = batch(house, batch_id)
        return seen if seen["status"] in statuses else None

    return eventually(look, f"{batch_id} in {statuses}: {batch(house, batch_id)}", 100)


def rows(house: Studio, batch_id: str, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in house.api.get(f"/v1/batches/{batch_id}/{part}").text.splitlines()]


def test_a_batch_is_rendered_once_each_and_its_owner_is_told_once_though_every_worker_dies(house: Studio) -> None:
    prompts = [f"one of a dying worker's batch {n}" for n in range(12)]
    with Receiver() as receiver:
        batch_id = upload(house, prompts, webhook_url=receiver.url)
        eventually(lambda: batch(house, batch_id)["counts"]["succeeded"] >= 2, "two are done")
        house.kill_workers()
        house.start_workers()
        seen = in_status(house, batch_id, *ENDED)
        told = receiver.next()
        assert receiver.hooks.empty()
    assert (seen["status"], seen["counts"]["succeeded"]) == ("completed", 12), seen
    document = json.loads(told.body)
    assert (document["type"], document["data"]["id"]) == ("batch.completed", batch_id)
    assert document["data"]["counts"]["succeeded"] == 12
    paid = Counter(entry["input"]["prompt"] for entry in house.ledger()["requests"])
    assert [paid[prompt] for prompt in prompts] == [1] * 12
    results = rows(house, batch_id, "results")
    assert [row["custom_id"] for row in results] == [f"c{n}" for n in range(12)]
    assert rows(house, batch_id, "errors") == []


def test_every_picture_is_on_the_contact_sheet_with_a_thumbnail(house: Studio) -> None:
    batch_id = upload(house, ["a fox & <b>friends</b>", "a lighthouse"])
    in_status(house, batch_id, *ENDED)
    images = [row["images"][0] for row in rows(house, batch_id, "results")]
    for image in images:
        small = Image.open(io.BytesIO(httpx.get(image["thumbnail"]["url"]).content))
        assert (small.format, small.size) == ("JPEG", (256, 256))
        assert len(httpx.get(image["url"]).content) == image["bytes"]
    in_bucket = {file["name"]: file for file in house.api.get(f"/v1/batches/{batch_id}/files").json()["data"]}
    page = sheet_rows(httpx.get(in_bucket["index.html"]["url"]).text)
    assert [row["prompt"] for row in page] == ["a fox & <b>friends</b>", "a lighthouse"]
    # The bucket's own page is relative to where it lies.
    for row, image in zip(page, images, strict=True):
        links = {"thumb": image["thumbnail"]["key"], "full": image["key"]}
        for name, key in links.items():
            assert unquote(urljoin(f"/{in_bucket['index.html']['key']}", row["images"][0][name])) == f"/{key}"
    signed = sheet_rows(house.api.get(f"/v1/batches/{batch_id}/contact-sheet").text)
    assert [httpx.get(row["images"][0]["thumb"]).status_code for row in signed] == [200, 200]


def sheet_rows(page: str) -> list[dict[str, Any]]:
    """What the page's script reads."""
    data = page.partition('<script type="application/jsonl" id="rows">')[2].partition("</script>")[0]
    return [json.loads(line) for line in data.split("\n") if line]


def test_a_budget_stops_a_batch_before_it_is_exceeded_and_a_cancellation_ends_it(house: Studio) -> None:
    price = 512 * 512 * 0.008 / 1e6
    prompts = [f"one of a poor batch {n}" for n in range(9)]
    batch_id = upload(house, prompts, budget_usd=f"{3.5 * price:.9f}")
    seen = in_status(house, batch_id, "paused")
    assert seen["status_reason"] == "budget"
    assert seen["cost"]["spent_usd"] <= 3.5 * price
    assert sum(len(house.requests(prompt)) for prompt in prompts) == 3
    house.api.post(f"/v1/batches/{batch_id}/cancel")
    seen = in_status(house, batch_id, "cancelled")
    assert (seen["counts"]["succeeded"], seen["counts"]["cancelled"]) == (3, 6)
    assert {row["error"]["code"] for row in rows(house, batch_id, "errors")} == {"batch_cancelled"}
