"""A browser window in front of a contact sheet, and a web server that can hand one out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Dialog, Locator, Page, expect

from tests.browser.kit import render

_WITNESS = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
  });
"""
"""Runs before the page's own script and sees what the page's policy refused."""


class Window:
    """One browser window. `problems` is what no page may do: errors of its script, and what its policy refused."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.add_init_script(_WITNESS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)
        page.on("dialog", self._refuse)
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "TrustedHTML" in message.text:
            self.problems.append(message.text)

    def _refuse(self, dialog: Dialog) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def look_at(self, batch: dict[str, Any], rows: Iterable[dict[str, Any]], *, state: str = "", at: str = "") -> None:
        """Render a sheet into the folder and open it: from there, or `at` a server's address of that folder."""
        file = self.folder / "index.html"
        file.write_text(render(batch, rows))
        self.go(f"{at}/index.html{state}" if at else f"{file.as_uri()}{state}")

    def go(self, address: str) -> None:
        """Open an address and wait until the sheet is read."""
        self.page.goto("about:blank")
        self.page.goto(address)
        self.wait()

    def wait(self) -> None:
        """Return when the sheet is read and laid out."""
        self.page.locator("html[data-ready]").wait_for(state="attached")

    def refused(self) -> list[str]:
        """What the page's policy refused."""
        found: list[str] = self.page.evaluate("() => window.violations ?? []")
        return found

    # -- what is on the sheet ------------------------------------------------------------------------------------------

    @property
    def cells(self) -> Locator:
        """The cards that are in the document."""
        return self.page.get_by_role("gridcell")

    def card(self, line: int) -> Locator:
        """The card of a line."""
        return self.cells.filter(has=self.page.locator(f".number:text-is('{line}')"))

    def lines(self) -> list[int]:
        """The lines whose cards are in the document, in the order of the sheet."""
        return [int(number) for number in self.page.locator(".cell .number").all_text_contents()]

    def expect_lines(self, *lines: int) -> None:
        """The sheet shows exactly these lines."""
        expect(self.page.locator(".cell .number")).to_have_text([str(line) for line in lines])

    def filter(self, text: str) -> None:
        """Type into the filter."""
        self.page.get_by_role("searchbox").fill(text)

    def chip(self, name: str) -> Locator:
        """A button of the bar that switches a filter on and off."""
        return self.page.get_by_role("search").get_by_role("button", name=name)

    @property
    def box(self) -> Locator:
        """The open picture."""
        return self.page.locator("dialog#box")

    def expect_state(self, state: str) -> None:
        """The address keeps this after its `#`."""
        self.page.wait_for_function("(state) => location.hash.slice(1) === state", arg=state)

    def loaded(self, picture: Locator) -> bool:
        """Whether an image element shows a picture."""
        seen: bool = picture.evaluate("(image) => image.complete && image.naturalWidth > 0")
        return seen

    def expect_loaded(self, picture: Locator) -> None:
        """An image element shows a picture, or will soon."""
        picture.wait_for(state="attached")
        self.page.wait_for_function("(image) => image.complete && image.naturalWidth > 0", arg=picture.element_handle())


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server that hands out a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
