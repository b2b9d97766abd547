"""Getting a picture from the bucket, and believing it only when it is the one that the job names."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

import httpx

from darkroom_client.errors import DownloadError, IntegrityError
from darkroom_client.models import Image
from darkroom_client.patience import Patience
from darkroom_client.steps import Answer, Fetch, Open, Opened, Plan, Read, Sleep

_GONE: Final = frozenset({403, 404, 410})


def download(patience: Patience, image: Image) -> Plan[bytes]:
    """The picture's bytes: exactly those that the job names, by length and SHA-256.

    The signed URL is asked without the API key.

    Raises:
        IntegrityError: what arrived is something else, however often it was tried.
        DownloadError: it did not arrive. An expired URL is renewed by getting the job again.
    """
    whole = io.BytesIO()
    yield from _fetch(patience, image, whole)
    return whole.getvalue()


def download_to(patience: Patience, image: Image, path: Path | str) -> Plan[Path]:
    """Save the picture as that file; its directory is made. The file appears whole and verified, or not at all.

    Raises:
        IntegrityError, DownloadError: as `download` does.
        OSError: the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as sink:
            yield from _fetch(patience, image, sink)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _fetch(patience: Patience, image: Image, sink: BinaryIO) -> Plan[None]:
    for number in itertools.count():
        sink.seek(0)
        sink.truncate()
        fault = yield from _try(image, sink)
        if fault is None:
            return
        if number >= patience.retries or not fault.passing:
            raise fault
        yield Sleep(patience.delay(number))


def _try(image: Image, sink: BinaryIO) -> Plan[DownloadError | None]:
    outcome: Opened | Answer | httpx.RequestError = yield Open(Fetch(image.url))
    if not isinstance(outcome, Opened):
        return _refused(image, outcome)
    digest, length = hashlib.sha256(), 0
    while length <= image.bytes:
        data: bytes | httpx.RequestError = yield Read()
        if isinstance(data, httpx.RequestError):
            return _refused(image, data)
        if not data:
            break
        digest.update(data)
        length += len(data)
        sink.write(data)
    if (length, digest.hexdigest()) != (image.bytes, image.sha256):
        size = f"{length} bytes" if length <= image.bytes else f"more than {image.bytes} bytes"
        return IntegrityError(f"picture {image.index} is not the one of the job: {size} arrived", passing=True)
    return None


def _refused(image: Image, outcome: Answer | httpx.RequestError) -> DownloadError:
    """In words without the URL, which is a key to the picture."""
    host = urlsplit(image.url).netloc.rpartition("@")[2]
    what = f"picture {image.index} from {host}"
    if isinstance(outcome, httpx.RequestError):
        return DownloadError(f"{what}: {type(outcome).__name__}: {outcome}", passing=True)
    why = ": its URL has expired, or the picture is gone; get the job again" if outcome.status in _GONE else ""
    passing = outcome.status >= 500 or outcome.status == 429
    return DownloadError(f"{what}: HTTP status {outcome.status}{why}", passing=passing)
