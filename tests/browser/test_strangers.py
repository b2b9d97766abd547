"""What comes from outside: words that would like to be code, pictures that do not load, links of every kind, time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.kit import BATCH_ID, a_batch, a_failure, a_row, an_image, draw, render
from tests.browser.window import Window, served

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "]]><svg/onload=alert(3)>",
    "\"'`><b onmouseover=alert(4)>bold</b>",
    "{{rows}} {{title}} ${alert(5)} &lt;i&gt;",
    "javascript:alert(6)",
    "\u202egnitirw-thgir-ot-tfel \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f680 an astronaut \U0001f1fa\U0001f1e6 \U0001f3f3\ufe0f\u200d\U0001f308",
    "one line\nand\tanother\\n \u2028 \u2029 \x00 \x7f",
    "__proto__",
)


# words ----------------------------------------------------------------------------------------------------------------


def test_hostile_words_are_words_on_the_sheet_and_in_the_open_picture(window: Window) -> None:
    rows = [
        a_row(line, prompt=text, custom_id=text, images=[an_image(f"poster-{line}-0") | {"name": text}])
        for line, text in enumerate(HOSTILE, 1)
    ]
    rows += [a_failure(line, text, text) | {"prompt": text} for line, text in enumerate(HOSTILE, 101)]
    batch = a_batch(rows, name=HOSTILE[1])
    window.look_at(batch, rows)
    assert window.page.title() == HOSTILE[1]
    assert window.page.locator("#name").text_content() == HOSTILE[1]
    assert sorted(window.page.locator("#causes code").all_text_contents()) == sorted(HOSTILE)
    window.page.set_viewport_size({"width": 1280, "height": 3000})
    expect(window.cells).to_have_count(len(rows))
    assert window.page.locator(".caption .prompt").all_text_contents() == [*HOSTILE, *HOSTILE]
    assert window.page.locator(".cause .foreign").all_text_contents() == list(HOSTILE)
    for line, text in enumerate(HOSTILE, 1):
        window.card(line).locator(".prompt").click()
        assert window.page.locator("#whole").text_content() == text
        assert text in (window.page.locator("#particulars").text_content() or "")
        window.page.keyboard.press("Escape")
        window.card(line + 100).locator(".prompt").click()
        assert text in (window.page.locator("#why").text_content() or "")
        window.page.keyboard.press("Escape")
    assert window.page.locator("script").count() == 2, "the batch and the page's own"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_are_found(window: Window, text: str) -> None:
    rows = [a_row(1, prompt=text), a_row(2)]
    window.look_at(a_batch(rows), rows)
    window.filter(text.partition("\n")[0])
    window.expect_lines(1)


def test_hostile_words_in_the_address_are_words(window: Window) -> None:
    rows = [a_row(1)]
    window.look_at(
        a_batch(rows), rows, state="#text=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&cause=%3Cb%3E&warnings=%3Ci%3E"
    )
    expect(window.page.get_by_role("searchbox")).to_have_value("<img src=x onerror=alert(1)>")
    expect(window.page.get_by_role("button", name="Show more than <b>")).to_be_visible()
    expect(window.chip("<i>")).to_have_attribute("aria-pressed", "true")


def test_a_picture_is_only_asked_for_at_an_address_of_a_file_or_of_the_web(window: Window) -> None:
    image = an_image("poster-1-0", thumb="javascript:alert(1)", full="data:text/html,<script>alert(2)</script>")
    rows = [a_row(1, images=[image])]
    window.look_at(a_batch(rows), rows)
    expect(window.card(1).locator(".missing")).to_be_visible()
    window.card(1).click()
    expect(window.page.get_by_role("link", name="Open file", include_hidden=True)).to_be_hidden()
    expect(window.page.locator("#trouble")).to_contain_text("The full picture did not load.")


def test_what_the_policy_forbids_does_not_happen_and_is_seen(chromium: Browser, tmp_path: Path) -> None:
    # The other tests rely on seeing nothing of this.
    page = render(a_batch([a_row(1)]), [a_row(1)])
    (tmp_path / "index.html").write_text(page.replace("</body>", "<script>window.ran = true</script></body>"))
    with chromium.new_context() as context:
        window = Window(context.new_page(), tmp_path)
        with window.page.expect_console_message(lambda message: "script-src" in message.text):
            window.go((tmp_path / "index.html").as_uri())
        assert window.refused() == ["script-src-elem inline"]
        with window.page.expect_console_message(lambda message: "TrustedHTML" in message.text):
            window.page.evaluate(
                "() => { try { document.body.innerHTML = '<b onclick=f()>'; } catch { /* refused */ } }"
            )
        assert len(window.problems) == 2
        assert window.page.evaluate("() => window.ran") is None
        window.expect_lines(1)


# pictures -------------------------------------------------------------------------------------------------------------


def test_a_picture_that_does_not_load_leaves_a_word_in_its_place(window: Window) -> None:
    rows = [a_row(line) for line in range(1, 6)]
    draw(window.folder, rows)
    (window.folder / "thumbs/poster-2-0.jpg").unlink()
    (window.folder / "images/poster-2-0.png").unlink()
    (window.folder / "thumbs/poster-3-0.jpg").write_bytes(b"not a picture")
    window.look_at(a_batch(rows), rows)
    expect(window.card(2).locator(".missing")).to_have_text("Not loaded")
    for line in (1, 3, 4, 5):  # of the third, the full picture stands in
        window.expect_loaded(window.card(line).locator("img"))
    expect(window.page.locator("#notices")).to_be_empty()


def test_a_picture_without_a_thumbnail_is_shown_itself(window: Window) -> None:
    rows = [a_row(1, images=[an_image("poster-1-0", thumb=None)])]
    draw(window.folder, rows)
    window.look_at(a_batch(rows), rows)
    window.expect_loaded(window.card(1).locator("img"))


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ("download", f"darkroom batch download {BATCH_ID}"),
        ("bucket", f"darkroom batch open {BATCH_ID}"),
        ("signed", "the bucket cannot be reached from here"),
    ],
)
def test_a_sheet_without_any_picture_says_what_to_do(window: Window, links: str, words: str) -> None:
    rows = [a_row(line) for line in range(1, 6)]
    window.look_at(a_batch(rows, links=links), rows)
    expect(window.page.locator("#notices")).to_contain_text("The pictures do not load.")
    expect(window.page.locator("#notices")).to_contain_text(words)
    expect(window.page.locator(".notice")).to_have_count(1)


# links ----------------------------------------------------------------------------------------------------------------


def moved(rows: list[dict[str, Any]], thumbs: str, images: str, query: str = "") -> list[dict[str, Any]]:
    """The same rows with links to other places."""
    return [
        row
        | {
            "images": [
                image
                | {
                    "thumb": image["thumb"].replace("thumbs/", thumbs) + query,
                    "full": image["full"].replace("images/", images) + query,
                }
                for image in row["images"]
            ]
        }
        for row in rows
    ]


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A bucket on a web server of its own: its folder and its address."""
    folder = tmp_path_factory.mktemp("bucket")
    with served(folder) as at:
        yield folder, at


def expect_both(window: Window, line: int) -> None:
    """The thumbnail loads, and so does the full picture."""
    window.expect_loaded(window.card(line).locator("img"))
    window.card(line).locator("img").click()
    window.expect_loaded(window.page.locator("#full"))
    window.page.keyboard.press("Escape")


def test_signed_links_lead_from_a_saved_page_to_the_bucket(window: Window, elsewhere: tuple[Path, str]) -> None:
    folder, bucket = elsewhere
    rows = [a_row(line) for line in (1, 2)]
    draw(folder, rows)
    signed = moved(rows, f"{bucket}/thumbs/", f"{bucket}/images/", "?X-Amz-Signature=abc&response-content-type=a%2Fb")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    window.look_at(a_batch(rows, links="signed", links_expire_at=tomorrow.isoformat()), signed)
    for line in (1, 2):
        expect_both(window, line)
    assert f"{bucket}/images/poster-1-0.png?X-Amz-Signature=abc&response-content-type=a%2Fb" in window.requests
    expect(window.page.locator("#notices")).to_be_empty()


def test_links_in_a_public_bucket_lead_up_and_down_again(window: Window, elsewhere: tuple[Path, str]) -> None:
    folder, bucket = elsewhere
    rows = [a_row(line) for line in (1, 2)]
    draw(folder / "acc/2026/11/24", rows)
    window.folder = folder / f"acc/batches/{BATCH_ID}"
    window.folder.mkdir(parents=True)
    inside = moved(rows, "../../2026/11/24/thumbs/", "../../2026/11/24/images/")
    window.look_at(a_batch(rows, links="bucket"), inside, at=f"{bucket}/acc/batches/{BATCH_ID}")
    expect_both(window, 1)
    window.look_at(a_batch(rows, links="bucket"), inside)
    expect_both(window, 2)


def test_a_downloaded_file_may_have_any_name(window: Window) -> None:
    # On the disk the name is a custom id with percent signs; in a link those are written as %25.
    rows = [a_row(1, images=[an_image("a%2Fb %25 c-0")])]
    draw(window.folder, rows)
    linked = moved(rows, "thumbs/", "images/")
    for part in ("thumb", "full"):
        linked[0]["images"][0][part] = linked[0]["images"][0][part].replace("%", "%25")
    window.look_at(a_batch(rows), linked)
    expect_both(window, 1)


# time -----------------------------------------------------------------------------------------------------------------


def test_a_sheet_whose_links_have_expired_says_to_fetch_it_again(window: Window) -> None:
    rows = [a_row(1)]
    window.look_at(a_batch(rows, links="signed", links_expire_at="2026-01-02T10:00:00+00:00"), rows)
    expect(window.page.locator(".notice")).to_have_count(1)
    expect(window.page.locator(".notice")).to_contain_text(f"Fetch the page again: darkroom batch open {BATCH_ID}")
    window.card(1).click()
    expect(window.page.locator("#trouble")).to_contain_text("links expired on")


def test_links_that_expire_while_one_looks_are_noticed(window: Window) -> None:
    rows = [a_row(1)]
    window.page.clock.install(time=datetime(2026, 11, 25, 8, 0, tzinfo=UTC))
    batch = a_batch(rows, links="signed", links_expire_at="2026-11-25T09:30:00+00:00")
    window.look_at(batch, rows)
    window.page.clock.fast_forward("01:00:00")
    expect(window.page.locator(".notice")).to_have_count(0)
    window.page.clock.fast_forward("00:31:00")
    expect(window.page.locator(".notice")).to_contain_text("links expired on")


def test_a_page_that_was_cut_short_shows_what_it_has_and_says_so(window: Window) -> None:
    rows = [a_row(line) for line in range(1, 10)]
    window.look_at(a_batch(rows), rows)
    file = window.folder / "index.html"
    whole = file.read_text()
    file.write_text(whole[: whole.index('{"line":6') + 40])
    window.page.reload()
    window.wait()
    window.expect_lines(1, 2, 3, 4, 5)
    expect(window.page.locator("#notices")).to_contain_text("This page was cut short")
    file.write_text(whole[: whole.index('{"line":6')])  # between two rows
    window.page.reload()
    window.wait()
    window.expect_lines(1, 2, 3, 4, 5)
    expect(window.page.locator("#notices")).to_contain_text("This page was cut short")
