"""The `darkroom` command as a test runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from darkroom_client.cli.main import build
from tests.client.kit import SECRET_KEY, Server


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs the command in a directory of its own, against the scripted API."""

    command = str(Path(sys.executable).with_name("darkroom"))

    def __init__(self, api: Server, directory: Path) -> None:
        self.directory = directory
        self.environment = {"DARKROOM_URL": api.url, "DARKROOM_API_KEY": SECRET_KEY}

    def run(self, *words: str, **environment: str) -> Done:
        """Run it in this process, without a terminal."""
        result = CliRunner().invoke(build(), words, env=self.environment | environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert SECRET_KEY not in result.output
        return Done(result.exit_code, result.stdout, result.stderr)

    def start(self, *words: str, env: dict[str, str] | None = None, **streams: Any) -> subprocess.Popen[str]:  # noqa: ANN401 - Popen's
        """Start it as a process of its own."""
        return subprocess.Popen(
            [self.command, *words], cwd=self.directory, env=self.plain() | (env or {}), text=True, **streams
        )

    def plain(self) -> dict[str, str]:
        """An environment with nothing of this machine's in it."""
        plain = {"PATH": os.defpath, "HOME": str(self.directory), "LANG": "C.UTF-8", "COLUMNS": "100"}
        return plain | self.environment


def on_a_terminal(shell: Shell, *words: str) -> str:
    """What a terminal of 100 columns shows of a run that goes well."""
    ours, theirs = pty.openpty()
    shell.environment |= {"TERM": "xterm-256color"}
    process = shell.start(*words, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so when the other side is gone
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return shown.decode()
