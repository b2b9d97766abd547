"""What a person sees of a batch: its head, a card for each line, and a word where there is nothing to see."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from tests.browser.kit import BATCH_ID, BY, a_batch, a_failure, a_row, an_image, draw, render
from tests.browser.window import Window, served

REFUSED = "fal refused the prompt: it was flagged by the safety checker."


def test_a_downloaded_copy_opened_from_its_folder_shows_its_pictures(window: Window) -> None:
    rows = [a_row(line) for line in (1, 2, 3)]
    draw(window.folder, rows)
    window.look_at(a_batch(rows), rows)
    window.expect_lines(1, 2, 3)
    for line in (1, 2, 3):
        window.expect_loaded(window.card(line).locator("img"))
    assert {address.partition(":")[0] for address in window.requests if address != "about:blank"} <= {"file", "data"}


def test_the_same_folder_on_a_web_server_shows_them_too(window: Window) -> None:
    rows = [a_row(line) for line in (1, 2)]
    draw(window.folder, rows)
    with served(window.folder) as at:
        window.look_at(a_batch(rows), rows, at=at)
        for line in (1, 2):
            window.expect_loaded(window.card(line).locator("img"))
        outside = [address for address in window.requests if not address.startswith((at, "data:", "about:"))]
        assert outside == []


def test_a_card_says_what_was_asked_for_and_what_it_cost(window: Window) -> None:
    row = a_row(17, prompt="a lighthouse in fog", custom_id="shore/17", cost_usd=0.0047)
    window.look_at(a_batch([row]), [row])
    card = window.card(17)
    for words in ("a lighthouse in fog", "shore/17", "$0.0047", "seed 123", f"1024 {BY} 576"):
        expect(card).to_contain_text(words)
    expect(card).to_have_attribute("aria-label", "Line 17. shore/17. a lighthouse in fog")


def test_a_thumbnail_keeps_its_shape(window: Window) -> None:
    wide = [a_row(line) for line in (1, 2)]
    tall = a_row(3, images=[an_image("poster-3-0", width=576, height=1024)])
    draw(window.folder, [*wide, tall])
    window.look_at(a_batch([*wide, tall]), [*wide, tall])
    for line, fit in ((1, 1024 / 576), (3, 576 / 1024)):
        picture = window.card(line).locator("img")
        window.expect_loaded(picture)
        expect(picture).to_have_css("object-fit", "contain")
        shape = picture.evaluate("(image) => image.naturalWidth / image.naturalHeight")
        assert abs(shape - fit) < 0.02
    frame = window.card(1).locator(".picture").bounding_box()
    assert frame is not None
    assert abs(frame["width"] / frame["height"] - 1024 / 576) < 0.02, "the commonest shape fills its frame"


def test_a_job_with_several_pictures_shows_them_all(window: Window) -> None:
    row = a_row(1, images=[an_image(f"poster-1-{nth}", seed=nth) for nth in range(3)], cost_usd=0.0141)
    draw(window.folder, [row])
    window.look_at(a_batch([row]), [row])
    expect(window.card(1).locator("img")).to_have_count(3)
    for nth in range(3):
        window.expect_loaded(window.card(1).locator("img").nth(nth))
    expect(window.card(1)).to_contain_text("seed 0 +2")
    boxes = [window.card(1).locator(".frame").nth(nth).bounding_box() for nth in range(3)]
    places = [(box["x"], box["y"]) for box in boxes if box]
    assert places[0][1] == places[1][1], "two above, one below: as large as three wide pictures can be"
    assert places[0][0] == places[2][0]
    assert places[0][1] < places[2][1]


def test_a_warning_stands_on_the_picture_that_it_is_about(window: Window) -> None:
    images = [an_image("poster-1-0"), an_image("poster-1-1", unsafe=True, blank=True)]
    row = a_row(1, images=images, warnings=["unsafe", "blank"])
    window.look_at(a_batch([row]), [row])
    frames = window.card(1).locator(".frame")
    expect(frames.nth(0).locator(".badge")).to_have_count(0)
    expect(frames.nth(1).locator(".badge")).to_have_text(["unsafe", "blank"])


def test_a_line_without_pictures_is_a_card_that_says_why(window: Window) -> None:
    rows = [
        a_failure(1, "content_policy", REFUSED),
        a_failure(2, "cancelled", "the job was cancelled", "cancelled"),
        a_failure(3, "invalid_line", "/input/prompt: is missing", "invalid") | {"prompt": None, "job_id": None},
    ]
    window.look_at(a_batch(rows), rows)
    for line, words in ((1, "Failedcontent_policy" + REFUSED), (2, "Cancelled"), (3, "/input/prompt: is missing")):
        expect(window.card(line).locator(".cause")).to_contain_text(words)
    expect(window.page.locator(".cell img")).to_have_count(0)


def test_a_cancelled_job_with_its_picture_shows_both(window: Window) -> None:
    row = a_row(1, status="cancelled", error={"code": "cancelled", "message": "the job was cancelled"})
    draw(window.folder, [row])
    window.look_at(a_batch([row]), [row])
    window.expect_loaded(window.card(1).locator("img"))
    expect(window.card(1).locator(".badge")).to_have_text("cancelled")


def test_the_head_says_how_it_went_and_what_it_cost(window: Window) -> None:
    rows = [a_row(1), a_row(2), a_failure(3, "content_policy", REFUSED), a_failure(4, "x", "y", "invalid")]
    batch = a_batch(rows, cost={"spent_usd": 47.125, "budget_usd": 60}, status_reason="finish_by", status="expired")
    window.look_at(batch, rows)
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Posters for spring")
    expect(window.page).to_have_title("Posters for spring")
    expect(window.page.locator("#status")).to_have_text("expired: finish by")
    expect(window.page.locator("#facts")).to_contain_text(BATCH_ID)
    expect(window.page.locator("#facts")).to_contain_text("took 8 h 27 min")
    expect(window.page.locator("#figures > div")).to_have_text(
        ["Succeeded2", "Failed1", "Invalid lines1", "Spent$47.13 of $60.00"]
    )
    expect(window.page.locator("#causes button")).to_have_text([f"1content_policy{REFUSED}"])


def test_a_batch_without_a_name_goes_by_its_id(window: Window) -> None:
    window.look_at(a_batch([a_row(1)], name=""), [a_row(1)])
    expect(window.page.get_by_role("heading", level=1)).to_have_text(BATCH_ID)


def test_a_running_batch_says_how_many_are_still_to_come(window: Window) -> None:
    rows = [a_row(line) for line in (1, 2)]
    counts = {"total": 1240, "queued": 1200, "running": 30, "retrying": 5, "held": 3, "succeeded": 2}
    window.look_at(a_batch(rows, status="running", counts={**counts, "failed": 0, "cancelled": 0}), rows)
    expect(window.page.locator("#notices")).to_contain_text("1,238 jobs still to come.")
    expect(window.page.locator("#figures")).to_contain_text("Still to come1,238")


def test_a_batch_of_which_nothing_has_ended_says_so(window: Window) -> None:
    counts = dict.fromkeys(("running", "retrying", "held", "succeeded", "failed", "cancelled"), 0)
    window.look_at(a_batch(status="queued", counts={"total": 7, "queued": 7, **counts}), [])
    expect(window.page.locator("#empty")).to_contain_text("Nothing has ended yet.7 jobs still to come.")


def test_a_refused_upload_says_so(window: Window) -> None:
    window.look_at(a_batch(status="failed", status_reason="invalid_lines", invalid=12), [])
    expect(window.page.locator("#empty")).to_contain_text("Nothing was rendered.")
    expect(window.page.locator("#empty")).to_contain_text("12 lines are wrong")


def test_rows_in_any_order_are_shown_by_line(window: Window) -> None:
    rows = [a_row(3), a_row(1), a_row(20), a_row(2)]
    window.look_at(a_batch(rows), rows)
    window.expect_lines(1, 2, 3, 20)


def test_without_javascript_the_page_says_where_the_results_lie(chromium: Browser, window: Window) -> None:
    (window.folder / "index.html").write_text(render(a_batch([a_row(1)]), [a_row(1)]))
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((window.folder / "index.html").as_uri())
        expect(page.locator("noscript p").last).to_contain_text("results.jsonl")
        expect(page.locator("noscript p").last).to_be_visible()
    window.look_at(a_batch([a_row(1)]), [a_row(1)])
    expect(window.page.locator("noscript p")).to_have_count(0)


def test_the_thumbnails_grow_and_shrink_and_the_place_stays(window: Window) -> None:
    rows = [a_row(line) for line in range(1, 2001)]
    window.look_at(a_batch(rows), rows)
    window.page.evaluate("() => scrollTo(0, 30000)")
    window.page.wait_for_function("() => !document.querySelector('[data-place=\"0\"]')")
    card = window.card(_in_sight(window))
    before = card.bounding_box()
    columns = int(window.page.get_by_role("grid").get_attribute("aria-colcount") or 0)
    for size, change in (("100", "more"), ("440", "fewer")):
        window.page.get_by_label("Size of the thumbnails").fill(size)
        now = int(window.page.get_by_role("grid").get_attribute("aria-colcount") or 0)
        assert now > columns if change == "more" else now < columns
        after = card.bounding_box()
        assert before is not None
        assert after is not None
        assert abs(after["y"] - before["y"]) < 4
    window.expect_state("size=440")


def _in_sight(window: Window) -> int:
    """The line of the first card below the bar."""
    label = window.page.evaluate(
        """() => {
          const edge = document.getElementById("bar").getBoundingClientRect().bottom;
          const cells = [...document.querySelectorAll(".cell")];
          return cells.find((cell) => cell.getBoundingClientRect().top >= edge - 1).getAttribute("aria-label");
        }"""
    )
    found = re.match(r"Line (\d+)", label)
    assert found
    return int(found[1])


def test_a_phone_scrolls_in_one_direction_only(chromium: Browser, window: Window) -> None:
    rows = [a_row(line, prompt="a" * 300) for line in range(1, 30)]
    rows.append(a_row(30, warnings=["unsafe", "blank"]))  # more buttons than a phone is wide
    rows += [
        a_failure(31 + nth, "code", REFUSED, status) for nth, status in enumerate(("failed", "cancelled", "invalid"))
    ]
    (window.folder / "index.html").write_text(render(a_batch(rows), rows))
    with chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as context:
        phone = Window(context.new_page(), window.folder)
        phone.go((window.folder / "index.html").as_uri())
        assert phone.page.evaluate("() => document.documentElement.scrollWidth") == 390
        expect(phone.page.get_by_role("grid")).to_have_attribute("aria-colcount", "2")
        phone.card(1).tap()
        assert phone.box.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    window.go((window.folder / "index.html").as_uri())
