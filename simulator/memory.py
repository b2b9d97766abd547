"""What a simulator still knows after it was stopped or killed: the ledger's file, written and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from simulator.generation import GenerationRequest, Verdict
from simulator.schema import parse


class UnreadableLedgerError(Exception):
    """The file is no ledger, or one of another version. The message names it, the line, and what to do."""


class Memory:
    """A file of JSON lines, one for each change of a request; a request's last line is its newest.

    A line is with the operating system when `note` returns: it outlives a kill -9 of the simulator, though not a loss
    of power. The file is for one simulator at a time, and is rewritten with one line a request when it is opened.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            OSError: that cannot be done.
            UnreadableLedgerError: a whole line cannot be read. The file is left as it is.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.recalled = _read(path) if path.exists() else []
        _rewrite(path, self.recalled)
        self._file = path.open("a", encoding="utf-8")

    def note(self, request: GenerationRequest) -> None:
        """Keep a request's present state. Nothing happens once the file is closed."""
        if not self._file.closed:
            self._file.write(_line(request))
            self._file.flush()

    def forget(self) -> None:
        """Empty the file."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path) -> list[GenerationRequest]:
    """The requests in the order in which they were taken. What waited or ran is queued."""
    newest: dict[str, GenerationRequest] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # torn by a kill while it was written: nobody was told of that change
                break
            try:
                request = _recalled(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise UnreadableLedgerError(
                    f"{path}, line {number} was not written by this simulator; move the file away to begin without it"
                ) from error
            newest[request.request_id] = request
    return list(newest.values())


def _rewrite(path: Path, requests: Iterable[GenerationRequest]) -> None:
    """A crash leaves the old file or the new one."""
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(_line(request) for request in requests)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _line(request: GenerationRequest) -> str:
    verdict = request.verdict
    line = request.entry() | {
        "origin": request.origin,
        "start_timeout": request.start_timeout,
        "low_priority": request.low_priority,
        "seed": request.seed,
        "unsafe": request.unsafe,
        "told": request.told,
        "error": verdict.error if verdict else None,
        "body": verdict.body if verdict else None,
    }
    return json.dumps(line) + "\n"


def _recalled(line: dict[str, Any]) -> GenerationRequest:
    parsed = parse(line["input"])
    verdict = None
    if line["ended_at"] is not None:
        verdict = Verdict(
            state=line["outcome"],
            http_status=line["http_status"],
            body=line["body"],
            billed=line["billed"],
            error=line["error"],
            error_type=line["error_type"],
        )
    return GenerationRequest(
        request_id=line["request_id"],
        model=line["model"],
        arguments=line["input"],
        input=None if isinstance(parsed, list) else parsed,
        origin=line["origin"],
        callback_url=line["callback_url"],
        start_timeout=line["start_timeout"],
        low_priority=line["low_priority"],
        received_at=datetime.fromisoformat(line["received_at"]),
        state=verdict.state if verdict else "queued",
        started_at=_moment(line["started_at"]),
        ended_at=_moment(line["ended_at"]),
        verdict=verdict,
        unsafe=line["unsafe"],
        seed=line["seed"],
        reply="lost" if line["reply"] == "pending" else line["reply"],
        told=line["told"],
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
