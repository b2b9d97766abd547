"""The audit: fal's ledger, the records, the bucket and the receiver's inbox against each other, job by job.

What a breach is, exactly:

- *lost*: a job whose creation was answered 202 is not among the account's jobs.
- *doubled*: a job that nobody was promised: one request, repeated with its Idempotency-Key, made two.
- *open*: a job that has neither ended nor is held, although nothing disturbs any more.
- *charged twice*: fal's ledger holds more than one request with the job's own input (its prompt and seed are no other
  job's) that it completed with pictures and billed. Requests that ended in an error, were cancelled or timed out are
  not billed and do not count: a second one after such a verdict is what retrying means.
- *unknown to us*: fal billed pictures, and no submission of the job's record names the request.
- *wrongly ended*: failed where the scenario gives no reason to, or failed although fal billed its pictures.
- *files*: a picture of a succeeded job is missing, or its bytes differ from the record's SHA-256 or from what fal's
  media host serves, or job.json is missing or says something else than the record.
- *undelivered*: an ended job's event never arrived, signed, at the receiver; or the log has not exactly one for it. Of
  a batch it is the batch's event that arrives, and each job's stands in the log.
- *files*, of a batch: it has not completed, or one of its files is missing, or they do not hold each line once, or
  SHA256SUMS is not what lies in the bucket, or manifest.json not what the files are.
- *crowded*: fal had more requests of ours at a time than there are permits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.outcome import faults_of

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Breach(StrEnum):
    """The kinds of broken promises: the columns of the table in which a number other than 0 is one."""

    LOST = "lost"
    DOUBLED = "doubled"
    OPEN = "open"
    HELD = "held"
    CHARGED_TWICE = "charged twice"
    UNKNOWN = "unknown to us"
    ENDED = "wrongly ended"
    FILES = "files"
    UNDELIVERED = "undelivered"
    SIGNATURE = "bad signature"
    CROWDED = "crowded"
    SLOW = "recovered late"
    SCENARIO = "scenario"


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken promise: which job (or what else), and in words what is wrong with it."""

    breach: Breach
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a scenario allows: failures by these error codes, held jobs, and how late a dead worker's jobs may be."""

    failures: frozenset[str] = frozenset()
    held: bool = False
    recovery_seconds: float | None = None


Check = Callable[[Evidence], Iterator[Problem]]
"""A promise that one scenario adds."""


def audit(evidence: Evidence, expected: Expectations, checks: tuple[Check, ...] = ()) -> list[Problem]:
    """Every broken promise. None means that all were kept."""
    found = [
        *_existence(evidence),
        *_ends(evidence, expected),
        *_charges(evidence),
        *_files(evidence),
        *_outcomes(evidence),
        *_events(evidence),
        *_whole(evidence, expected),
    ]
    for check in checks:
        found += check(evidence)
    return found


def _existence(evidence: Evidence) -> Iterator[Problem]:
    promised = set(evidence.accepted.values())
    for prompt, job_id in evidence.accepted.items():
        if job_id not in evidence.jobs:
            yield Problem(Breach.LOST, job_id, f"{prompt!r} was accepted and is not on record")
    for job_id, job in evidence.jobs.items():
        if job_id not in promised:
            yield Problem(Breach.DOUBLED, job_id, f"nobody was promised this job ({job['input']['prompt']!r})")


def _ends(evidence: Evidence, expected: Expectations) -> Iterator[Problem]:
    billed = {prompt: _billed(entries) for prompt, entries in evidence.requests_of().items()}
    for job_id, job in evidence.jobs.items():
        if job["stage"] == "held":
            if not expected.held:
                yield Problem(Breach.HELD, job_id, "is held, although the lookup worked")
        elif job["status"] not in TERMINAL:
            yield Problem(Breach.OPEN, job_id, f"is {job['status']} ({job['stage']})")
        elif job["status"] == "failed":
            code = (job["error"] or {}).get("code")
            if code not in expected.failures:
                yield Problem(Breach.ENDED, job_id, f"failed: {code}: {(job['error'] or {}).get('message')}")
            elif billed.get(job["input"]["prompt"]) and code != "outcome_unknown":
                yield Problem(Breach.ENDED, job_id, f"failed ({code}) although fal billed its pictures")


def _billed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["billed"] and entry["outcome"] == "completed"]


def _charges(evidence: Evidence) -> Iterator[Problem]:
    requests = evidence.requests_of()
    for job_id, job in evidence.jobs.items():
        billed = _billed(requests.get(job["input"]["prompt"], []))
        ids = [entry["request_id"] for entry in billed]
        if len(billed) > 1:
            replies = ", ".join(f"{entry['request_id']} (reply {entry['reply']})" for entry in billed)
            yield Problem(Breach.CHARGED_TWICE, job_id, f"fal billed {len(billed)} requests: {replies}")
        known = {submission["fal_request_id"] for submission in job["submissions"]}
        if job["stage"] != "held" and not set(ids) <= known:
            yield Problem(Breach.UNKNOWN, job_id, f"fal billed {ids}; the record knows {sorted(filter(None, known))}")
        if job["status"] == "succeeded":
            yield from _bill(job, billed)
    for entry in evidence.double_charges:
        yield Problem(Breach.CHARGED_TWICE, entry, "the records note a second charge")


def _bill(job: dict[str, Any], billed: list[dict[str, Any]]) -> Iterator[Problem]:
    if not billed:
        yield Problem(Breach.ENDED, job["id"], "succeeded, and fal billed nothing for it")
        return
    units = sum(Decimal(entry["billable_units"]) for entry in billed)
    said = job["cost"]["billable_units"]
    if said is None or abs(Decimal(str(said)) - units) > Decimal("0.000001"):
        yield Problem(Breach.SCENARIO, job["id"], f"the bill says {said} megapixels, fal's ledger {units}")


def _files(evidence: Evidence) -> Iterator[Problem]:
    for job_id, job in evidence.jobs.items():
        if job["status"] != "succeeded":
            continue
        wanted = int(job["input"].get("num_images", 1))
        if len(job["images"]) != wanted:
            yield Problem(Breach.FILES, job_id, f"{len(job['images'])} pictures on record, {wanted} were asked for")
        for image, stored in zip(job["images"], evidence.pictures.get(job_id, []), strict=True):
            if stored.in_bucket is None:
                yield Problem(Breach.FILES, job_id, f"{stored.key} is not in the bucket")
            elif not image["sha256"] == stored.in_bucket == stored.at_fal:
                texts = f"record {image['sha256'][:12]}, bucket {stored.in_bucket[:12]}, fal {stored.at_fal}"
                yield Problem(Breach.FILES, job_id, f"{stored.key}: the bytes differ: {texts}")
        if job["images"]:
            yield from _sidecar(job, evidence.sidecars.get(job_id))


def _sidecar(job: dict[str, Any], sidecar: dict[str, Any] | None) -> Iterator[Problem]:
    if sidecar is None:
        yield Problem(Breach.FILES, job["id"], "job.json is missing")
        return
    pictures = [(image["key"], image["sha256"]) for image in job["images"]]
    facts: dict[str, tuple[object, object]] = {
        "id": (sidecar["id"], job["id"]),
        "input": (sidecar["input"], job["input"]),
        "fal_request_id": (sidecar["fal_request_id"], job["fal_request_id"]),
        "images": ([(image["key"], image["sha256"]) for image in sidecar["images"]], pictures),
    }
    for name, (said, recorded) in facts.items():
        if said != recorded:
            yield Problem(Breach.FILES, job["id"], f"job.json says {name} {said!r}, the record {recorded!r}")


def _outcomes(evidence: Evidence) -> Iterator[Problem]:
    in_bucket = {stored.key: stored.in_bucket or "" for of_job in evidence.pictures.values() for stored in of_job}
    for outcome in evidence.outcomes:
        batch = outcome.batch
        jobs = {job_id: job for job_id, job in evidence.jobs.items() if job["batch_id"] == batch["id"]}
        if batch["status"] != "completed":
            yield Problem(Breach.OPEN, batch["id"], f"is {batch['status']} ({batch['status_reason']})")
            continue
        for fault in faults_of(outcome, jobs, in_bucket):
            yield Problem(Breach.FILES, batch["id"], fault)


def _events(evidence: Evidence) -> Iterator[Problem]:
    told = Counter((event["data"] or {}).get("id") for event in evidence.events)
    event_of = {(event["data"] or {}).get("id"): event for event in evidence.events}
    batches = {outcome.batch["id"]: ("batch", outcome.batch) for outcome in evidence.outcomes}
    jobs = {job_id: ("job", job) for job_id, job in evidence.jobs.items()}
    for subject, (kind, record) in (jobs | batches).items():
        if record["status"] not in TERMINAL | {"completed"}:
            continue
        if told[subject] != 1:
            yield Problem(Breach.UNDELIVERED, subject, f"the log has {told[subject]} events of its end")
        elif not record.get("batch_id"):
            yield from _delivery(evidence, f"{kind}.{record['status']}", record, event_of[subject]["id"])


def _delivery(evidence: Evidence, kind: str, record: Mapping[str, Any], event_id: str) -> Iterator[Problem]:
    received = evidence.inbox.by_id.get(event_id)
    if received is None or not received.acknowledged:
        arrivals = received.arrivals if received else 0
        yield Problem(Breach.UNDELIVERED, record["id"], f"{event_id} arrived {arrivals} times and was never taken")
    elif (received.type, received.subject, received.status) != (kind, record["id"], record["status"]):
        yield Problem(Breach.UNDELIVERED, record["id"], f"{event_id} says {received}, the record {record['status']}")


def _whole(evidence: Evidence, expected: Expectations) -> Iterator[Problem]:
    for webhook_id in evidence.inbox.bad_signatures:
        yield Problem(Breach.SIGNATURE, webhook_id, "arrived with a signature that is not the account's")
    for webhook_id in evidence.inbox.contradictions:
        yield Problem(Breach.SIGNATURE, webhook_id, "came with different contents at different times")
    if evidence.counters["max_in_system"] > evidence.permits:
        text = f"{evidence.counters['max_in_system']} requests at a time, {evidence.permits} permits"
        yield Problem(Breach.CROWDED, "fal", text)
    limit, slowest = expected.recovery_seconds, evidence.slowest_recovery
    if limit is not None and slowest is not None and slowest > limit:
        yield Problem(
            Breach.SLOW, "workers", f"a dead worker's job was taken up after {slowest:.1f} s, not {limit:g} s"
        )
