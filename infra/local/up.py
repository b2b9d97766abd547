"""`make up`: the whole of Darkroom, kept running until Ctrl-C. Data stay in ./.darkroom and are found again."""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from infra.local.datadir import StackRunsError
from infra.local.ports import LOOPBACK, PortBusyError
from infra.local.program import ProgramFailedError
from infra.local.signals import AskedToStop, stop_on_signals
from infra.local.stack import Stack
from infra.local.terminal import Terminal

DATA = Path(".darkroom")


def main() -> int:
    """Returns the exit code: 0 after a stop that was asked for, 1 when the stack could not start."""
    out = Terminal()
    stop_on_signals()
    started = time.monotonic()
    port = os.environ.get("DARKROOM_PORT") or "8000"
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        out.failed("stack", f"DARKROOM_PORT must be a port number, not {port!r}")
        return 1
    stack = Stack(
        DATA,
        environment=os.environ,
        address=(os.environ.get("DARKROOM_HOST") or LOOPBACK, int(port)),
        say=lambda line: out.line(f"  {datetime.now().astimezone():%H:%M:%S} {line}"),
    )
    try:
        out.progress("stack", "starting", 0)
        with stack:
            out.done("stack", f"ready in {time.monotonic() - started:.1f} s")
            introduce(stack, out)
            threading.Event().wait()
    except AskedToStop:
        out.clear()
        out.line("\n  stopped; `make up` goes on where this ended")
    except (StackRunsError, PortBusyError, ProgramFailedError) as error:
        out.failed("stack", str(error))
        return 1
    return 0


def introduce(stack: Stack, out: Terminal) -> None:
    """Print what a person needs to use the stack."""
    fal = "the simulator (set FAL_KEY for the real one)" if stack.simulator else "the real fal: pictures cost money"
    pictures = f"s3://{stack.bucket}/{stack.user.get('DARKROOM_S3_PREFIX', 'renders/')}"
    key, key_shown = stack.api_key, f"{stack.api_key}  (kept in {stack.path / 'api-key'})"
    if stack.user.get("DARKROOM_BOOTSTRAP_API_KEY"):
        key, key_shown = "$DARKROOM_BOOTSTRAP_API_KEY", "yours, from DARKROOM_BOOTSTRAP_API_KEY"
    if stack.s3:
        pictures += f" at {stack.s3.url} (credentials: {stack.s3.credentials_file})"
    out.line()
    out.fact("API", out.strong(stack.url))
    out.fact("docs", f"{stack.url}/docs")
    out.fact("API key", key_shown)
    out.fact("fal", fal)
    out.fact("pictures", pictures)
    out.fact("logs", f"{stack.logs}/")
    out.line(
        f"""
  Render something:

    curl -sS {stack.url}/v1/jobs \\
      -H "Authorization: Bearer {key}" \\
      -H 'Content-Type: application/json' \\
      -H 'Prefer: wait=60' \\
      -d '{{"input": {{"prompt": "a vintage travel poster for Mars"}}}}'

  Ctrl-C stops everything."""
    )


if __name__ == "__main__":
    sys.exit(main())
