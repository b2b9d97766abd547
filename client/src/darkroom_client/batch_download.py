"""A batch on this disk: its pictures under the names that SHA256SUMS gives them, and the files of its outcome."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

import httpx
from pydantic import BaseModel, ValidationError

from darkroom_client.batch_models import Batch, BatchImage, BatchResult, Links
from darkroom_client.batches import contact_sheet_call, get_batch, list_files, results_page
from darkroom_client.downloading import Wanted, drafted, save
from darkroom_client.errors import DownloadError, MisuseError, UnsafePathError
from darkroom_client.patience import Patience, passing, too_long
from darkroom_client.places import Places, is_there
from darkroom_client.steps import Answer, Call, Open, Opened, Plan, Read, Sleep, Together, Work, fault_of

_PAGE: Final = 500
"""Rows whose pictures are fetched before the next are asked for: their URLs are fresh."""

_PARALLEL_MAX: Final = 64
_RECORD: Final = "batch.json"
_SHEET: Final = "index.html"
_MANIFEST: Final = "manifest.json"
_OUTCOME: Final = ("results.jsonl", "errors.jsonl", "SHA256SUMS")
"""The sums come last: where they are, all before them is."""

_IN_A_ROW: Final = 20
"""So many files that did not arrive, none in between, say that the bucket is away."""

_FORBIDDEN: Final = 403
"""What the bucket says to a URL that has expired."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that could not be had, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Downloaded:
    """What a download came to, or has come to so far.

    Attributes:
        directory: where it lies.
        batch: as it was when the download began.
        jobs: those whose pictures are all here, or were tried.
        fetched: pictures that came now; `kept` were here already.
        kept: see `fetched`.
        bytes: that came now, of all kinds of files.
        missing: what could not be had.
    """

    directory: Path
    batch: Batch
    jobs: int = 0
    fetched: int = 0
    kept: int = 0
    bytes: int = 0
    missing: list[Missing] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Those that are here now."""
        return self.fetched + self.kept

    @property
    def complete(self) -> bool:
        """Whether the batch had ended, and all of it is here."""
        return self.batch.ended and not self.missing


def download_batch(
    patience: Patience,
    batch_id: str,
    directory: Path | str,
    *,
    parallel: int = 8,
    thumbnails: bool = True,
    on_progress: Callable[[Downloaded], None] | None = None,
) -> Plan[Downloaded]:
    """Copy a batch into a directory of its own; running it again fetches only what is missing or differs.

    It writes `images/`, `thumbs/`, `batch.json` (the batch as it is now) and `index.html` (its contact sheet); for a
    batch that has ended also `results.jsonl`, `errors.jsonl`, `manifest.json` and, last, `SHA256SUMS`, with which
    `sha256sum -c SHA256SUMS` passes. While it runs, that is what is there by now.

    Every file appears whole or not at all. A picture is believed by its length and SHA-256, the files of the outcome by
    those in the manifest. Nothing is written outside of the directory.

    Args:
        patience: set by the client.
        batch_id: the batch's.
        directory: new, empty, or with an earlier copy of the same batch.
        parallel: pictures at a time, 1 to 64.
        thumbnails: fetch the small pictures too; the contact sheet shows them.
        on_progress: told after each job; from several threads, one at a time.

    Raises:
        MisuseError: the directory holds something else.
        UnsafePathError: a name leads out of the directory, or is one of two for the same place.
        IntegrityError, DownloadError: a file of the outcome did not arrive, or the bucket is away. For one picture see
            `missing` instead.
        ApiError, UnreachableError: the API refused, or was away.
        OSError: a file cannot be written.
    """
    if not 1 <= parallel <= _PARALLEL_MAX:
        raise MisuseError(f"parallel is 1 to {_PARALLEL_MAX}, not {parallel}")
    batch = yield from get_batch(patience, batch_id)
    target = Path(directory)
    _own(target, batch)
    places = Places(target)
    copy = _Copy(patience, places, Downloaded(target, batch), on_progress or (lambda _: None), thumbnails)
    after = 0
    while True:
        rows = yield from results_page(patience, batch_id, after=after, limit=_PAGE)
        yield Together([copy.save_job(row) for row in rows], parallel)
        if len(rows) < _PAGE:
            break
        after = rows[-1].line
    yield from contact_sheet_to(patience, batch_id, target / _SHEET, links="download")
    if batch.ended:
        yield from _save_outcome(patience, batch_id, copy.tally)
    places.tidy()
    return copy.tally


def contact_sheet_to(patience: Patience, batch_id: str, path: Path | str, *, links: Links = "signed") -> Plan[Path]:
    """Save the contact sheet as that file; its directory is made. With signed links only its owner may read it.

    The file appears whole, or not at all.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with drafted(target, mode=0o600 if links == "signed" else 0o666) as draft:
        yield from _stream(patience, contact_sheet_call(batch_id, links), draft)
    return target


# pictures -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Copy:
    """Saves the files of jobs, and counts them. Several threads do so at a time."""

    patience: Patience
    places: Places
    tally: Downloaded
    on_progress: Callable[[Downloaded], None]
    thumbnails: bool
    lock: Lock = field(default_factory=Lock)
    in_a_row: int = 0

    def save_job(self, row: BatchResult) -> Plan[None]:
        """All files of one job. One that cannot be had is counted as missing, and holds up no other.

        Raises DownloadError when the bucket is away: many in a row did not arrive, and trying again may help.
        """
        for image in row.images:
            yield from self._try(image.path, self._save_picture(row, image))
            if self.thumbnails and image.thumbnail is not None:
                yield from self._try(image.thumbnail.path, self._save_thumbnail(row, image, image.thumbnail.path))
        with self.lock:
            self.tally.jobs += 1
            self.on_progress(self.tally)

    def _try(self, path: str, saving: Plan[None]) -> Plan[None]:
        try:
            yield from saving
        except UnsafePathError:
            raise
        except DownloadError as fault:
            with self.lock:
                self.tally.missing.append(Missing(path, fault.message))
                self.in_a_row += fault.passing
            if self.in_a_row >= _IN_A_ROW:
                raise
        else:
            self.in_a_row = 0

    def _save_picture(self, row: BatchResult, image: BatchImage) -> Plan[None]:
        place = self.places.claim(image.path, row.line)
        here: bool = yield Work(partial(is_there, place, image.bytes, image.sha256))
        if not here:
            yield from self._save(row, image, place, _picture)
        with self.lock:
            self.tally.kept += here
            self.tally.fetched += not here
            self.tally.bytes += 0 if here else image.bytes

    def _save_thumbnail(self, row: BatchResult, image: BatchImage, path: str) -> Plan[None]:
        place = self.places.claim(path, row.line)
        if not is_there(place, None, None):
            yield from self._save(row, image, place, _thumbnail)
            with self.lock:
                self.tally.bytes += place.stat().st_size

    def _save(
        self, row: BatchResult, image: BatchImage, place: Path, wanted: Callable[[BatchImage], Wanted]
    ) -> Plan[None]:
        try:
            yield from save(self.patience, wanted(image), place)
        except DownloadError as fault:
            if fault.status != _FORBIDDEN:
                raise
            image = yield from self._renewed(row, image, fault)
            yield from save(self.patience, wanted(image), place)

    def _renewed(self, row: BatchResult, image: BatchImage, fault: DownloadError) -> Plan[BatchImage]:
        """The picture with a fresh URL. Raises the fault when the row has none."""
        rows = yield from results_page(self.patience, self.tally.batch.id, after=row.line - 1, limit=1)
        for fresh in rows[0].images if rows else []:
            if fresh.path == image.path and (fresh.thumbnail is None) == (image.thumbnail is None):
                return fresh
        raise fault


def _picture(image: BatchImage) -> Wanted:
    return Wanted(image.url, image.path, image.bytes, image.sha256)


def _thumbnail(image: BatchImage) -> Wanted:
    assert image.thumbnail is not None
    return Wanted(image.thumbnail.url, image.thumbnail.path)


# the batch's own files ------------------------------------------------------------------------------------------------


class _ManifestFile(BaseModel):
    bytes: int
    sha256: str


class _Manifest(BaseModel):
    files: dict[str, _ManifestFile]


def _own(directory: Path, batch: Batch) -> None:
    """Make the directory, or mark it as this batch's. Raises MisuseError where something else would be overwritten."""
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / _RECORD
    if record.exists():
        try:
            owner = json.loads(record.read_bytes())["id"]
        except (ValueError, TypeError, KeyError):
            owner = "something else"
        if owner != batch.id:
            raise MisuseError(f"{directory} holds {owner}: each batch wants a directory of its own")
    else:
        for name in ("images", "thumbs", _SHEET, _MANIFEST, *_OUTCOME):
            if os.path.lexists(directory / name):
                raise MisuseError(f"{directory} holds {name} of something else: the batch wants a directory of its own")
    with drafted(record) as draft:
        draft.write(batch.model_dump_json(indent=2).encode() + b"\n")


def _save_outcome(patience: Patience, batch_id: str, tally: Downloaded) -> Plan[None]:
    listed = yield from list_files(patience, batch_id)
    files = {file.name: file for file in listed}
    described: dict[str, _ManifestFile] = {}
    if _MANIFEST in files:
        manifest = tally.directory / _MANIFEST
        yield from save(patience, Wanted(files[_MANIFEST].url, _MANIFEST), manifest)
        described = _read_manifest(manifest)
    for name in _OUTCOME:
        if name not in files:
            continue
        place, known = tally.directory / name, described.get(name)
        size, sha256 = (known.bytes, known.sha256) if known else (None, None)
        if known is None or not (yield Work(partial(is_there, place, size, sha256))):
            yield from save(patience, Wanted(files[name].url, name, size, sha256), place)
            tally.bytes += place.stat().st_size


def _read_manifest(path: Path) -> dict[str, _ManifestFile]:
    try:
        return _Manifest.model_validate_json(path.read_bytes()).files
    except ValidationError:
        raise DownloadError(f"{path.name} cannot be read: it is none of a batch", passing=False) from None


def _stream(patience: Patience, call: Call, sink: BinaryIO) -> Plan[None]:
    """The answer to a call that is too large to be held. Raises as `ask` does."""
    for number in itertools.count():
        sink.seek(0)
        sink.truncate()
        outcome: Opened | Answer | httpx.RequestError = yield Open(call)
        if isinstance(outcome, Opened):
            outcome = yield from _pour(sink)
        fault = fault_of(outcome)
        if fault is None:
            return
        if number >= patience.retries or not passing(fault) or too_long(patience, fault):
            raise fault
        yield Sleep(patience.delay(number, fault.retry_after))


def _pour(sink: BinaryIO) -> Plan[Answer | httpx.RequestError]:
    """Read what is open to its end."""
    while data := (yield Read()):
        if isinstance(data, httpx.RequestError):
            return data
        sink.write(data)
    return Answer(200, {}, b"")
