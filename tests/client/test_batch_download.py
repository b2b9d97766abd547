"""A batch on this disk: whole, verified, resumed, and never outside of its directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from darkroom_client import Downloaded, DownloadError, IntegrityError, MisuseError, UnsafePathError
from darkroom_client.batch_download import contact_sheet_to
from tests.client.kit import (
    BATCH_ID,
    Clock,
    Driven,
    Heard,
    Run,
    Said,
    Server,
    answer,
    batch_document,
    lines,
    result_document,
    says,
)


def picture(line: int) -> bytes:
    return f"the picture of line {line} ".encode() * 300


class Studio:
    """A batch at the scripted API: its rows, and a bucket beside it. `broken` says something else of a path, once."""

    def __init__(self, api: Server, count: int = 12) -> None:
        self.api = api
        self.batch = batch_document("completed", counts={"total": count, "succeeded": count})
        self.rows = [result_document(line, f"{api.url}/bucket", picture=picture(line)) for line in range(1, count + 1)]
        self.broken: dict[str, list[Said]] = {}
        base = f"/v1/batches/{BATCH_ID}"
        api.places = {
            base: lambda _: says(self.batch),
            f"{base}/results": self._results,
            f"{base}/files": lambda _: says({"data": self.files()}),
            f"{base}/contact-sheet": lambda heard: Said(body=b"<html>" + heard.target.rpartition("=")[2].encode()),
        }
        for row in self.rows:
            image = row["images"][0]
            self.put(image["path"], picture(row["line"]))
            self.put(image["thumbnail"]["path"], b"small")
        self.end()

    def put(self, path: str, body: bytes) -> None:
        def say(_: Heard) -> Said:
            wrong = self.broken.get(path)
            return wrong.pop() if wrong else Said(body=body)

        self.api.places[f"/bucket/{path}"] = say

    def end(self) -> None:
        """Write the outcome."""
        results = b"".join(json.dumps(row).encode() + b"\n" for row in self.rows)
        sums = b"".join(f"{i['sha256']}  {i['path']}\n".encode() for row in self.rows for i in row["images"])
        outcome = {"results.jsonl": results, "errors.jsonl": b"", "SHA256SUMS": sums}
        described = {n: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in outcome.items()}
        for name, body in {**outcome, "manifest.json": json.dumps({"files": described}).encode()}.items():
            self.put(name, body)

    def files(self) -> list[dict[str, Any]]:
        names = ["input.jsonl", "errors.jsonl"]
        if self.batch["status"] == "completed":
            names += ["results.jsonl", "SHA256SUMS", "index.html", "manifest.json", "../../evil"]
        return [{"name": n, "bucket": "b", "key": n, "url": f"{self.api.url}/bucket/{n}"} for n in names]

    def fetched(self) -> list[str]:
        """What was asked of the bucket since the last time."""
        paths = [urlsplit(heard.target).path for heard in self.api.heard]
        self.api.heard.clear()
        return sorted(path.removeprefix("/bucket/") for path in paths if path.startswith("/bucket/"))

    def _results(self, heard: Heard) -> Said:
        query = parse_qs(urlsplit(heard.target).query)
        after, limit = int(query["after"][0]), int(query["limit"][0])
        return lines(*[row for row in self.rows if row["line"] > after][:limit])


@pytest.fixture
def studio(api: Server) -> Studio:
    return Studio(api)


@pytest.fixture
def download(run: Run, tmp_path: Path) -> Callable[..., Downloaded]:
    """Downloads the batch into `copy`, with either client."""
    return lambda **more: run(lambda client: client.batches.download(BATCH_ID, tmp_path / "copy", **more))


def checked(directory: Path) -> int:
    """What `sha256sum -c` says."""
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=directory, check=False, capture_output=True)  # noqa: S607
    return done.returncode


def tree(directory: Path) -> list[str]:
    return sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())


def test_a_copy_is_complete_and_its_checksums_pass(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    tally = download(parallel=4)
    assert (tally.fetched, tally.kept, tally.complete, tally.missing) == (12, 0, True, [])
    names = ["SHA256SUMS", "batch.json", "errors.jsonl", "index.html", "manifest.json", "results.jsonl"]
    pictures = [
        f"{folder}/{line}-0.{kind}" for folder, kind in (("images", "png"), ("thumbs", "jpg")) for line in range(1, 13)
    ]
    assert tree(tmp_path) == sorted(f"copy/{name}" for name in names + pictures)
    assert (tmp_path / "copy/images/7-0.png").read_bytes() == picture(7)
    assert (tmp_path / "copy/index.html").read_bytes() == b"<html>download"
    assert json.loads((tmp_path / "copy/batch.json").read_bytes())["id"] == BATCH_ID
    assert checked(tmp_path / "copy") == 0
    keyed = [heard.target for heard in studio.api.heard if "authorization" in heard.headers]
    assert all(target.startswith("/v1/") for target in keyed)


def test_the_second_time_nothing_is_fetched_but_what_differs(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    download()
    studio.fetched()
    assert (download().kept, studio.fetched()) == (12, ["manifest.json"])
    (copy / "images/3-0.png").write_bytes(picture(3)[:-1] + b"!")
    (copy / "images/4-0.png").write_bytes(picture(4)[:-1])
    (copy / "images/5-0.png").unlink()
    (copy / "thumbs/6-0.jpg").unlink()
    (copy / "results.jsonl").write_bytes(b"{}")
    assert checked(copy) != 0
    tally = download()
    assert (tally.fetched, tally.kept) == (3, 9)
    wanted = ["images/3-0.png", "images/4-0.png", "images/5-0.png", "manifest.json", "results.jsonl", "thumbs/6-0.jpg"]
    assert studio.fetched() == wanted
    assert checked(copy) == 0


def test_a_wrong_picture_never_appears_and_the_others_do(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    studio.broken = {
        "images/2-0.png": [Said(body=b"no")] * 9,
        "images/3-0.png": [Said(404)],
        "thumbs/4-0.jpg": [Said(410)],
    }
    tally = download()
    assert sorted(missing.path for missing in tally.missing) == ["images/2-0.png", "images/3-0.png", "thumbs/4-0.jpg"]
    assert (tally.fetched, tally.complete) == (10, False)
    there = tree(tmp_path / "copy/images")
    assert there == sorted(f"{line}-0.png" for line in range(1, 13) if line not in {2, 3})
    studio.broken = {}
    assert download().complete
    assert checked(tmp_path / "copy") == 0


def test_an_expired_url_is_renewed(studio: Studio, download: Callable[..., Downloaded]) -> None:
    studio.broken = {"images/5-0.png": [Said(403)], "thumbs/9-0.jpg": [Said(403)]}
    assert download().complete
    again = [h.target for h in studio.api.heard if h.target.endswith("limit=1")]
    assert sorted(again) == [f"/v1/batches/{BATCH_ID}/results?after={line - 1}&limit=1" for line in (5, 9)]


def test_a_url_that_stays_forbidden_is_missing(studio: Studio, download: Callable[..., Downloaded]) -> None:
    studio.broken = {"images/5-0.png": [Said(403)] * 9}
    (missing,) = download().missing
    assert (missing.path, "expired" in missing.reason) == ("images/5-0.png", True)


def test_a_bucket_that_is_away_ends_it_early(api: Server, download: Callable[..., Downloaded]) -> None:
    studio = Studio(api, count=200)
    for row in studio.rows:
        api.places[urlsplit(row["images"][0]["url"]).path] = lambda _: Said(503)
    with pytest.raises(DownloadError, match="503"):
        download(thumbnails=False)
    assert len(studio.fetched()) < 200 * 3


def test_a_batch_that_runs_gives_what_is_there(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    late = studio.rows.pop(4)
    studio.batch = batch_document("running", counts={"total": 12, "succeeded": 11, "queued": 1})
    tally = download()
    assert (tally.fetched, tally.complete, tally.batch.counts.left) == (11, False, 1)
    outcome = {"SHA256SUMS", "results.jsonl", "errors.jsonl", "manifest.json"}
    assert outcome.isdisjoint(tree(tmp_path / "copy"))
    studio.rows.insert(4, late)
    studio.batch = batch_document("completed", counts={"total": 12, "succeeded": 12})
    tally = download()
    assert (tally.fetched, tally.kept, tally.complete) == (1, 11, True)
    assert checked(tmp_path / "copy") == 0


def test_a_batch_that_was_refused_leaves_its_errors(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    studio.batch, studio.rows = batch_document("failed", counts={"total": 0}), []
    studio.put("errors.jsonl", b"{}\n")
    download()
    assert tree(tmp_path / "copy") == ["batch.json", "errors.jsonl", "index.html"]


def test_without_thumbnails_none_is_fetched(studio: Studio, download: Callable[..., Downloaded]) -> None:
    assert download(thumbnails=False).complete
    assert not any(path.startswith("thumbs") for path in studio.fetched())


def test_a_file_of_the_outcome_that_is_not_the_manifests_is_not_kept(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    studio.broken = {"results.jsonl": [Said(body=b"{}\n")] * 9}
    with pytest.raises(IntegrityError, match=r"results\.jsonl"):
        download()
    assert not (tmp_path / "copy/results.jsonl").exists()
    assert not (tmp_path / "copy/SHA256SUMS").exists()


def test_it_goes_on_page_by_page(api: Server, download: Callable[..., Downloaded]) -> None:
    studio = Studio(api, count=501)
    for row in studio.rows[1:-1]:
        row["images"] = []
    seen: list[int] = []
    tally = download(on_progress=lambda tally: seen.append(tally.jobs))
    assert (tally.fetched, seen) == (2, list(range(1, 502)))


# what a server may name -----------------------------------------------------------------------------------------------


def test_a_place_outside_is_refused(studio: Studio, download: Callable[..., Downloaded], tmp_path: Path) -> None:
    studio.rows[2]["images"][0]["path"] = "images/../../evil.png"
    with pytest.raises(UnsafePathError, match="nothing was written there"):
        download()
    assert {file.split("/")[0] for file in tree(tmp_path)} == {"copy"}


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize("folder", ["images", "thumbs"])
def test_a_folder_that_leads_elsewhere_is_refused(
    download: Callable[..., Downloaded], tmp_path: Path, folder: str
) -> None:
    copy, elsewhere = tmp_path / "copy", tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy.mkdir()
    (copy / "batch.json").write_text(json.dumps({"id": BATCH_ID}))
    (copy / folder).symlink_to(elsewhere)
    with pytest.raises(UnsafePathError, match="leads elsewhere"):
        download()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.usefixtures("studio")
def test_a_file_that_is_a_link_is_replaced_not_followed(download: Callable[..., Downloaded], tmp_path: Path) -> None:
    download()
    outside = tmp_path / "outside"
    for name in ("images/1-0.png", "results.jsonl", "manifest.json", "index.html", "batch.json"):
        (tmp_path / "copy" / name).unlink()
        (tmp_path / "copy" / name).symlink_to(outside)
    with pytest.raises(MisuseError):  # whose copy it is, is not known any more
        download()
    (tmp_path / "copy/batch.json").unlink()
    (tmp_path / "copy/batch.json").write_text(json.dumps({"id": BATCH_ID}))
    assert download().complete
    assert not outside.exists()
    assert not any(file.is_symlink() for file in (tmp_path / "copy").rglob("*"))


# whose directory it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images", "index.html", "SHA256SUMS"])
def test_a_directory_with_something_else_is_left_alone(
    studio: Studio, download: Callable[..., Downloaded], tmp_path: Path, name: str
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_text("mine")
    with pytest.raises(MisuseError, match=f"holds {name} of something else"):
        download()
    assert {file.name: file.read_text() for file in (tmp_path / "copy").iterdir()} == {name: "mine"}
    assert studio.fetched() == []


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize("record", ['{"id":"batch_2"}', "[]", "no", '{"id":null}'])
def test_another_batchs_copy_is_left_alone(download: Callable[..., Downloaded], tmp_path: Path, record: str) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/batch.json").write_text(record)
    with pytest.raises(MisuseError, match="a directory of its own"):
        download()
    assert (tmp_path / "copy/batch.json").read_text() == record


@pytest.mark.usefixtures("studio")
def test_what_a_killed_download_left_is_removed_once_nobody_can_be_writing_it(
    download: Callable[..., Downloaded], tmp_path: Path
) -> None:
    download()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = ("copy/images/1-0.png.0badcafe.part", "elsewhere/1-0.jpg.0badcafe.part", "copy/film.part")
    old, other, mine = (tmp_path / name for name in names)
    new = tmp_path / "copy/images/2-0.png.0badcafe.part"
    for file in (old, other, mine, new):
        file.touch()
        os.utime(file, (time.time() - 300 * (file != new),) * 2)
    shutil.rmtree(tmp_path / "copy/thumbs")
    (tmp_path / "copy/thumbs").symlink_to(elsewhere)
    download(thumbnails=False)
    assert [file.exists() for file in (old, other, mine, new)] == [False, True, True, True]


@pytest.mark.parametrize("parallel", [0, 65])
def test_how_many_at_a_time_is_bounded(download: Callable[..., Downloaded], parallel: int) -> None:
    with pytest.raises(MisuseError, match="parallel"):
        download(parallel=parallel)


# together -------------------------------------------------------------------------------------------------------------


def test_pictures_are_fetched_at_the_same_time(studio: Studio, download: Callable[..., Downloaded]) -> None:
    """Each of four waits for the other three."""
    together = Barrier(4)

    def meet(path: str) -> Callable[[Heard], Said]:
        def say(_: Heard) -> Said:
            together.wait(timeout=30)
            return Said(body=picture(int(path.removeprefix("images/").partition("-")[0])))

        return say

    for row in studio.rows:
        path = row["images"][0]["path"]
        studio.api.places[f"/bucket/{path}"] = meet(path)
    assert download(parallel=4, thumbnails=False).complete


@pytest.mark.usefixtures("studio")
def test_a_full_disk_ends_all_of_it(run: Run, tmp_path: Path) -> None:
    """A folder stands where a picture belongs: what goes wrong on the disk is the caller's to see."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/batch.json").write_text(json.dumps({"id": BATCH_ID}))
    (tmp_path / "copy/images/3-0.png").mkdir(parents=True)
    with pytest.raises(OSError, match=r"3-0\.png"):
        run(lambda client: client.batches.download(BATCH_ID, tmp_path / "copy"))
    assert not [name for name in tree(tmp_path) if name.endswith(".part")]


# the contact sheet ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("studio")
def test_a_signed_sheet_is_for_its_owner_only(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new" / "sheet.html"
    file.parent.mkdir()
    file.touch(0o644)
    assert run(lambda client: client.batches.contact_sheet_to(BATCH_ID, file)) == file
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"<html>signed", 0o600)


def test_a_sheet_that_breaks_off_is_asked_for_again(api: Server, run: Run, tmp_path: Path) -> None:
    api.then(Said(body=b"<html>whole", cut=3), Said(503), Said(body=b"<html>whole"))
    file = run(lambda client: client.batches.contact_sheet_to(BATCH_ID, tmp_path / "sheet.html"))
    assert file.read_bytes() == b"<html>whole"


def test_a_sheet_that_does_not_come_leaves_nothing(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").write_text("older")
    with pytest.raises(Exception, match="reset"):
        Driven(contact_sheet_to(clock.patience(retries=1), BATCH_ID, tmp_path / "sheet.html"), clock).give(
            *[httpx.ReadError("reset")] * 2
        )
    with pytest.raises(Exception, match="HTTP status 404"):
        Driven(contact_sheet_to(clock.patience(), BATCH_ID, tmp_path / "sheet.html"), clock).give(answer(404))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"sheet.html": "older"}
