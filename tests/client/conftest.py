"""One scripted API for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.kit import Clock, Server


@pytest.fixture
def api() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()
