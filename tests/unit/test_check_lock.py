"""The lock files' check, on trees of its own: it can fail, and the repository's own files pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.check_lock import ROOT, check

_HASH = f"--hash=sha256:{'0' * 64}"
_PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
[project]
dependencies = ["Fal_Client>=1.0.3,<1.1", "celery[redis]>=5.7"]
[project.optional-dependencies]
dev = ["ruff>=0.12"]
"""
_SERVICE = {
    "fal-client": f"fal-client==1.0.3 \\\n    {_HASH}\n    # via darkroom",
    "celery": f"celery==5.7.0 \\\n    {_HASH} \\\n    {_HASH}",
}
_BUILD = {"hatchling": f"hatchling==1.33.0 ; python_version >= '3.11' \\\n    {_HASH}"}
_ALL = {**_SERVICE, **_BUILD, "ruff": f"ruff==0.17.6 \\\n    {_HASH}"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "infra").mkdir()
    (tmp_path / "pyproject.toml").write_text(_PYPROJECT)
    lock(tmp_path, "requirements.lock", _ALL)
    lock(tmp_path, "infra/requirements-service.lock", _SERVICE)
    lock(tmp_path, "infra/requirements-build.lock", _BUILD)
    return tmp_path


def lock(tree: Path, name: str, pins: dict[str, str]) -> None:
    (tree / name).write_text("".join(f"{pin}\n" for pin in pins.values()))


def test_the_repositorys_own_lock_files_are_right() -> None:
    assert check(ROOT) == []


def test_a_right_tree_has_no_mistakes(tree: Path) -> None:
    assert check(tree) == []


@pytest.mark.parametrize(
    ("pin", "mistake"),
    [
        (f"ruff==0.11.0 {_HASH}", "requirements.lock: ruff 0.11.0 is outside pyproject.toml's >=0.12"),
        ("ruff==0.17.6", "requirements.lock: ruff 0.17.6 has no sha256 hash"),
        ("ruff==0.17.6 --hash=sha256:123", "requirements.lock: ruff 0.17.6 has no sha256 hash"),
        (f"ruff>=0.17 {_HASH}", "requirements.lock: not an exact version: ruff>=0.17"),
        (f"ruff==0.17.* {_HASH}", "requirements.lock: not an exact version: ruff==0.17.*"),
        ("-e .", "requirements.lock: not an exact version: -e ."),
        (f"other==1 {_HASH}", "requirements.lock: ruff>=0.12 of pyproject.toml is not locked"),
        (f"ruff @ https://example.com/ruff.whl {_HASH}", "requirements.lock:9: names an address"),
        (f"ruff==0.17.6 {_HASH}\n# from https://example.com", "requirements.lock:10: names an address"),
    ],
)
def test_a_wrong_entry_is_told(tree: Path, pin: str, mistake: str) -> None:
    lock(tree, "requirements.lock", {**_SERVICE, **_BUILD, "ruff": pin})
    assert any(found.startswith(mistake) for found in check(tree)), check(tree)


def test_a_part_with_other_versions_than_the_whole_is_told(tree: Path) -> None:
    lock(tree, "infra/requirements-service.lock", {**_SERVICE, "celery": f"celery==5.7.1 {_HASH}"})
    assert check(tree) == ["requirements-service.lock: celery 5.7.1 is not in requirements.lock"]


def test_a_missing_file_is_told(tree: Path) -> None:
    (tree / "infra" / "requirements-build.lock").unlink()
    assert check(tree) == ["requirements-build.lock: is missing: run `make lock`"]
