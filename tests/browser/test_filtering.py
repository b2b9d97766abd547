"""Finding the bad ones: by words, status, warning, cause and mark; and the address that keeps what is looked for."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.browser.kit import a_batch, a_failure, a_row, an_image
from tests.browser.window import Window

ROWS = [
    a_row(1, prompt="a lighthouse in fog", cost_usd=0.0047),
    a_row(2, prompt="the FOG over Zürich", custom_id="swiss-2", cost_usd=0.0094),
    a_failure(3, "content_policy", "fal refused the prompt: it was flagged.") | {"prompt": "a lighthouse at noon"},
    a_failure(4, "outcome_unknown", "Nobody can tell whether fal took the request.") | {"prompt": "a fox"},
    a_row(5, prompt="a fox", warnings=["unsafe", "blank"], images=[an_image("p", unsafe=True, blank=True, seed=98765)]),
    a_row(6, prompt="an owl", warnings=["blank"], images=[an_image("q", blank=True, seed=6)], cost_usd=0.02),
    a_failure(7, "cancelled", "the job was cancelled", "cancelled") | {"prompt": "a whale"},
    a_failure(12, "invalid_line", "/input/seed: is too large", "invalid") | {"prompt": "a bear", "job_id": None},
]


@pytest.fixture
def sheet(window: Window) -> Window:
    """A sheet of eight lines."""
    window.look_at(a_batch(ROWS), ROWS)
    return window


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("fog", (1, 2)),
        ("zürich", (2,)),
        ("lighthouse fog", (1,)),
        ("swiss", (2,)),
        ("whether fal took", (4,)),
        ("content_policy", (3,)),
        ("98765", (5,)),
        (a_row(6)["job_id"], (6,)),
        ("123", (1, 2)),
        ("#12", (12,)),
        ("#1 #6", (1, 6)),
        ("12", (12,)),
        ("/input/seed", (12,)),
    ],
)
def test_words_find_prompts_ids_seeds_errors_and_lines(sheet: Window, words: str, lines: tuple[int, ...]) -> None:
    sheet.filter(words)
    sheet.expect_lines(*lines)
    expect(sheet.page.locator("#found")).to_contain_text(f"{len(lines)} of 8 lines")


def test_words_that_find_nothing_say_so_and_can_be_cleared(sheet: Window) -> None:
    sheet.filter("no such thing")
    expect(sheet.page.locator("#empty")).to_contain_text("Nothing matches.")
    sheet.page.locator("#empty").get_by_role("button").click()
    expect(sheet.cells).to_have_count(8)
    expect(sheet.page.get_by_role("searchbox")).to_have_value("")


def test_a_status_is_switched_on_and_off(sheet: Window) -> None:
    expect(sheet.page.locator("#statuses button")).to_have_text(
        ["All8", "Succeeded4", "Failed2", "Cancelled1", "Invalid1"]
    )
    sheet.chip("Failed").click()
    sheet.expect_lines(3, 4)
    expect(sheet.chip("Failed")).to_have_attribute("aria-pressed", "true")
    sheet.chip("Invalid").click()
    sheet.expect_lines(12)
    sheet.chip("Invalid").click()
    expect(sheet.cells).to_have_count(8)


def test_warnings_find_the_pictures_with_any_of_them(sheet: Window) -> None:
    sheet.chip("unsafe").click()
    sheet.expect_lines(5)
    sheet.chip("blank").click()
    sheet.expect_lines(5, 6)
    sheet.chip("unsafe").click()
    sheet.expect_lines(5, 6)
    sheet.chip("blank").click()
    expect(sheet.cells).to_have_count(8)


def test_a_cause_in_the_head_shows_what_failed_by_it(sheet: Window) -> None:
    sheet.page.get_by_role("button", name="outcome_unknown").first.click()
    sheet.expect_lines(4)
    sheet.page.get_by_role("button", name="Show more than outcome_unknown").click()
    expect(sheet.cells).to_have_count(8)


def test_filters_narrow_each_other(sheet: Window) -> None:
    sheet.filter("fox")
    sheet.expect_lines(4, 5)
    sheet.chip("Failed").click()
    sheet.expect_lines(4)
    sheet.page.get_by_role("button", name="Clear the filter").click()
    expect(sheet.cells).to_have_count(8)


def test_the_order_can_be_by_cost_or_from_the_last_line(sheet: Window) -> None:
    sheet.chip("Succeeded").click()
    sheet.page.get_by_label("Sort").select_option("cost")
    sheet.expect_lines(6, 2, 1, 5)
    sheet.page.get_by_label("Sort").select_option("last")
    sheet.expect_lines(6, 5, 2, 1)


def test_the_address_keeps_what_is_looked_for(sheet: Window) -> None:
    sheet.filter("a fox & 100%")
    sheet.filter("fox")
    sheet.chip("blank").click()
    sheet.page.get_by_label("Sort").select_option("last")
    sheet.expect_state("text=fox&warnings=blank&sort=last")
    sheet.page.reload()
    sheet.wait()
    sheet.expect_lines(5)
    expect(sheet.page.get_by_role("searchbox")).to_have_value("fox")
    expect(sheet.chip("blank")).to_have_attribute("aria-pressed", "true")
    expect(sheet.page.get_by_label("Sort")).to_have_value("last")


def test_an_address_that_is_followed_while_the_sheet_is_open_is_obeyed(sheet: Window) -> None:
    sheet.page.evaluate("() => { location.hash = 'status=failed&cause=content_policy'; }")
    sheet.expect_lines(3)
    sheet.page.go_back()
    expect(sheet.cells).to_have_count(8)


def test_an_address_with_nonsense_shows_everything(sheet: Window) -> None:
    sheet.go(sheet.page.url.partition("#")[0] + "#status=toString&sort=__proto__&size=NaN&%")
    expect(sheet.cells).to_have_count(8)


def test_what_is_marked_stays_marked_and_can_be_found(sheet: Window) -> None:
    sheet.card(6).hover()
    sheet.card(6).locator(".marker").click()
    sheet.card(2).focus()
    sheet.page.keyboard.press("x")
    expect(sheet.box).to_be_hidden()
    _wait_until_kept(sheet)
    sheet.page.reload()
    sheet.wait()
    sheet.chip("marked").click()
    sheet.expect_lines(2, 6)
    sheet.page.get_by_role("gridcell").first.focus()
    sheet.page.keyboard.press("x")
    expect(sheet.chip("marked")).to_have_text("marked1")


def _wait_until_kept(sheet: Window) -> None:
    """Browsers store a little later than they are told to: another page sees when they have."""
    other = sheet.page.context.new_page()
    other.goto(sheet.page.url)
    other.wait_for_function("() => Object.values(localStorage).join() === '[2,6]'")
    other.close()


def test_the_list_that_is_shown_can_be_copied(sheet: Window) -> None:
    sheet.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sheet.chip("blank").click()
    sheet.page.get_by_role("button", name="Copy this list").click()
    expect(sheet.page.get_by_role("button", name="Copied")).to_be_visible()
    lines = sheet.page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert [json.loads(line)["line"] for line in lines] == [5, 6]
    assert json.loads(lines[0]) == {
        "line": 5,
        "custom_id": "poster-5",
        "job_id": ROWS[4]["job_id"],
        "status": "succeeded",
        "prompt": "a fox",
        "seeds": [98765],
    }


def test_a_slash_goes_to_the_filter_and_escape_leaves_it(sheet: Window) -> None:
    search = sheet.page.get_by_role("searchbox")
    sheet.page.keyboard.press("/")
    expect(search).to_be_focused()
    sheet.page.keyboard.type("fog/")
    expect(search).to_have_value("fog/")
    sheet.page.keyboard.press("Escape")
    expect(search).to_have_value("")
    sheet.page.keyboard.press("Escape")
    expect(search).not_to_be_focused()
    sheet.page.keyboard.press("/")
    sheet.page.keyboard.press("ArrowDown")
    expect(sheet.card(1)).to_be_focused()


def test_arrows_move_from_card_to_card(sheet: Window) -> None:
    columns = int(sheet.page.get_by_role("grid").get_attribute("aria-colcount") or 0)
    order = [row["line"] for row in ROWS]
    sheet.card(1).focus()
    for key, place in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0)):
        sheet.page.keyboard.press(key)
        expect(sheet.card(order[place])).to_be_focused()
    sheet.page.keyboard.press("End")
    expect(sheet.card(12)).to_be_focused()
    sheet.page.keyboard.press("Home")
    expect(sheet.card(1)).to_be_focused()


def test_one_tab_enters_the_grid_and_the_next_leaves_it(sheet: Window) -> None:
    sheet.page.get_by_role("button", name="Copy this list").focus()
    sheet.page.keyboard.press("Tab")
    expect(sheet.card(1)).to_be_focused()
    sheet.page.keyboard.press("ArrowRight")
    sheet.page.keyboard.press("Shift+Tab")
    expect(sheet.page.get_by_role("button", name="Copy this list")).to_be_focused()
    sheet.page.keyboard.press("Tab")
    expect(sheet.card(2)).to_be_focused()


def test_a_question_mark_shows_the_keys(sheet: Window) -> None:
    sheet.page.keyboard.press("?")
    expect(sheet.page.get_by_role("dialog", name="Keys")).to_be_visible()
    sheet.page.keyboard.press("Escape")
    expect(sheet.page.get_by_role("dialog", name="Keys")).to_be_hidden()
    sheet.page.get_by_role("button", name="Keys").click()
    sheet.page.get_by_role("dialog", name="Keys").get_by_role("button").click()
    expect(sheet.page.get_by_role("dialog", name="Keys")).to_be_hidden()
