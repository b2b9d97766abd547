"""The whole of Darkroom on this machine: Valkey, S3, the fal simulator, the API and the workers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.datadir import DataDirectory
from infra.local.environment import Surroundings
from infra.local.ports import LOOPBACK, require_free
from infra.local.program import Program
from infra.local.seaweedfs import PORT_NAMES, SeaweedFS
from infra.local.services import Api, Simulator, Worker
from infra.local.supervisor import Supervisor
from infra.local.valkey import Valkey


class Stack:
    """Entered, everything runs and is ready; left, everything is gone. A kill -9 of this process ends it all too.

    What the user's environment points elsewhere is used from there and not started (`Surroundings`). Data, ports,
    secrets, logs and the simulator's ledger are kept in the data directory: entering again finds all jobs, and what
    was under way at the simulator goes on. While entered, a program that dies is started again; one that was ended by
    its own `kill()` or `stop()` stays down until its `restart()`.
    """

    def __init__(
        self,
        data: Path,
        *,
        environment: Mapping[str, str],
        workers: int = 2,
        address: tuple[str, int] | None = None,
        simulator_arguments: Sequence[str] = (),
        supervised: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is started or written yet.

        Args:
            data: the data directory; made if need be.
            environment: the user's, such as os.environ: handed on to API and workers, and wins.
            workers: how many worker processes.
            address: host and port of the API; None: loopback, on a free port that is remembered.
            simulator_arguments: added to darkroom-simulator's, such as `["--latency", "0.2"]`.
            supervised: whether what dies is started again.
            say: told, one line a time and from another thread, what died.
        """
        self.path = data.absolute()
        self.user = dict(environment)
        self.valkey: Valkey | None = None
        self.s3: SeaweedFS | None = None
        self.simulator: Simulator | None = None
        self.api: Api
        self.workers: list[Worker] = []
        self.api_key: str
        self._worker_count = workers
        self._address = address
        self._simulator_arguments = tuple(simulator_arguments)
        self._supervised = supervised
        self._say = say or (lambda _line: None)
        self._leaving = ExitStack()

    @property
    def logs(self) -> Path:
        """Where each program's output goes: NAME.log."""
        return self.path / "logs"

    @property
    def url(self) -> str:
        """The API's, as reached from this machine."""
        return self.api.url

    @property
    def bucket(self) -> str:
        """The bucket that pictures land in."""
        return Surroundings(self.user).bucket

    @property
    def programs(self) -> list[Program]:
        """Everything that was started, in that order."""
        return [*filter(None, (self.valkey, self.s3, self.simulator)), self.api, *self.workers]

    def __enter__(self) -> Self:
        """Start everything and wait until it is ready.

        Raises:
            StackRunsError: another stack runs on this data directory.
            PortBusyError: the API's port is in use; nothing was started.
            ProgramFailedError: a program did not come up; everything was stopped again.
        """
        try:
            self._start()
        except BaseException:
            self._leaving.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.close()

    def _start(self) -> None:
        data = DataDirectory(self.path)
        lock = self._leaving.enter_context(data.held())
        if self._address:
            require_free(self._address[1], self._address[0], "DARKROOM_PORT")
        surroundings = Surroundings(self.user)
        metrics = [f"worker-{number}.metrics" for number in range(1, self._worker_count + 1)]
        ports = data.ports(["api", "valkey", "simulator", *PORT_NAMES, *metrics])
        self.api_key = self.user.get("DARKROOM_BOOTSTRAP_API_KEY") or data.secret("api-key", new_api_key)
        host, port = self._address or (LOOPBACK, ports["api"])

        self._build_foundations(surroundings, ports, lock)
        self._bring_up(*filter(None, (self.valkey, self.s3, self.simulator)))

        environment = surroundings.for_services(self.valkey, self.s3, self.simulator, host, port)
        self.api = Api(
            "api",
            ["darkroom-api"],
            surroundings.for_api(environment, self.api_key),
            host=host,
            port=port,
            log=self._log("api"),
            inherited=[lock],
        )
        self.workers = [
            Worker(
                (name := f"worker-{number}"),
                ["darkroom-worker"],
                environment | {"DARKROOM_WORKER_METRICS_PORT": str(ports[f"{name}.metrics"])},
                port=ports[f"{name}.metrics"],
                log=self._log(name),
                inherited=[lock],
            )
            for number in range(1, self._worker_count + 1)
        ]
        self._bring_up(self.api, *self.workers)
        if self._supervised:
            self._leaving.enter_context(Supervisor(self.programs, self._say))

    def _build_foundations(self, surroundings: Surroundings, ports: Mapping[str, int], lock: int) -> None:
        if not surroundings.own_redis:
            self.valkey = Valkey(self.path / "valkey", port=ports["valkey"], log=self._log("valkey"), inherited=[lock])
        if not surroundings.own_s3:
            self.s3 = SeaweedFS(
                self.path / "s3",
                bucket=surroundings.bucket,
                ports={name: ports[name] for name in PORT_NAMES},
                log=self._log("seaweedfs"),
                inherited=[lock],
            )
        if not surroundings.own_fal:
            address = ["--host", LOOPBACK, "--port", str(ports["simulator"])]
            # Jobs outlive this stack, so what they wait for at fal has to.
            memory = ["--ledger", str(self.path / "simulator" / "ledger.jsonl")]
            self.simulator = Simulator(
                "simulator",
                ["darkroom-simulator", *address, *memory, *self._simulator_arguments],
                surroundings.plain(),
                port=ports["simulator"],
                log=self._log("simulator"),
                inherited=[lock],
            )

    def _bring_up(self, *programs: Program) -> None:
        self._leaving.callback(_take_down, programs)
        for program in programs:
            program.start()
        for program in programs:
            program.wait_ready()

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def new_api_key() -> str:
    """A key that no one can guess."""
    return f"dk_{secrets.token_urlsafe(32)}"


def _take_down(programs: Sequence[Program]) -> None:
    for program in programs:
        program.terminate()
    for program in programs:
        program.stop()
