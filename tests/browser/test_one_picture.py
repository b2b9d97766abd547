"""One picture, large: how it is opened, what it says, how one goes on to the next, and what if it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser.kit import BATCH_ID, BY, a_batch, a_failure, a_row, an_image, draw
from tests.browser.window import Window, served

POEM = "a lighthouse in fog,\n" + "and beyond it the sea, " * 40
ROWS = [
    a_row(1, prompt=POEM, images=[an_image("poster-1-0", width=2048, height=1152, seed=7)]),
    a_row(
        2, images=[an_image(f"poster-2-{nth}", seed=20 + nth) for nth in range(3)], warnings=["unsafe"], cost_usd=0.02
    ),
    a_failure(3, "content_policy", "fal refused the prompt."),
    a_row(4),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A downloaded copy with its pictures."""
    folder = tmp_path_factory.mktemp("copy")
    draw(folder, ROWS)
    return folder


@pytest.fixture
def sheet(window: Window, copy: Path) -> Window:
    """A sheet of four lines with all its pictures."""
    window.folder = copy
    window.look_at(a_batch(ROWS), ROWS)
    return window


def expect_open(sheet: Window, line: int, picture: str = "") -> None:
    """This line is open, and of several pictures this one."""
    expect(sheet.box).to_be_visible()
    expect(sheet.page.locator("#place")).to_have_text(f"Line {line}{picture}")


def test_a_click_opens_the_full_picture_with_all_that_is_known(sheet: Window) -> None:
    sheet.card(1).locator("img").click()
    expect_open(sheet, 1)
    full = sheet.page.locator("#full")
    sheet.expect_loaded(full)
    assert full.evaluate("(image) => image.naturalWidth") == 2048
    expect(full).to_have_attribute("src", sheet.folder.joinpath("images/poster-1-0.png").as_uri())
    assert sheet.page.locator("#whole").text_content() == POEM
    said = sheet.page.locator("#particulars")
    for words in ("poster-1", "7", ROWS[0]["job_id"], "$0.0047", f"2048 {BY} 1152", "poster-1-0.png, 51 kB"):
        expect(said).to_contain_text(words)
    expect(sheet.page.locator("#turn")).to_have_text("1 of 4")


def test_enter_opens_escape_closes_and_the_focus_returns(sheet: Window) -> None:
    sheet.card(4).focus()
    sheet.page.keyboard.press("Enter")
    expect_open(sheet, 4)
    assert sheet.page.evaluate("() => document.getElementById('box').contains(document.activeElement)")
    sheet.page.keyboard.press("Escape")
    expect(sheet.box).to_be_hidden()
    expect(sheet.card(4)).to_be_focused()


def test_arrows_go_through_every_picture_and_stop_at_the_ends(sheet: Window) -> None:
    sheet.card(1).locator("img").click()
    places = [(2, f", picture {nth} of 3") for nth in (1, 2, 3)] + [(3, ""), (4, "")]
    for line, picture in places:
        sheet.page.keyboard.press("ArrowRight")
        expect_open(sheet, line, picture)
    sheet.page.keyboard.press("ArrowRight")
    expect_open(sheet, 4)
    expect(sheet.page.get_by_role("button", name="Next picture")).to_have_attribute("aria-disabled", "true")
    for line, picture in [*reversed(places[:-1]), (1, "")]:
        sheet.page.keyboard.press("ArrowLeft")
        expect_open(sheet, line, picture)
    sheet.page.keyboard.press("Escape")
    expect(sheet.card(1)).to_be_focused()


def test_buttons_do_what_the_arrows_do(sheet: Window) -> None:
    sheet.card(3).click()
    sheet.page.get_by_role("button", name="Next picture").click()
    expect_open(sheet, 4)
    sheet.page.get_by_role("button", name="Previous picture").click()
    sheet.page.get_by_role("button", name="Previous picture").click()
    expect_open(sheet, 2, ", picture 3 of 3")
    sheet.page.get_by_role("button", name="Close").click()
    expect(sheet.box).to_be_hidden()
    expect(sheet.card(2)).to_be_focused()


def test_a_click_on_one_of_several_pictures_opens_that_one(sheet: Window) -> None:
    sheet.card(2).locator(".frame").nth(2).click()
    expect_open(sheet, 2, ", picture 3 of 3")
    expect(sheet.page.locator("#particulars")).to_contain_text("22")
    expect(sheet.page.locator("#particulars")).to_contain_text("$0.02 for 3 pictures")
    sheet.page.get_by_role("button", name="Picture 1").click()
    expect_open(sheet, 2, ", picture 1 of 3")
    sheet.expect_loaded(sheet.page.locator("#full"))


def test_only_what_the_filter_leaves_is_gone_through(sheet: Window) -> None:
    sheet.filter("number")
    sheet.chip("Succeeded").click()
    sheet.expect_lines(2, 4)
    sheet.card(2).locator(".frame").nth(2).click()
    sheet.page.keyboard.press("ArrowRight")
    expect_open(sheet, 4)
    expect(sheet.page.locator("#turn")).to_have_text("2 of 2")


def test_a_failed_job_opens_with_its_error(sheet: Window) -> None:
    sheet.card(3).click()
    expect(sheet.page.locator("#why")).to_have_text("content_policyfal refused the prompt.")
    expect(sheet.page.locator("#verdict")).to_have_text("Failed: there is no picture.")
    expect(sheet.page.get_by_role("link", name="Open file")).to_be_hidden()


def test_a_picture_larger_than_the_window_is_seen_pixel_for_pixel(sheet: Window) -> None:
    sheet.card(1).locator("img").click()
    sheet.expect_loaded(sheet.page.locator("#full"))
    fitted = sheet.page.locator("#print").bounding_box()
    assert fitted is not None
    assert fitted["width"] < 1280
    assert abs(fitted["width"] / fitted["height"] - 2048 / 1152) < 0.01
    sheet.page.keyboard.press("z")
    natural = sheet.page.locator("#print").bounding_box()
    assert natural is not None
    assert (natural["width"], natural["height"]) == (2048, 1152)
    sheet.page.locator("#print").click(position={"x": 1024, "y": 576})
    assert sheet.page.locator("#print").bounding_box() == fitted


def test_prompt_seed_and_job_are_copied(sheet: Window) -> None:
    sheet.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sheet.card(1).locator("img").click()
    for name, text in (("Copy prompt", POEM), ("Copy seed", "7"), ("Copy job", ROWS[0]["job_id"])):
        button = sheet.page.get_by_role("button", name=name)
        button.click()
        expect(sheet.box.get_by_text("Copied")).to_be_visible()
        assert sheet.page.evaluate("() => navigator.clipboard.readText()") == text
        expect(sheet.box.get_by_text("Copied")).to_be_hidden()


def test_where_the_clipboard_is_closed_to_pages_copying_works_too(sheet: Window) -> None:
    # As over plain http from another machine. What was copied is seen by pasting it.
    sheet.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    sheet.card(1).locator("img").click()
    sheet.page.get_by_role("button", name="Copy job").click()
    expect(sheet.box.get_by_text("Copied")).to_be_visible()
    sheet.page.keyboard.press("Escape")
    sheet.page.get_by_role("searchbox").focus()
    sheet.page.keyboard.press("Control+V")
    expect(sheet.page.get_by_role("searchbox")).to_have_value(ROWS[0]["job_id"])


def test_an_open_picture_is_marked(sheet: Window) -> None:
    sheet.card(4).locator("img").click()
    sheet.page.keyboard.press("x")
    expect(sheet.box.get_by_role("button", name="Marked")).to_have_attribute("aria-pressed", "true")
    sheet.page.get_by_role("button", name="Close").click()
    expect(sheet.card(4)).to_have_attribute("aria-label", f"Line 4. poster-4. {ROWS[3]['prompt']}. marked")


def test_closing_far_from_where_one_opened_brings_that_card_into_sight(window: Window) -> None:
    rows = [a_failure(line, "content_policy", "fal refused the prompt.") for line in range(1, 501)]
    window.look_at(a_batch(rows), rows)
    window.card(1).click()
    window.page.keyboard.press("End")
    expect_open(window, 500)
    window.page.keyboard.press("Escape")
    expect(window.card(500)).to_be_focused()
    expect(window.card(500)).to_be_in_viewport(ratio=1)


def test_a_copy_without_its_full_pictures_says_so_and_keeps_the_thumbnail(window: Window) -> None:
    draw(window.folder, ROWS[3:])
    (window.folder / "images/poster-4-0.png").unlink()
    window.look_at(a_batch(ROWS[3:]), ROWS[3:])
    window.card(4).locator("img").click()
    trouble = window.page.locator("#trouble")
    expect(trouble).to_contain_text("The full picture did not load; this is its thumbnail.")
    expect(trouble).to_contain_text(f"darkroom batch download {BATCH_ID}")
    window.expect_loaded(window.page.locator("#preview"))
    expect(window.page.locator("#preview")).to_be_visible()
    expect(window.page.locator("#full")).to_be_hidden()


def test_the_thumbnail_is_there_until_the_full_picture_is(window: Window) -> None:
    draw(window.folder, ROWS[3:])
    with served(window.folder) as at:
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        window.page.route("**/images/*", hold)
        window.look_at(a_batch(ROWS[3:]), ROWS[3:], at=at)
        with window.page.expect_request("**/images/*"):
            window.card(4).locator("img").click()
        window.expect_loaded(window.page.locator("#preview"))
        expect(window.page.locator("#preview")).to_be_visible()
        assert len(held) == 1
        held[0].continue_()
        window.expect_loaded(window.page.locator("#full"))
        expect(window.page.locator("#preview")).to_be_hidden()
