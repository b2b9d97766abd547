"""The audit sees what it is there for: a sound run made unsound in one place is told apart, by job and kind."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from darkroom.domain.batch import batch_job_id
from tests.chaos.audit import Breach, Expectations, audit
from tests.chaos.evidence import Evidence, Stored
from tests.chaos.outcome import BatchOutcome
from tests.chaos.receiver import Inbox, Received
from tests.chaos.scenarios import held_are_the_lost_replies, no_attempt_was_used, nothing_was_stranded

SHA = "ab" * 32
KEY = "renders/acct/2026/01/01/job_1/0.png"


def a_request(name: str = "req-1", **changes: object) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "request_id": name,
        "input": {"prompt": "chaos 1", "seed": 7},
        "outcome": "completed",
        "billed": True,
        "billable_units": "0.262144",
        "reply": "sent",
    }
    return {**entry, **changes}


def a_sound_run() -> Evidence:
    """One job that succeeded, as all sides tell it."""
    job: dict[str, Any] = {
        "id": "job_1",
        "status": "succeeded",
        "stage": None,
        "batch_id": None,
        "input": {"prompt": "chaos 1", "seed": 7, "num_images": 1},
        "attempts": 1,
        "error": None,
        "fal_request_id": "req-1",
        "submissions": [{"fal_request_id": "req-1"}],
        "cost": {"billable_units": 0.262144},
        "images": [{"key": KEY, "sha256": SHA}],
    }
    inbox = Inbox(by_id={"evt_1": Received("job.succeeded", "job_1", "succeeded", arrivals=1, acknowledged=1)})
    return Evidence(
        wishes=[],
        accepted={"chaos 1": "job_1"},
        jobs={"job_1": job},
        events=[{"id": "evt_1", "type": "job.succeeded", "data": {"id": "job_1"}}],
        ledger=[a_request()],
        counters={"posts": 1, "accepted": 1, "max_in_system": 1},
        fired={},
        pictures={"job_1": [Stored(KEY, SHA, SHA)]},
        sidecars={
            "job_1": {
                "id": "job_1",
                "input": job["input"],
                "fal_request_id": "req-1",
                "images": [{"key": KEY, "sha256": SHA}],
            }
        },
        inbox=inbox,
        double_charges=[],
        permits=1,
        notes=[],
    )


def test_a_sound_run_breaks_no_promise() -> None:
    assert audit(a_sound_run(), Expectations(recovery_seconds=1.0)) == []


def _job(evidence: Evidence) -> dict[str, Any]:
    return evidence.jobs["job_1"]


def _fail(evidence: Evidence, code: str) -> None:
    _job(evidence).update(status="failed", images=[], error={"code": code, "message": "so"})
    evidence.inbox.by_id["evt_1"] = Received("job.failed", "job_1", "failed", arrivals=1, acknowledged=1)


def _charge_again(evidence: Evidence) -> None:
    evidence.ledger.append(a_request("req-2"))
    _job(evidence)["submissions"].append({"fal_request_id": "req-2"})


def _hold(evidence: Evidence) -> None:
    _job(evidence).update(status="queued", stage="held", images=[])


BREACHES: list[tuple[Breach, Callable[[Evidence], object]]] = [
    (Breach.LOST, lambda e: e.accepted.update({"chaos 2": "job_2"})),
    (Breach.DOUBLED, lambda e: e.accepted.clear()),
    (Breach.OPEN, lambda e: _job(e).update(status="running", stage="generating", images=[])),
    (Breach.HELD, _hold),
    (Breach.CHARGED_TWICE, _charge_again),
    (Breach.CHARGED_TWICE, lambda e: e.double_charges.append("sub_1:req-2")),
    (Breach.UNKNOWN, lambda e: _job(e).update(submissions=[])),
    (Breach.ENDED, lambda e: _fail(e, "result_lost")),
    (Breach.ENDED, lambda e: e.ledger[0].update(billed=False, outcome="failed")),
    (Breach.FILES, lambda e: e.pictures.update(job_1=[Stored(KEY, None, SHA)])),
    (Breach.FILES, lambda e: e.pictures.update(job_1=[Stored(KEY, "cd" * 32, SHA)])),
    (Breach.FILES, lambda e: e.pictures.update(job_1=[Stored(KEY, SHA, "cd" * 32)])),
    (Breach.FILES, lambda e: e.sidecars.update(job_1=None)),
    (Breach.FILES, lambda e: (e.sidecars["job_1"] or {}).update(fal_request_id="req-2")),
    (Breach.FILES, lambda e: _job(e)["input"].update(num_images=2)),
    (Breach.UNDELIVERED, lambda e: e.inbox.by_id.clear()),
    (Breach.UNDELIVERED, lambda e: setattr(e.inbox.by_id["evt_1"], "acknowledged", 0)),
    (Breach.UNDELIVERED, lambda e: setattr(e.inbox.by_id["evt_1"], "status", "failed")),
    (Breach.UNDELIVERED, lambda e: e.events.append(copy.deepcopy(e.events[0]))),
    (Breach.UNDELIVERED, lambda e: e.events.clear()),
    (Breach.SIGNATURE, lambda e: e.inbox.bad_signatures.append("evt_1")),
    (Breach.SIGNATURE, lambda e: e.inbox.contradictions.append("evt_1")),
    (Breach.CROWDED, lambda e: e.counters.update(max_in_system=2)),
    (Breach.SCENARIO, lambda e: _job(e)["cost"].update(billable_units=0.5)),
]


@pytest.mark.parametrize(("breach", "break_it"), BREACHES)
def test_each_breach_is_seen(breach: Breach, break_it: Callable[[Evidence], object]) -> None:
    evidence = a_sound_run()
    break_it(evidence)
    assert breach in {problem.breach for problem in audit(evidence, Expectations())}


# batches ------------------------------------------------------------------------------------------------------------

BATCH = "batch_01m8a1av7vgce1h74p2rjan97x"
JOB = batch_job_id(BATCH, 1)


def described(content: bytes) -> dict[str, Any]:
    return {"lines": content.count(b"\n"), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def a_sound_batch() -> Evidence:
    """The sound run's job as the only line of a batch: its own end is in the log, the batch's was delivered."""
    evidence = a_sound_run()
    job = evidence.jobs.pop("job_1") | {"id": JOB, "batch_id": BATCH}
    evidence.accepted["chaos 1"] = JOB
    evidence.jobs[JOB] = job
    evidence.pictures[JOB] = evidence.pictures.pop("job_1")
    evidence.sidecars[JOB] = (evidence.sidecars.pop("job_1") or {}) | {"id": JOB}
    evidence.events[0]["data"]["id"] = JOB
    evidence.events.append({"id": "evt_b", "type": "batch.completed", "data": {"id": BATCH}})
    evidence.inbox.by_id = {"evt_b": Received("batch.completed", BATCH, "completed", arrivals=1, acknowledged=1)}
    image = {"key": KEY, "sha256": SHA, "path": "images/1-0.png"}
    files = {
        "input.jsonl": b'{"input": {"prompt": "chaos 1"}}\n',
        "results.jsonl": json.dumps({"line": 1, "job_id": JOB, "images": [image]}).encode() + b"\n",
        "errors.jsonl": b"",
        "SHA256SUMS": f"{SHA}  images/1-0.png\n".encode(),
    }
    files |= _manifest(files)
    evidence.outcomes.append(BatchOutcome({"id": BATCH, "status": "completed", "status_reason": None}, files))
    return evidence


def _manifest(files: dict[str, bytes]) -> dict[str, bytes]:
    names = ("results.jsonl", "errors.jsonl", "SHA256SUMS")
    return {"manifest.json": json.dumps({"files": {name: described(files[name]) for name in names}}).encode()}


def _with_files(evidence: Evidence, change: Callable[[dict[str, bytes]], object], *, honest: bool = True) -> None:
    """Change the files in the bucket; an honest manifest says so."""
    files = dict(evidence.outcomes[0].files)
    change(files)
    evidence.outcomes[0] = BatchOutcome(evidence.outcomes[0].batch, files | (_manifest(files) if honest else {}))


def _doubled(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.update({name: files[name] * 2})


def _emptied(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.update({name: b""})


def test_a_sound_batch_breaks_no_promise() -> None:
    assert audit(a_sound_batch(), Expectations()) == []


BATCH_BREACHES: list[tuple[Breach, Callable[[Evidence], object]]] = [
    (Breach.OPEN, lambda e: e.outcomes[0].batch.update(status="running")),  # type: ignore[attr-defined]
    (Breach.FILES, lambda e: _with_files(e, lambda files: files.pop("input.jsonl"))),
    (Breach.FILES, lambda e: _with_files(e, lambda files: files.pop("manifest.json"), honest=False)),
    (Breach.FILES, lambda e: _with_files(e, _doubled("results.jsonl"))),
    (Breach.FILES, lambda e: _with_files(e, _emptied("results.jsonl"))),
    (Breach.FILES, lambda e: _with_files(e, _doubled("SHA256SUMS"))),
    (Breach.FILES, lambda e: _with_files(e, _emptied("SHA256SUMS"))),
    (Breach.FILES, lambda e: _with_files(e, _emptied("SHA256SUMS"), honest=False)),
    (Breach.FILES, lambda e: _with_files(e, lambda f: f.update({"errors.jsonl": f["results.jsonl"]}))),
    (Breach.FILES, lambda e: e.pictures.update({JOB: [Stored(KEY, "cd" * 32, SHA)]})),
    (Breach.FILES, lambda e: e.jobs[JOB]["images"][0].update(sha256="cd" * 32)),
    (Breach.UNDELIVERED, lambda e: e.inbox.by_id.clear()),
    (Breach.UNDELIVERED, lambda e: e.events.pop()),
    (Breach.UNDELIVERED, lambda e: e.events.pop(0)),
]


@pytest.mark.parametrize(("breach", "break_it"), BATCH_BREACHES)
def test_each_breach_of_a_batch_is_seen(breach: Breach, break_it: Callable[[Evidence], object]) -> None:
    evidence = a_sound_batch()
    break_it(evidence)
    assert breach in {problem.breach for problem in audit(evidence, Expectations())}


def test_a_second_request_after_an_error_verdict_is_not_a_second_charge() -> None:
    evidence = a_sound_run()
    evidence.ledger.insert(0, a_request("req-0", billed=False, outcome="failed"))
    assert audit(evidence, Expectations()) == []


def test_what_a_scenario_allows_is_allowed() -> None:
    evidence = a_sound_run()
    evidence.ledger.clear()
    _fail(evidence, "deadline_exceeded")
    assert audit(evidence, Expectations(failures=frozenset({"deadline_exceeded"}))) == []


def test_a_recovery_over_its_limit_is_seen() -> None:
    evidence = a_sound_run()
    late = Evidence(**{name: getattr(evidence, name) for name in Evidence.__slots__} | {"slowest_recovery": 30.0})
    assert [problem.breach for problem in audit(late, Expectations(recovery_seconds=21.0))] == [Breach.SLOW]
    assert audit(late, Expectations()) == []


def test_the_blind_scenario_counts_what_is_held() -> None:
    evidence = a_sound_run()
    assert list(held_are_the_lost_replies(evidence)) == []
    evidence.fired["submit_lost_after"] = 1
    assert [problem.subject for problem in held_are_the_lost_replies(evidence)] == ["held"]


def test_an_attempt_used_is_seen() -> None:
    evidence = a_sound_run()
    assert list(no_attempt_was_used(evidence)) == []
    _job(evidence)["attempts"] = 2
    assert [problem.subject for problem in no_attempt_was_used(evidence)] == ["job_1"]


def test_an_unclean_stop_is_seen() -> None:
    evidence = a_sound_run()
    evidence.notes.append("   1.00  SIGTERM worker-1: it ended with exit code 0 after 0.2 s")
    assert list(nothing_was_stranded(evidence)) == []
    evidence.notes.append("   2.00  SIGTERM worker-1: it was ended by SIGKILL after 30.0 s")
    assert [problem.breach for problem in nothing_was_stranded(evidence)] == [Breach.SCENARIO]
