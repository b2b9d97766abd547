"""JSON pointers (RFC 6901) to what a model found wrong in a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError


def escaped(steps: tuple[str | int, ...]) -> str:
    """The pointer that takes these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def findings(fault: ValidationError, document: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON there is
    """Pydantic's findings: a pointer into the document, and what is wrong there."""
    for finding in fault.errors(include_url=False, include_input=False, include_context=False):
        pointer = _pointer(finding["loc"], document, missing=finding["type"] == "missing")
        yield pointer, finding["msg"].removeprefix("Value error, ")


def _pointer(location: tuple[int | str, ...], document: Any, *, missing: bool) -> str:  # noqa: ANN401 - any JSON
    """Pydantic's location holds names of union members too: only what is a step into the document is kept."""
    steps: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            if not (missing and last):
                continue
        steps.append(part)
    return escaped(tuple(steps))
