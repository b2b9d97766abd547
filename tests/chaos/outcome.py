"""What a batch leaves in the bucket, held against the records and against the pictures that lie there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.domain.batch import line_of

FILES = ("input.jsonl", "results.jsonl", "errors.jsonl", "SHA256SUMS", "manifest.json")


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """A batch as the API shows it, and its files in the bucket by name; what is not there is left out."""

    batch: Mapping[str, Any]
    files: Mapping[str, bytes]


def faults_of(outcome: BatchOutcome, jobs: Mapping[str, dict[str, Any]], in_bucket: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with it. `jobs` are the batch's by id, `in_bucket` the SHA-256 of every picture by key."""
    missing = [name for name in FILES if name not in outcome.files]
    if missing:
        yield f"{', '.join(missing)} not in the bucket"
        return
    results, errors = (_rows(outcome.files[name]) for name in ("results.jsonl", "errors.jsonl"))
    yield from _unlike_the_records("results.jsonl", results, jobs, {"succeeded"})
    yield from _unlike_the_records("errors.jsonl", errors, jobs, {"failed", "cancelled"})
    yield from _unlike_the_bucket(outcome.files["SHA256SUMS"].decode(), results, in_bucket)
    yield from unlike_manifest(outcome.files)


def unlike_manifest(files: Mapping[str, bytes]) -> Iterator[str]:
    """Where lines, bytes or SHA-256 of a file differ from what manifest.json says of it."""
    for name, said in json.loads(files["manifest.json"])["files"].items():
        content = files[name]
        digest = hashlib.sha256(content).hexdigest()
        if said != {"lines": content.count(b"\n"), "bytes": len(content), "sha256": digest}:
            yield f"{name} is not what manifest.json says: {said}"


def _rows(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def _unlike_the_records(
    name: str, rows: list[dict[str, Any]], jobs: Mapping[str, dict[str, Any]], ends: set[str]
) -> Iterator[str]:
    """Every job that ended so stands there once, under its line, in the order of lines, and nothing else does."""
    ended = {job_id: job for job_id, job in jobs.items() if job["status"] in ends}
    expected = sorted((line_of(job_id), job_id) for job_id in ended)
    found = [(row["line"], row["job_id"]) for row in rows]
    if found != expected:
        doubled = [place for place, times in Counter(found).items() if times > 1]
        absent = sorted(set(expected) - set(found))
        foreign = sorted(set(found) - set(expected))
        yield f"{name}: missing {absent[:3]}, more than once {doubled[:3]}, foreign {foreign[:3]}, or out of order"
    for row in rows:
        pictures = [(image["key"], image["sha256"]) for image in row.get("images", ())]
        recorded = [(image["key"], image["sha256"]) for image in jobs.get(row["job_id"], {"images": ()})["images"]]
        if "images" in row and pictures != recorded:
            yield f"{name}, line {row['line']}: {pictures}, the record {recorded}"


def _unlike_the_bucket(sums: str, results: list[dict[str, Any]], in_bucket: Mapping[str, str]) -> Iterator[str]:
    """SHA256SUMS names every picture once, with what lies in the bucket at the key of that path."""
    lines = sums.splitlines()
    paths = {image["path"]: image["key"] for row in results for image in row["images"]}
    expected = {f"{in_bucket.get(key)}  {path}" for path, key in paths.items()}
    if len(lines) != len(set(lines)) or set(lines) != expected:
        odd = sorted(set(lines) ^ expected)
        yield f"SHA256SUMS and the bucket differ in {len(odd)} lines of {len(lines)}, such as {odd[:2]}"
