"""The arithmetic behind the measured comparisons."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bench.downloaded import faults_of
from bench.feeding import share_of
from bench.figures import Figure, fullness, percentile, report, spans


def test_slots_are_full_while_one_run_follows_the_other() -> None:
    assert fullness([(0.0, 1.0), (1.0, 2.0), (0.0, 2.0)], 2) == 1.0


def test_a_pause_between_runs_counts_as_empty() -> None:
    assert fullness([(0.0, 1.0), (3.0, 4.0)], 1) == 0.5


def test_within_a_stretch_only_what_ran_in_it_counts() -> None:
    assert fullness([(0.0, 4.0), (9.0, 10.0)], 1, within=(2.0, 6.0)) == 0.5


def test_a_request_that_still_runs_has_no_span() -> None:
    ended = {"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:01.5Z"}
    ((start, end),) = spans([ended, {"started_at": "2026-01-01T00:00:00Z", "ended_at": None}])
    assert end - start == 1.5


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.91, 10), (0.9, 9), (0.0, 1), (1.0, 10)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


def test_a_share_counts_up_to_the_smaller_ones_last() -> None:
    assert share_of("small", ["large", "small", "large", "small", "large", "large"]) == (0.5, 4)


def test_a_share_tells_a_small_batch_that_went_first() -> None:
    assert share_of("small", ["small", "small", "large", "large"]) == (1.0, 2)


def test_only_a_broken_promise_ends_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    slow = Figure("queued", "16 s", "< 15 s", met=False)
    assert report("an upload", [slow]) == 0
    assert "MISSED: < 15 s" in capsys.readouterr().out
    assert report("an upload", [slow], ["a line was lost"]) == 1
    assert "BROKEN: a line was lost" in capsys.readouterr().out


# a downloaded copy --------------------------------------------------------------------------------------------------


def a_sound_copy(folder: Path) -> Path:
    """Two lines, a picture each."""
    (folder / "images").mkdir()
    sums = ""
    for line in (1, 2):
        content = f"picture {line}".encode()
        (folder / f"images/{line}-0.png").write_bytes(content)
        sums += f"{hashlib.sha256(content).hexdigest()}  images/{line}-0.png\n"
    (folder / "SHA256SUMS").write_text(sums)
    (folder / "results.jsonl").write_text('{"line": 1}\n{"line": 2}\n')
    (folder / "errors.jsonl").write_text("")
    describe(folder)
    return folder


def describe(folder: Path) -> None:
    files = {}
    for name in ("results.jsonl", "errors.jsonl", "SHA256SUMS"):
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files[name] = {"lines": content.count(b"\n"), "bytes": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps({"pictures": 2, "files": files}))


def test_a_sound_copy_has_no_faults(tmp_path: Path) -> None:
    assert faults_of(a_sound_copy(tmp_path), lines=2) == []


def test_a_picture_with_other_bytes_is_found(tmp_path: Path) -> None:
    (a_sound_copy(tmp_path) / "images/2-0.png").write_bytes(b"picture 3")
    assert any("images/2-0.png: FAILED" in fault for fault in faults_of(tmp_path, lines=2))


def test_a_missing_picture_is_found(tmp_path: Path) -> None:
    (a_sound_copy(tmp_path) / "images/2-0.png").unlink()
    assert any("images/2-0.png" in fault for fault in faults_of(tmp_path, lines=2))


def test_a_picture_that_the_sums_do_not_name_is_found(tmp_path: Path) -> None:
    (a_sound_copy(tmp_path) / "images/3-0.png").write_bytes(b"picture 3")
    assert "SHA256SUMS does not name ['images/3-0.png']" in faults_of(tmp_path, lines=2)


def test_a_file_unlike_the_manifest_is_found(tmp_path: Path) -> None:
    (a_sound_copy(tmp_path) / "results.jsonl").write_text('{"line": 1}\n{"line": 2 }\n')
    assert any(fault.startswith("results.jsonl is not what manifest.json says") for fault in faults_of(tmp_path, 2))


def test_a_line_that_stands_twice_is_found(tmp_path: Path) -> None:
    (a_sound_copy(tmp_path) / "results.jsonl").write_text('{"line": 1}\n{"line": 2}\n{"line": 2}\n')
    describe(tmp_path)
    assert faults_of(tmp_path, 2) == ["results.jsonl does not hold each of 2 lines once, in order: 3 rows"]
