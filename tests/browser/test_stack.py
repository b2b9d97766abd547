"""The sheets of a batch that was really rendered: behind the API, in the bucket, and in a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.window import Window, served
from tests.e2e.studio import Studio, eventually, studio

PROMPTS = ["a lighthouse & <i>a</i> storm", "a fox", "a city", "content-policy-violation"]
"""fal refuses the last one."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A stack of its own, and fal in a hurry."""
    environment = {"DARKROOM_FAL_CONCURRENCY": "4"}
    simulator = ("--latency", "0.1", "--concurrency", "4", "--pool")
    with studio(tmp_path_factory.mktemp("stack"), environment=environment, simulator=simulator) as running:
        yield running


@pytest.fixture(scope="module")
def batch_id(house: Studio) -> str:
    """A batch of three pictures and one refusal, ended."""
    lines = [{"custom_id": f"a/{n}", "input": {"prompt": p, "image_size": "square"}} for n, p in enumerate(PROMPTS, 1)]
    answer = house.api.post(
        "/v1/batches",
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"Content-Type": "application/jsonl"},
        params={"name": "Tonight"},
    )
    found = str(answer.json()["id"])
    eventually(lambda: house.api.get(f"/v1/batches/{found}").json()["status"] == "completed", f"the end of {found}")
    return found


def test_signed_links_show_every_picture_wherever_the_page_is_opened(
    window: Window, house: Studio, batch_id: str
) -> None:
    file = window.folder / "sheet.html"
    file.write_bytes(house.api.get(f"/v1/batches/{batch_id}/contact-sheet").content)
    window.go(file.as_uri())
    assert window.page.title() == "Tonight: contact sheet"
    expect_three_pictures_and_a_refusal(window)


def test_the_buckets_own_page_finds_the_pictures_of_a_public_bucket(
    window: Window, house: Studio, batch_id: str
) -> None:
    """Served here from a copy of the account's part of the bucket, under the same keys."""
    sheet = ""
    for file in house.api.get(f"/v1/batches/{batch_id}/files").json()["data"]:
        copy(window.folder, file["key"], file["url"])
        sheet = file["key"] if file["name"] == "index.html" else sheet
    for row in results(house, batch_id):
        for image in row["images"]:
            copy(window.folder, image["key"], image["url"])
            copy(window.folder, image["thumbnail"]["key"], image["thumbnail"]["url"])
    with served(window.folder) as address:
        window.go(f"{address}/{sheet}")
        expect_three_pictures_and_a_refusal(window)


def test_the_page_in_a_download_needs_no_server(window: Window, house: Studio, batch_id: str) -> None:
    page = house.api.get(f"/v1/batches/{batch_id}/contact-sheet", params={"links": "download"})
    (window.folder / "index.html").write_bytes(page.content)
    for row in results(house, batch_id):
        for image in row["images"]:
            copy(window.folder, image["path"], image["url"])
            copy(window.folder, image["thumbnail"]["path"], image["thumbnail"]["url"])
    window.go((window.folder / "index.html").as_uri())
    expect_three_pictures_and_a_refusal(window)


def expect_three_pictures_and_a_refusal(window: Window) -> None:
    """What is on the sheet, small and in full."""
    shown = window.page.locator(".cell img")
    assert shown.count() == 3
    for number in range(3):
        window.expect_loaded(shown.nth(number))
    assert window.page.get_by_text("content_policy_violation").count() > 0
    window.filter("lighthouse")
    window.expect_lines(1)
    assert PROMPTS[0] in (window.card(1).text_content() or "")
    window.card(1).click()
    full = window.box.locator("img").last
    window.expect_loaded(full)
    window.page.wait_for_function("(image) => image.naturalWidth === 512", arg=full.element_handle())


def results(house: Studio, batch_id: str) -> list[dict[str, Any]]:
    answer = house.api.get(f"/v1/batches/{batch_id}/results")
    return [json.loads(line) for line in answer.text.splitlines()]


def copy(folder: Path, name: str, url: str) -> None:
    """What lies there, as a file of that name."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(httpx.get(url).raise_for_status().content)
