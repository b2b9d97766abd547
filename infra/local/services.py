"""The processes of ours that the stack runs: API, workers, and the stand-in for fal."""

from __future__ import annotations

import http.client
import socket
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from infra.local.ports import LOOPBACK, base_url, reachable
from infra.local.program import Program


class Service(Program):
    """A console script of this distribution."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        port: int,
        host: str = LOOPBACK,
        log: Path,
        inherited: Sequence[int] = (),
    ) -> None:
        """`command` starts with the script's name; `host` and `port` are where the probe asks."""
        super().__init__(name, log, inherited=inherited)
        self.host, self.port = reachable(host), port
        self.url = base_url(host, port)
        self._command = [str(Path(sysconfig.get_path("scripts")) / command[0]), *command[1:]]
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}

    def command(self) -> Sequence[str]:
        """The script of the environment that we run in."""
        return self._command

    def environment(self) -> Mapping[str, str]:
        """Given by the stack."""
        return self._environment

    def _expect_200(self, path: str) -> str | None:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read(300).decode(errors="replace")
        return None if answer.status == 200 else f"GET {path} answered {answer.status}: {text}"


class Api(Service):
    """`darkroom-api`. Ready means: /readyz says that it reaches Redis."""

    def probe(self) -> str | None:
        """Ask /readyz."""
        return self._expect_200("/readyz")


class Worker(Service):
    """`darkroom-worker`. Ready means: its metrics are served, which it begins with its work.

    Its grace is long: a paid POST is finished and saved before it leaves.
    """

    grace_seconds = 30.0

    def probe(self) -> str | None:
        """Connect to its metrics port."""
        socket.create_connection((self.host, self.port), timeout=2).close()
        return None


class Simulator(Service):
    """`darkroom-simulator`. `url` serves fal's queue, its request listing, its key set and the pictures."""

    def probe(self) -> str | None:
        """Ask /_sim/health."""
        return self._expect_200("/_sim/health")

    def client_environment(self) -> dict[str, str]:
        """The variables by which the service takes the simulator for fal. Its key is made up and opens nothing."""
        return {
            "FAL_KEY": "simulator:made-up",
            "DARKROOM_FAL_QUEUE_URL": self.url,
            "DARKROOM_FAL_API_URL": self.url,
            "DARKROOM_FAL_JWKS_URL": f"{self.url}/.well-known/jwks.json",
            "DARKROOM_FAL_MEDIA_HOSTS": f"{LOOPBACK}:{self.port}",
        }
