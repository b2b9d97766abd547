"""A container's health check: exit code 0 when the URL answers 200, else 1. The slim image has no curl."""

from __future__ import annotations

import http.client
import sys
from contextlib import closing
from urllib.parse import urlsplit


def main() -> int:
    """Ask the URL given as the only argument, once, within 3 s."""
    url = urlsplit(sys.argv[1])
    try:
        with closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=3)) as connection:
            connection.request("GET", url.path or "/")
            return 0 if connection.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main())
