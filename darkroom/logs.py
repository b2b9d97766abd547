"""Logs of a process: JSON lines for machines, plain lines for a person at a terminal. Nothing secret is logged."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

_QUIET = (
    "httpx",
    "httpcore",
    "fal_client",
    "botocore",
    "boto3",
    "urllib3",
    "aiohttp.access",
    "uvicorn.access",
    "asyncio",
)
"""Libraries that log URLs or every call: from them only warnings are wanted."""


def configure(format_: Literal["json", "console"] | None) -> None:
    """Send the process's logs to standard error; without a wish, readable lines on a terminal and JSON elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    if (format_ or ("console" if sys.stderr.isatty() else "json")) == "console":
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
