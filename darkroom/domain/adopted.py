"""A request of fal's that became known without fal's answer to our POST: its reference has to be built.

Everywhere else the URLs that fal returned are kept. Here none were: a callback and an operator bring the id alone.
Source: fal's queue answers, which name owner and app only; a URL with the whole slug answers 405 (fal-protocol 2).
"""

from __future__ import annotations

import re
from typing import Final

from darkroom.domain.generation import RequestRef

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


def adopted_reference(queue_url: str, model: str, request_id: str) -> RequestRef:
    """The reference of a request known by its id alone. Raises ValueError for an id that cannot be part of a path."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise ValueError("a request id consists of letters, digits, _ and -")
    app = "/".join(model.split("/")[:2])
    url = f"{queue_url.rstrip('/')}/{app}/requests/{request_id}"
    return RequestRef(request_id, f"{url}/status", url, f"{url}/cancel")
