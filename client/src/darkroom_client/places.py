"""Where a download may write: two folders of one directory, whatever the other side names."""

from __future__ import annotations

import hashlib
import re
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from darkroom_client.downloading import DRAFTS
from darkroom_client.errors import UnsafePathError

_PATH: Final = re.compile(r"(images|thumbs)/([A-Za-z0-9_.~%-]+)")
"""The names are percent-encoded by the API: letters, digits, and no way out."""

_DRAFT_SECONDS: Final = 120
"""Nobody writes any more to a draft that did not grow for so long: a silent bucket is given up sooner."""


class Places:
    """Hands out the places of pictures below a directory. Any number of threads may ask."""

    def __init__(self, directory: Path) -> None:
        """The directory is there, and is tidied."""
        self.directory = directory
        self._owners: dict[str, int] = {}
        self._folders: dict[str, Path] = {}
        self._one_case = False
        self.tidy()

    def tidy(self) -> None:
        """Remove the drafts that a killed download left."""
        folders = [self.directory / name for name in ("images", "thumbs")]
        for folder in [self.directory, *(folder for folder in folders if not folder.is_symlink())]:
            for draft in folder.glob(DRAFTS):
                with suppress(FileNotFoundError):  # its writer is done with it
                    if draft.lstat().st_mtime < time.time() - _DRAFT_SECONDS:
                        draft.unlink()

    def claim(self, path: str, line: int) -> Path:
        """The place that this path names, for that line of the batch. Its folder is there.

        Raises UnsafePathError: for what would lie elsewhere, for a folder that is a link, and for one place of two
        lines (on a disk that does not tell upper from lower case, Fox and fox are one).
        """
        parts = _PATH.fullmatch(path)
        if parts is None or parts[2] in {".", ".."}:
            raise UnsafePathError(f"{path!r} is no place for a picture: nothing was written there", passing=False)
        folder = self._folders.get(parts[1]) or self._folder(parts[1])
        owner = self._owners.setdefault(path.casefold() if self._one_case else path, line)
        if owner != line:
            raise UnsafePathError(f"lines {owner} and {line} would both be {path} on this disk", passing=False)
        return folder / parts[2]

    def _folder(self, name: str) -> Path:
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise UnsafePathError(f"{folder} is a link that leads elsewhere: nothing was written there", passing=False)
        twin = self.directory / name.upper()
        self._one_case = twin.exists() and twin.samefile(folder)
        self._folders[name] = folder
        return folder


def is_there(path: Path, size: int | None, sha256: str | None) -> bool:
    """Whether that file is there already, and is the one that was named as far as that is known."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != (found.st_size or 1 if size is None else size):
        return False
    if sha256 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
