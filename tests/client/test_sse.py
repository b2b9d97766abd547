"""Reading server-sent events from bytes, however they were cut."""

from __future__ import annotations

import pytest

from darkroom_client.sse import EventReader, ServerSentEvent

STREAM = (
    ": a comment\nevent: job\nid: 7\ndata: ä{\ndata: }\u2028\nretry: 3000\n\n"
    "data:no space\r\n\r\n: ping\r\revent: empty\n\nid: 8\ndata\n\ndata: never finished\n"
).encode()
EVENTS = [
    ServerSentEvent("job", "ä{\n}\u2028", "7"),
    ServerSentEvent("message", "no space", "7"),
    ServerSentEvent("message", "", "8"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_cuts_anywhere_change_nothing(size: int) -> None:
    reader = EventReader()
    parts = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    assert [event for part in parts for event in reader.feed(part)] == EVENTS


def test_an_event_is_told_with_its_last_byte() -> None:
    reader = EventReader()
    assert list(reader.feed(b"data: x\n")) == []
    assert [event.data for event in reader.feed(b"\n")] == ["x"]
