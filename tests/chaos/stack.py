"""The real processes of one run, each of which can be killed, frozen, restarted or replaced by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.environment import Surroundings
from infra.local.ports import LOOPBACK, free_port
from infra.local.program import Program
from infra.local.seaweedfs import SeaweedFS
from infra.local.services import Api, Simulator, Worker
from infra.local.stack import new_api_key
from infra.local.supervisor import Supervisor
from infra.local.valkey import Valkey
from tests.chaos.times import Times

Clocks = Mapping[str, Mapping[str, str]]
"""What a program, by name, finds in its environment beside the rest: how its clock is led astray."""


class ClockedValkey(Valkey):
    """A Valkey with something more in its environment."""

    more: Mapping[str, str]

    def environment(self) -> Mapping[str, str]:
        """Valkey's own, and what was added."""
        return {**super().environment(), **self.more}


class ChaosStack:
    """Entered, everything runs and is ready; left, everything is gone.

    What dies by itself is started again by the product's own supervisor. What a disturbance kills is the disturbance's
    to start: the supervisor's growing waits would make a run of many kills a run of few workers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        times: Times,
        permits: int,
        workers: int,
        callbacks: bool,
        seed: int,
        say: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        clocks: Clocks | None = None,
        mean_run: float | None = None,
    ) -> None:
        """Nothing is started yet. `callbacks`: whether fal is told where it can reach us."""
        self.folder = folder.absolute()
        self.times = times
        self.permits = permits
        self.api_key = new_api_key()
        self.workers: list[Worker] = []
        self._count = workers
        self._callbacks = callbacks
        self._seed = seed
        self._say = say
        self._more = dict(environment or {})
        self._clocks = clocks or {}
        self._mean_run = mean_run or times.mean_run
        self._numbers = count(1)
        self._leaving = ExitStack()

    @property
    def logs(self) -> Path:
        """Where each program's output goes: NAME.log."""
        return self.folder / "logs"

    def __enter__(self) -> Self:
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

    def new_worker(self, more: Mapping[str, str] | None = None) -> Worker:
        """Another worker, not started. `more` goes into its environment and wins."""
        name = f"worker-{next(self._numbers)}"
        port = free_port()
        metrics = {"DARKROOM_WORKER_METRICS_PORT": str(port)}
        environment = {**self._environment, **metrics, **self._clocks.get(name, {}), **(more or {})}
        return Worker(name, ["darkroom-worker"], environment, port=port, log=self._log(name))

    def run_worker(self, worker: Worker) -> None:
        """Start it, wait until it is ready, and look after it from now on."""
        self._bring_up(worker)
        self.workers.append(worker)

    def _start(self) -> None:
        self.valkey = ClockedValkey(self.folder / "valkey", log=self._log("valkey"))
        self.valkey.more = self._clocks.get("valkey", {})
        self.s3 = SeaweedFS(self.folder / "s3", log=self._log("seaweedfs"))
        self.simulator = self._new_simulator()
        self._bring_up(self.valkey, self.s3, self.simulator)
        port = free_port()
        self._environment = self._service_environment(port)
        environment = {**Surroundings.for_api(self._environment, self.api_key), **self._clocks.get("api", {})}
        self.api = Api("api", ["darkroom-api"], environment, port=port, log=self._log("api"))
        self.workers = [self.new_worker() for _ in range(self._count)]
        self._bring_up(self.api, *self.workers)

    def _new_simulator(self) -> Simulator:
        port = free_port()
        arguments = ["--port", str(port), "--concurrency", str(self.permits), "--latency", str(self._mean_run)]
        arguments += ["--pool", "--seed", str(self._seed), "--ledger", str(self.folder / "ledger.jsonl")]
        surroundings = Surroundings(_base_environment())
        return Simulator(
            "simulator",
            ["darkroom-simulator", *arguments],
            surroundings.plain(),
            port=port,
            log=self._log("simulator"),
        )

    def _service_environment(self, api_port: int) -> dict[str, str]:
        surroundings = Surroundings(_base_environment())
        environment = surroundings.for_services(self.valkey, self.s3, self.simulator, LOOPBACK, api_port)
        if not self._callbacks:
            del environment["DARKROOM_PUBLIC_URL"]
        ours = {"DARKROOM_FAL_CONCURRENCY": str(self.permits), "DARKROOM_LOG_FORMAT": "json"}
        return environment | ours | self.times.environment() | self._more

    def _bring_up(self, *programs: Program) -> None:
        self._leaving.callback(_take_down, programs)
        for program in programs:
            program.start()
        for program in programs:
            program.wait_ready()
        for program in programs:
            self._leaving.enter_context(Supervisor([program], self._say))

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _base_environment() -> dict[str, str]:
    """The user's, without anything that would point to a real fal, Redis or S3."""
    foreign = ("DARKROOM_", "FAL_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _take_down(programs: Sequence[Program]) -> None:
    for program in programs:
        program.terminate()
    for program in programs:
        program.stop()
