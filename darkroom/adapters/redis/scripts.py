"""Loads the Lua scripts and runs them. Each does one named transition, and its head says by which key it repeats."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from darkroom.domain import lifecycle
from darkroom.domain.errors import UnavailableError

AWAY: Final = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError)
"""What redis-py raises when the server cannot take part now: away, loading, a replica, or out of memory."""

_ANSWER_SECONDS: Final = 20.0
"""For one answer, waiting for a free connection and repeats included."""

_REFUSES_WRITES: Final = ("MISCONF", "NOREPLICAS", "BUSY", "LOADING", "MASTERDOWN")
"""Answers of a server that cannot write now: a full disk, replicas missing, a script that runs, not loaded yet."""


def _lua_table(table: Mapping[Any, Mapping[Any, Any]]) -> str:
    rows = []
    for state, edges in table.items():
        pairs = ", ".join(f"{event.value} = '{to.value}'" for event, to in edges.items())
        rows.append(f"    {state.value} = {{ {pairs} }},")
    return "{\n" + "\n".join(rows) + "\n  }"


def _lua_set(values: frozenset[Any]) -> str:
    return "{ " + ", ".join(f"{value.value} = true" for value in sorted(values)) + " }"


def transition_tables() -> str:
    """The domain's tables of transitions as Lua: the scripts have no others."""
    return (
        "local EDGES = {\n"
        f"  job = {_lua_table(lifecycle.JOB)},\n"
        f"  submission = {_lua_table(lifecycle.SUBMISSION)},\n"
        f"  delivery = {_lua_table(lifecycle.DELIVERY)},\n"
        f"  batch = {_lua_table(lifecycle.BATCH)},\n"
        "}\n"
        f"local TERMINAL = {_lua_set(lifecycle.TERMINAL)}\n"
        f"local OPEN = {_lua_set(lifecycle.OPEN_SUBMISSION)}\n"
        f"local TERMINAL_BATCH = {_lua_set(lifecycle.TERMINAL_BATCH)}\n"
        f"local FEEDING = {_lua_set(lifecycle.FEEDING)}\n"
    )


@cache
def script(name: str) -> tuple[str, str]:
    """Source and SHA-1 of one script: its shebang, the tables, the shared libraries, its own body."""
    folder = resources.files(__package__) / "lua"
    body = (folder / f"{name}.lua").read_text()
    shebang, _, rest = body.partition("\n")
    if not shebang.startswith("#!lua"):
        raise ValueError(f"{name}.lua must start with a #!lua line")
    shared = ((folder / name).read_text() for name in ("lib.lua", "batches.lua"))
    source = "\n".join((shebang, transition_tables(), *shared, rest))
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


async def ask(answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - redis-py's types are unions of everything
    """Await the answer of one command or pipeline. Raises UnavailableError when Redis is away, or silent for 20 s.

    Whoever is cancelled meanwhile is cancelled: redis-py sends by `asyncio.wait_for`, which before Python 3.12 forgets
    a cancellation that arrives as the wait ends (python/cpython issue 86296), and a loop that asks would never end.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    limit = asyncio.timeout(_ANSWER_SECONDS)
    try:
        async with limit:
            found = await answer
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise UnavailableError("the store of records does not answer") from exc
    except AWAY as exc:
        raise UnavailableError("the store of records is away") from exc
    except ResponseError as exc:
        if not str(exc).startswith(_REFUSES_WRITES):
            raise
        raise UnavailableError("the store of records takes no writes now") from exc
    if task and task.cancelling() > cancellations:
        raise asyncio.CancelledError
    return found


async def run(redis: Redis, name: str, *arguments: str | float) -> Any:  # noqa: ANN401 - each script's head says
    """Run one script. Raises UnavailableError when Redis is away: it may have run, and may be repeated."""
    source, sha = script(name)
    try:
        return await ask(redis.evalsha(sha, 0, *arguments))
    except NoScriptError:
        return await ask(redis.eval(source, 0, *arguments))
