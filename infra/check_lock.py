"""`make check`: the lock files are what pyproject.toml asks for, hashed, and name no address. Needs no network."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[1]
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a lock file: a package at one version (for one kind of machine, where it has a marker)."""

    name: NormalizedName
    version: str


def main() -> int:
    """Print one line per mistake; returns the exit code."""
    mistakes = check(ROOT)
    sys.stderr.writelines(f"{mistake}\n" for mistake in mistakes)
    return 1 if mistakes else 0


def check(root: Path) -> list[str]:
    """Every mistake in the lock files below `root`, in words; empty when there is none."""
    configuration = tomllib.loads((root / "pyproject.toml").read_text())
    service = [Requirement(line) for line in configuration["project"]["dependencies"]]
    extras = configuration["project"].get("optional-dependencies", {}).values()
    optional = [Requirement(line) for lines in extras for line in lines]
    build = [Requirement(line) for line in configuration["build-system"]["requires"]]

    mistakes: list[str] = []
    everything = _read(root / "requirements.lock", [*service, *optional], mistakes)
    for name, wanted in (("requirements-service.lock", service), ("requirements-build.lock", build)):
        foreign = _read(root / "infra" / name, wanted, mistakes) - everything
        mistakes += sorted(f"{name}: {pin.name} {pin.version} is not in requirements.lock" for pin in foreign)
    return mistakes


def _read(file: Path, wanted: list[Requirement], mistakes: list[str]) -> set[Pin]:
    """The file's pins; what is wrong with it is added to `mistakes`."""
    if not file.exists():
        mistakes.append(f"{file.name}: is missing: run `make lock`")
        return set()
    text = file.read_text()
    mistakes += [
        f"{file.name}:{number}: names an address" for number, line in enumerate(text.splitlines(), 1) if "://" in line
    ]
    uncommented = re.sub(r"(?m)(^|\s)#.*$", "", text)
    pins = set()
    for entry in filter(str.strip, uncommented.replace("\\\n", " ").splitlines()):
        pin = _pin(entry)
        if pin is None:
            mistakes.append(f"{file.name}: not an exact version: {entry.split(' --')[0].strip()}")
        elif not _HASH.search(entry):
            mistakes.append(f"{file.name}: {pin.name} {pin.version} has no sha256 hash")
        if pin is not None:
            pins.add(pin)
    mistakes += [f"{file.name}: {mistake}" for requirement in wanted for mistake in _unmet(requirement, pins)]
    return pins


def _pin(entry: str) -> Pin | None:
    try:
        requirement = Requirement(entry.split(" --", maxsplit=1)[0])
    except InvalidRequirement:
        return None
    exact = re.fullmatch(r"==([^=*,]+)", str(requirement.specifier))
    return Pin(canonicalize_name(requirement.name), exact[1]) if exact and not requirement.url else None


def _unmet(requirement: Requirement, pins: set[Pin]) -> list[str]:
    versions = [pin.version for pin in pins if pin.name == canonicalize_name(requirement.name)]
    if not versions:
        return [f"{requirement} of pyproject.toml is not locked: run `make lock`"]
    return [
        f"{requirement.name} {version} is outside pyproject.toml's {requirement.specifier}: run `make lock`"
        for version in versions
        if not requirement.specifier.contains(version, prereleases=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
