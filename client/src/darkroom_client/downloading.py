"""Getting a file from the bucket, and believing it only when it is the one that was named."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

import httpx

from darkroom_client.errors import DownloadError, IntegrityError
from darkroom_client.models import Image
from darkroom_client.patience import Patience
from darkroom_client.steps import Answer, Fetch, Open, Opened, Plan, Read, Sleep

_GONE: Final = frozenset({403, 404, 410})

DRAFTS: Final = "*.????????.part"
"""What files are called that are being written. One that a killed program left behind may be deleted."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file in the bucket: where it is, its name in words, and its length and SHA-256 where they are known."""

    url: str
    words: str
    bytes: int | None = None
    sha256: str | None = None


def download(patience: Patience, image: Image) -> Plan[bytes]:
    """The picture's bytes: exactly those that the job names, by length and SHA-256.

    The signed URL is asked without the API key.

    Raises:
        IntegrityError: what arrived is something else, however often it was tried.
        DownloadError: it did not arrive. An expired URL is renewed by getting the job again.
    """
    whole = io.BytesIO()
    yield from _fetch(patience, wanted_picture(image), whole)
    return whole.getvalue()


def download_to(patience: Patience, image: Image, path: Path | str) -> Plan[Path]:
    """Save the picture as that file; its directory is made. The file appears whole and verified, or not at all.

    Raises:
        IntegrityError, DownloadError: as `download` does.
        OSError: the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    yield from save(patience, wanted_picture(image), target)
    return target


def wanted_picture(image: Image) -> Wanted:
    """The picture as a file."""
    return Wanted(image.url, f"picture {image.index}", image.bytes, image.sha256)


def save(patience: Patience, wanted: Wanted, target: Path) -> Plan[None]:
    """Save a file of the bucket. It appears whole, and verified as far as it can be, or not at all."""
    with drafted(target) as draft:
        yield from _fetch(patience, wanted, draft)


@contextmanager
def drafted(target: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file beside the target, which takes its place at the end; or is deleted, where there was an error."""
    draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        # A link that somebody put there is not followed: the file is new, or this fails.
        with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            yield file
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _fetch(patience: Patience, wanted: Wanted, sink: BinaryIO) -> Plan[None]:
    for number in itertools.count():
        sink.seek(0)
        sink.truncate()
        fault = yield from _try(wanted, sink)
        if fault is None:
            return
        if number >= patience.retries or not fault.passing:
            raise fault
        yield Sleep(patience.delay(number))


def _try(wanted: Wanted, sink: BinaryIO) -> Plan[DownloadError | None]:
    outcome: Opened | Answer | httpx.RequestError = yield Open(Fetch(wanted.url))
    if not isinstance(outcome, Opened):
        return _refused(wanted, outcome)
    digest, length = hashlib.sha256(), 0
    most = math.inf if wanted.bytes is None else wanted.bytes
    while length <= most:
        data: bytes | httpx.RequestError = yield Read()
        if isinstance(data, httpx.RequestError):
            return _refused(wanted, data)
        if not data:
            break
        digest.update(data)
        length += len(data)
        sink.write(data)
    if wanted.bytes not in {None, length} or wanted.sha256 not in {None, digest.hexdigest()}:
        size = f"{length} bytes" if length <= most else f"more than {most} bytes"
        return IntegrityError(f"{wanted.words} is not the one that was named: {size} arrived", passing=True)
    return None


def _refused(wanted: Wanted, outcome: Answer | httpx.RequestError) -> DownloadError:
    """In words without the URL, which is a key to the file."""
    host = urlsplit(wanted.url).netloc.rpartition("@")[2]
    what = f"{wanted.words} from {host}"
    if isinstance(outcome, httpx.RequestError):
        return DownloadError(f"{what}: {type(outcome).__name__}: {outcome}", passing=True)
    why = ": its URL has expired, or it is gone; ask for it again" if outcome.status in _GONE else ""
    passing = outcome.status >= 500 or outcome.status == 429
    return DownloadError(f"{what}: HTTP status {outcome.status}{why}", passing=passing, status=outcome.status)
