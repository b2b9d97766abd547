"""One stack for most end-to-end tests; each test leaves it without faults and with its workers running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.studio import Studio, studio

API_KEY = "dk_recognisable-api-key-0123456789"
SECRET = "recognisable-deployment-secret-0123456789"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Short times for everything that is waited for; fal renders for a second, four at a time."""
    environment = {
        "DARKROOM_BOOTSTRAP_API_KEY": API_KEY,
        "DARKROOM_SECRET": SECRET,
        "DARKROOM_FAL_CONCURRENCY": "4",
        "DARKROOM_FAL_START_TIMEOUT_SECONDS": "4",
        "DARKROOM_FAL_MAX_RUN_SECONDS": "2",
        "DARKROOM_UNCERTAIN_WINDOW_SECONDS": "60",
        "DARKROOM_WEBHOOK_RETRY_SCHEDULE": "1,1,1,1",
    }
    simulator = ("--latency", "1", "--latency-sigma", "0", "--concurrency", "8")
    with studio(tmp_path_factory.mktemp("shared"), environment=environment, simulator=simulator) as running:
        yield running


@pytest.fixture
def house(shared: Studio) -> Iterator[Studio]:
    """The shared stack, in good order before and after."""
    yield shared
    shared.disarm()
    shared.start_workers()
