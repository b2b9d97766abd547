"""A batch's outcome as its owner has it in the morning: downloaded, and checked by `sha256sum`."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx

from bench.house import House
from darkroom.adapters.s3 import S3Bucket
from tests.chaos.outcome import unlike_manifest

FILES = ("results.jsonl", "errors.jsonl", "SHA256SUMS", "manifest.json")
_AT_ONCE = 16


async def download(opened: House, batch_id: str, folder: Path) -> None:
    """Pictures by the presigned URLs of `/results`, to the paths that it names; the outcome's files from the bucket."""
    answer = await opened.caller.api.get(f"/v1/batches/{batch_id}/results")
    answer.raise_for_status()
    rows = [json.loads(line) for line in answer.text.splitlines()]
    images = [image for row in rows for image in row["images"]]
    files = [*images, *filter(None, (image.get("thumbnail") for image in images))]
    room = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as plain:

        async def fetch(file: dict[str, Any]) -> None:
            async with room:
                answer = await plain.get(file["url"])
                answer.raise_for_status()
                await asyncio.to_thread(_write, folder / file["path"], answer.content)

        await asyncio.gather(*(fetch(file) for file in files))
    # `{prefix}{account}/…` is where the account's pictures lie, and its batches beside them.
    account = "/".join(images[0]["key"].split("/")[:2])
    s3 = opened.stack.s3
    assert s3 is not None
    bucket = S3Bucket(
        bucket=s3.bucket, endpoint_url=s3.url, access_key_id=s3.access_key, secret_access_key=s3.secret_key
    )
    for name in FILES:
        content = await bucket.get_bytes(f"{account}/batches/{batch_id}/{name}")
        await asyncio.to_thread(_write, folder / name, content)
    await bucket.close()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def faults_of(folder: Path, lines: int) -> list[str]:
    """What is wrong with a downloaded copy of a batch of so many lines that all succeeded."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found = list(unlike_manifest({name: (folder / name).read_bytes() for name in FILES}))
    found += _not_as_summed(folder)
    named = {line.partition("  ")[2] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {str(file.relative_to(folder)) for file in folder.glob("images/*")}
    if not there <= named:
        found.append(f"SHA256SUMS does not name {sorted(there - named)[:5]}")
    if len(there) != lines or manifest["pictures"] != lines:
        found.append(f"{len(there)} pictures, manifest.json says {manifest['pictures']}, for {lines} lines")
    results = [json.loads(row)["line"] for row in (folder / "results.jsonl").read_text().splitlines()]
    if results != list(range(1, lines + 1)):
        found.append(f"results.jsonl does not hold each of {lines} lines once, in order: {len(results)} rows")
    if (folder / "errors.jsonl").read_bytes():
        found.append("errors.jsonl is not empty")
    return found


def _not_as_summed(folder: Path) -> list[str]:
    """What `sha256sum -c` complains of (macOS: `shasum`, which speaks likewise)."""
    command = ["sha256sum", "-c"] if shutil.which("sha256sum") else ["shasum", "-a", "256", "-c"]
    done = subprocess.run([*command, "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if not line.endswith(": OK")]
    return complaints[:5] or [f"{command[0]} ended with {done.returncode}"] * (done.returncode != 0)
