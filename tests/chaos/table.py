"""One row a scenario; a number that breaks a promise is marked."""

from __future__ import annotations

from collections import Counter

from tests.chaos.audit import Breach
from tests.chaos.conduct import Verdict

_HEADINGS = (
    *("scenario", "jobs", "ok", "failed", "cancel", "held", "lost", "open", "POSTs", "taken", "twice", "files"),
    *("events", "sigs", "in fal", "rescue", "wall", ""),
)
_WIDTHS = (16, 5, 5, 6, 6, 5, 5, 5, 6, 6, 6, 6, 7, 5, 7, 7, 6, 0)

LEGEND = """\
jobs accepted · ok, failed, cancel(led), held: how they ended · lost: accepted and not on record · open: not ended
POSTs: submissions that reached fal · taken: by fal · twice: jobs with more than one billed, completed request
files: pictures or job.json missing or wrong · events: ended jobs whose webhook was never taken · sigs: bad signatures
in fal: most requests at a time/permits · rescue: slowest return of a dead worker's job, s (how many jobs) · wall: s"""


def heading() -> str:
    """The first line."""
    return _line(_HEADINGS)


def row(verdict: Verdict) -> str:
    """One scenario's line."""
    evidence = verdict.evidence
    if evidence is None:
        return f"{verdict.scenario.name:<{_WIDTHS[0]}} not run: {verdict.not_run}"
    broken = Counter(problem.breach for problem in verdict.problems)
    ends = Counter("held" if job["stage"] == "held" else job["status"] for job in evidence.jobs.values())
    rescue = "-" if evidence.slowest_recovery is None else f"{evidence.slowest_recovery:.1f}({evidence.orphans})"
    return _line(
        (
            verdict.scenario.name,
            str(len(evidence.accepted)),
            str(ends["succeeded"]),
            str(ends["failed"]),
            str(ends["cancelled"]),
            str(ends["held"]),
            str(broken[Breach.LOST]),
            str(broken[Breach.OPEN]),
            str(evidence.counters["posts"]),
            str(evidence.counters["accepted"]),
            str(broken[Breach.CHARGED_TWICE]),
            str(broken[Breach.FILES]),
            str(broken[Breach.UNDELIVERED]),
            str(broken[Breach.SIGNATURE]),
            f"{evidence.counters['max_in_system']}/{evidence.permits}",
            rescue,
            f"{evidence.seconds:.0f}",
            "BROKEN" if verdict.problems else "kept",
        )
    )


def complaints(verdict: Verdict, *, most: int = 20) -> list[str]:
    """What is wrong, one line each, and where to look."""
    lines = [f"  {problem.breach}: {problem.subject}: {problem.text}" for problem in verdict.problems[:most]]
    if len(verdict.problems) > most:
        lines.append(f"  ... and {len(verdict.problems) - most} more")
    if verdict.problems:
        lines.append(f"  logs, records and ledger: {verdict.folder}")
    return lines


def _line(cells: tuple[str, ...]) -> str:
    first, *others = cells
    rest = " ".join(f"{cell:>{width}}" for cell, width in zip(others, _WIDTHS[1:], strict=True))
    return f"{first:<{_WIDTHS[0]}} {rest}".rstrip()
