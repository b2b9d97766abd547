"""The parts of the documents that are drawn from the code: state diagrams, what each state means, tables of errors.

`python -m infra.diagrams` writes them between their markers; with `--check`, which `make check` runs, nothing is
written and the exit status is 1 when a document says something else than the code.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from api.problems import KINDS
from darkroom.domain import lifecycle, policy

ROOT: Final = Path(__file__).parents[1]

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

_FATES: Final = {
    policy.Fate.FAIL: "ends as `failed`",
    policy.Fate.RETRY: "is tried again after a backoff; uses an attempt, unless the breaker has closed the gate",
    policy.Fate.SNOOZE: "goes back to the queue; uses no attempt",
}
_STOPS: Final = {
    policy.Stop.NOTHING: "nothing",
    policy.Stop.COOLDOWN: "cooldown: nobody submits for the time fal named, or a growing one (2 to 60 s)",
    policy.Stop.GATE: "the gate closes: one probe at a time until fal takes one",
    policy.Stop.BREAKER: f"fault {policy.TROUBLE_MAX} in a row, over all jobs and workers, closes the gate",
}


def main(arguments: Sequence[str]) -> int:
    """Write the documents, or only compare them; returns the exit code."""
    checking = "--check" in arguments
    stale = 0
    for name, blocks in documents().items():
        path = ROOT / name
        written = path.read_text()
        drawn = redraw(written, blocks)
        if drawn == written:
            continue
        stale += 1
        if checking:
            sys.stderr.write(f"{name} is not what the code says: run .venv/bin/python -m infra.diagrams\n")
        else:
            path.write_text(drawn)
    return 1 if checking and stale else 0


def documents() -> dict[str, dict[str, str]]:
    """Each document's drawn parts, by the name in their markers."""
    architecture = {
        "job-life": diagram(lifecycle.JOB, ends=lifecycle.TERMINAL),
        "job-states": meanings("status", lifecycle.JobStatus),
        "job-events": meanings("event", lifecycle.JobEvent),
        "job-places": meanings("place", lifecycle.Place),
        "submission-life": diagram(lifecycle.SUBMISSION, ends=_without_edges(lifecycle.SUBMISSION)),
        "submission-states": meanings("status", lifecycle.SubmissionStatus),
        "batch-life": diagram(lifecycle.BATCH, ends=lifecycle.TERMINAL_BATCH),
        "batch-states": meanings("status", lifecycle.BatchStatus),
        "delivery-life": diagram(lifecycle.DELIVERY, ends=set(lifecycle.DELIVERY) - {lifecycle.DeliveryStatus.PENDING}),
        "error-policy": error_policy(),
    }
    return {"ARCHITECTURE.md": architecture, "docs/errors.md": {"problems": problem_codes()}}


def redraw(document: str, blocks: Mapping[str, str]) -> str:
    """The document with each block between its markers. Raises ValueError where a block has not exactly one place."""
    for name, block in blocks.items():
        begin, end = f"<!-- drawn: {name} -->\n", "<!-- end -->"
        if document.count(begin) != 1:
            raise ValueError(f"the document needs one {begin.strip()} … {end}")
        before, _, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        document = f"{before}{begin}{block}\n{end}{after}"
        if not closed:
            raise ValueError(f"{begin.strip()} needs its {end}")
    return document


def diagram(edges: Mapping[S, Mapping[E, S]], *, ends: Collection[S]) -> str:
    """A mermaid state diagram of a table of transitions: its first state is where a life begins."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(edges))}"]
    for state, leaving in edges.items():
        targets: dict[S, list[str]] = {}
        for event, target in leaving.items():
            targets.setdefault(target, []).append(event.value)
        lines += [f"    {state} --> {target}: {', '.join(events)}" for target, events in targets.items()]
    lines += [f"    {state} --> [*]" for state in edges if state in ends]
    return "\n".join([*lines, "```"])


def _without_edges(edges: Mapping[S, Mapping[E, S]]) -> set[S]:
    return {state for state, leaving in edges.items() if not leaving}


def meanings(head: str, states: type[StrEnum]) -> str:
    """A table of an enumeration's members with the text that stands below each of them in the code."""
    said = _texts(states)
    return _table((head, "meaning"), [(f"`{state.value}`", said[state.name]) for state in states if state.name in said])


def error_policy() -> str:
    """What follows from each class of faults."""
    rows = [
        (
            f"`{kind.__name__}`",
            (inspect.getdoc(kind) or "").partition(". ")[0].rstrip("."),
            _FATES[then.fate],
            _STOPS[then.stop],
        )
        for kind, then in policy.ON_REJECTION.items()
    ]
    return _table(("class", "meaning", "the job …", "for everyone"), rows)


def problem_codes() -> str:
    """Every error that the API answers with."""
    rows = [(f"`{code}`", str(kind.status), kind.title, kind.remedy) for code, kind in KINDS.items()]
    return _table(("code", "status", "title", "what to do"), rows)


def _texts(states: type[StrEnum]) -> dict[str, str]:
    """The docstring below each member, which Python itself does not keep."""
    body = ast.parse(inspect.getsource(states)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for member, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(member.targets[0])] = " ".join(str(text.value.value).split())
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
