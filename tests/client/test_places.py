"""Where pictures may be put, whatever a server names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from darkroom_client import UnsafePathError
from darkroom_client.places import Places, is_there


@pytest.mark.parametrize(
    "path",
    ["images/1-0.png", "thumbs/1-0.jpg", "images/c%2F..%2F%C3%BC-3.jpeg", "images/.x~y_z-0.png", "images/...-0.png"],
)
def test_a_name_as_the_api_makes_them_has_its_place(tmp_path: Path, path: str) -> None:
    place = Places(tmp_path).claim(path, 1)
    assert place == tmp_path / path
    assert place.parent.is_dir()


@pytest.mark.parametrize(
    "path",
    [
        *("../evil.png", "images/../../evil.png", "/evil.png", "//evil.png", "images/..", "images/.", "images//x.png"),
        *("images\\..\\evil.png", "images/a\\b.png", "C:evil.png", "images/C:evil.png", "images/a\0.png", "images/a\n"),
        *("index.html", "manifest.json", "other/1-0.png", "images/a/b.png", "", "images", "images/", "images/ü.png"),
        *(".git/hooks/post-commit", "Images/1-0.png", "images/1-0.png\n", " images/1-0.png", "images/ x"),
    ],
)
def test_another_place_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePathError, match="nothing was written there"):
        Places(tmp_path).claim(path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_one_lines(tmp_path: Path) -> None:
    places = Places(tmp_path)
    assert places.claim("images/1-0.png", 1) == places.claim("images/1-0.png", 1)
    with pytest.raises(UnsafePathError, match="lines 1 and 2 would both be images/1"):
        places.claim("images/1-0.png", 2)


def test_a_disk_that_does_not_tell_upper_from_lower_case_holds_one(tmp_path: Path) -> None:
    """As such a disk does it, the folder is found by another case too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "IMAGES").symlink_to("images")
    places = Places(tmp_path)
    places.claim("images/Fox-0.png", 1)
    with pytest.raises(UnsafePathError, match="on this disk"):
        places.claim("images/fox-0.png", 2)


def test_only_the_same_bytes_in_a_plain_file_are_there(tmp_path: Path) -> None:
    file, link, sha256 = tmp_path / "a", tmp_path / "b", hashlib.sha256(b"abc").hexdigest()
    file.write_bytes(b"abc")
    link.symlink_to(file)
    assert is_there(file, 3, sha256)
    assert is_there(file, None, None)
    assert not is_there(file, 4, sha256)
    assert not is_there(file, 3, sha256.replace(sha256[0], "0" if sha256[0] != "0" else "1"))
    assert not is_there(link, 3, sha256)
    assert not is_there(tmp_path, None, None)
    assert not is_there(tmp_path / "c", 3, sha256)
    file.write_bytes(b"")
    assert is_there(file, 0, hashlib.sha256().hexdigest())
    assert not is_there(file, None, None)
