"""One real Chromium for the run, a fresh window for each test, and the measured figures at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.window import Window

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_SWITCHES = [
    "--no-sandbox",  # root has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_FIGURES = pytest.StashKey[list[str]]()


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Only who names this folder runs its tests: `make test` needs no browser."""
    return None if any("tests/browser" in argument for argument in config.args) else True


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A running Chromium."""
    assert Path(CHROMIUM).exists(), f"there is no {CHROMIUM}: `make test-browser` installs it, or says what to do"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def window(chromium: Browser, tmp_path: Path) -> Iterator[Window]:
    """A window whose pages did nothing that they may not do."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-US") as context:
        context.set_default_timeout(15_000)
        window = Window(context.new_page(), tmp_path)
        yield window
        assert window.problems == []
        assert window.refused() == []


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """What a test measured, in words: printed when the run is over."""
    return request.config.stash.setdefault(_FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured."""
    for line in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(line)
