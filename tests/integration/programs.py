"""Console scripts of this distribution as real processes."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str


async def start(name: str, *arguments: str, environment: Mapping[str, str]) -> Process:
    """Start it with that environment and nothing of ours."""
    path = str(Path(sysconfig.get_path("scripts")) / name)
    made_up = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"}
    clean = {"PATH": os.defpath, "COLUMNS": "200", **made_up, **environment}
    return await asyncio.create_subprocess_exec(path, *arguments, stdout=PIPE, stderr=PIPE, env=clean)


async def run(name: str, *arguments: str, environment: Mapping[str, str]) -> Ended:
    """Run it to its end."""
    return await ended(await start(name, *arguments, environment=environment))


async def ended(process: Process) -> Ended:
    """Wait for its end; a program that does not end is killed, and the test fails."""
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Ended(process.returncode or 0, out.decode(), err.decode())
