"""Server-sent events, read from bytes as they come (the WHATWG's event stream format)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: its name, its data, and the last id that was named."""

    name: str
    data: str
    id: str


class EventReader:
    """Feed it bytes, get the events that are whole. A character or a line may be split anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """The events that these bytes complete."""
        # A \r at the end may be half of a \r\n: it waits for what follows.
        text = self._rest + data
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, last = _LINE_END.split(text.removesuffix(held))
        self._rest = last + held
        for line in lines:
            if (event := self._take(line.decode(errors="replace"))) is not None:
                yield event

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._finish()
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _finish(self) -> ServerSentEvent | None:
        event = ServerSentEvent(self._name or "message", "\n".join(self._data), self._id) if self._data else None
        self._name, self._data = "", []
        return event
