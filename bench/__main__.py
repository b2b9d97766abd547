"""`make bench`: every measurement, one after the other. Exit status 0 only if no promise was broken."""

from __future__ import annotations

import importlib
import subprocess
import sys

RUNS = (
    ("throughput",),
    ("intake",),
    ("feeding",),
    ("overnight",),
    ("overnight", "--kill"),
    ("lost_replies",),
)


def main() -> int:
    """Say what each is, and run it in a process of its own."""
    broken = []
    for name, *arguments in RUNS:
        command = " ".join([f"bench.{name}", *arguments])
        about = (importlib.import_module(f"bench.{name}").__doc__ or "").partition("\n")[0]
        print(f"\n== {command}: {about}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], check=False).returncode:
            broken.append(command)
    print(f"\nbroken: {', '.join(broken)}" if broken else "\nno promise was broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
