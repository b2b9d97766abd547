"""The embedded stack's parts: real Valkey, real S3, real signals, real ports."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from infra.local.datadir import DataDirectory, StackRunsError
from infra.local.ports import PortBusyError, base_url, free_ports, is_free, require_free
from infra.local.program import Program, ProgramFailedError
from infra.local.seaweedfs import SeaweedFS
from infra.local.sigv4 import signed_request
from infra.local.stack import Stack
from infra.local.supervisor import Supervisor
from infra.local.valkey import Valkey


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that must come true."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.01)


class Witness:
    """A pipe that tells whether any process that inherited its writing end is left."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()

    def all_gone(self) -> bool:
        """Closes our own end; a pipe without writers is readable at once."""
        os.close(self.writing)
        try:
            return bool(select.select([self._reading], [], [], 5)[0])
        finally:
            os.close(self._reading)


def write(valkey: Valkey, key: str, value: str) -> None:
    with Redis.from_url(valkey.url) as client:
        client.set(key, value)


def read(valkey: Valkey, key: str) -> bytes | None:
    with Redis.from_url(valkey.url) as client:
        value = client.get(key)
    assert value is None or isinstance(value, bytes)
    return value


def s3(store: SeaweedFS, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    return signed_request(
        method, "127.0.0.1", store.port, path, body, access_key=store.access_key, secret_key=store.secret_key
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


class Script(Program):
    """A few lines of Python, ready when they have made the file."""

    def __init__(self, directory: Path, code: str, *, inherited: Sequence[int] = ()) -> None:
        super().__init__("script", directory / "script.log", inherited=inherited)
        self.ready_file = directory / "ready"
        self.code = code

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.code, str(self.ready_file)]

    def environment(self) -> dict[str, str]:
        return {"PATH": os.defpath}

    def probe(self) -> str | None:
        return None if self.ready_file.exists() else "no file yet"


# --- Valkey ----------------------------------------------------------------------------------------------------------


def test_valkey_forgets_nothing_it_acknowledged_when_killed(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        write(valkey, "job", "kept")
        first = valkey.pid
        valkey.kill()
        assert not valkey.running
        valkey.restart()
        assert valkey.pid != first
        assert read(valkey, "job") == b"kept"


def test_valkey_is_durable_and_on_loopback_only(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        settings = client.config_get("*")
    assert isinstance(settings, dict)
    expected = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
    assert settings.items() >= expected.items()
    assert settings["save"] == ""


def test_a_setting_of_the_test_replaces_ours(tmp_path: Path) -> None:
    with Valkey(tmp_path, settings={"maxmemory": "64mb"}) as valkey, Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}


def test_a_frozen_valkey_keeps_its_socket_and_goes_on(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        valkey.freeze()
        with socket.create_connection(("127.0.0.1", valkey.port), timeout=0.2) as connection:
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(10)
            valkey.thaw()
            connection.settimeout(5)
            assert connection.recv(10) == b"+PONG\r\n"


def test_a_frozen_program_still_stops(tmp_path: Path) -> None:
    witness = Witness()
    with Valkey(tmp_path, inherited=[witness.writing]) as valkey:
        valkey.freeze()
    assert witness.all_gone()


# --- S3 --------------------------------------------------------------------------------------------------------------


def test_s3_keeps_objects_over_a_kill(store: SeaweedFS) -> None:
    body = os.urandom(300_000)
    assert s3(store, "PUT", "/darkroom/picture.png", body)[0] == 200
    store.kill()
    store.restart()
    assert s3(store, "GET", "/darkroom/picture.png") == (200, body)


def test_s3_keeps_objects_when_its_ports_change(tmp_path: Path) -> None:
    body = os.urandom(300_000)
    with SeaweedFS(tmp_path) as before:
        assert s3(before, "PUT", "/darkroom/picture.png", body)[0] == 200
    with SeaweedFS(tmp_path) as after:
        assert after.port != before.port
        assert s3(after, "GET", "/darkroom/picture.png") == (200, body)
        assert s3(after, "PUT", "/darkroom/another.png", body)[0] == 200


def test_s3_refuses_strangers_and_keeps_its_key_to_itself(store: SeaweedFS) -> None:
    stranger = signed_request(
        "GET", "127.0.0.1", store.port, "/darkroom/.ready", b"", access_key=store.access_key, secret_key="guessed"
    )
    assert stranger[0] == 403
    assert stat.S_IMODE(store.credentials_file.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_s3_listens_on_loopback_only(store: SeaweedFS) -> None:
    inodes = set()
    for entry in Path(f"/proc/{store.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed: no listening socket
            if (target := str(entry.readlink())).startswith("socket:["):
                inodes.add(target[8:-1])
    table = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    listening = {row[1].rpartition(":")[0] for row in table if row[3] == "0A" and row[9] in inodes}
    assert listening == {"0100007F"}


# --- programs --------------------------------------------------------------------------------------------------------


def test_a_program_that_dies_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = Script(tmp_path, "raise SystemExit('DARKROOM_FAL_RATE: must look like 10/s')")
    with pytest.raises(ProgramFailedError, match="exit code 1") as caught, script:
        pass
    assert "DARKROOM_FAL_RATE: must look like 10/s" in str(caught.value)
    assert str(script.log) in str(caught.value)


def test_a_program_that_is_never_ready_is_told_and_ended(tmp_path: Path) -> None:
    witness = Witness()
    code = "import time; print('waiting for Godot', flush=True); time.sleep(600)"
    script = Script(tmp_path, code, inherited=[witness.writing])
    script.ready_seconds = 1.0
    with pytest.raises(ProgramFailedError, match="not ready after 1 s: no file yet") as caught, script:
        pass
    assert "waiting for Godot" in str(caught.value)
    assert witness.all_gone()


def test_a_program_deaf_to_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); "
    with Script(tmp_path, deaf + "time.sleep(600)") as script:
        script.stop(grace=0.2)
        assert script.ending == "was ended by SIGKILL"


def test_a_programs_own_children_go_with_it(tmp_path: Path) -> None:
    witness = Witness()
    code = (
        "import pathlib, subprocess, sys, time; subprocess.Popen(['sleep', '600'], close_fds=False); "
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    with Script(tmp_path, code, inherited=[witness.writing]) as script:
        script.kill()
    assert witness.all_gone()


def test_a_large_log_moves_aside_and_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys, time; print('first' * 1000, flush=True); open(sys.argv[1], 'w').close(); "
        "[(print('more', flush=True), time.sleep(0.01)) for _ in range(60000)]"
    )
    with Script(tmp_path, code) as script:
        script.rotate_log(limit=4000)
        assert script.log.with_suffix(".log.1").read_text().startswith("first")
        eventually(lambda: script.log.read_text().startswith("more"))


_OWNER = """
import sys, threading
from pathlib import Path
from infra.local.datadir import DataDirectory
from infra.local.valkey import Valkey
data = DataDirectory(Path(sys.argv[1]))
with data.held() as lock, Valkey(Path(sys.argv[1]) / "valkey", inherited=[lock]) as valkey:
    print(valkey.port, flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs a Valkey on tmp_path."""
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_nothing_outlives_a_parent_that_was_killed(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    assert owner.stdout is not None
    port = int(owner.stdout.readline())
    assert not is_free(port)
    owner.kill()
    # The children hold the lock too: it opens when the last of them is gone.
    with DataDirectory(tmp_path).held(), Valkey(tmp_path / "valkey", port=port) as valkey:
        write(valkey, "job", "back on the same port and data")


def test_two_stacks_on_one_directory_refuse(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(StackRunsError, match=f"pid {owner.pid}.*{tmp_path}"), DataDirectory(tmp_path).held():
        pass


def test_a_directory_waits_for_the_children_of_a_killed_owner(tmp_path: Path) -> None:
    holder = (
        "import fcntl, os, subprocess, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(fd, fcntl.LOCK_EX); "
        "quiet = subprocess.DEVNULL; "
        "print(subprocess.Popen(['sleep', '600'], pass_fds=[fd], stdout=quiet, stderr=quiet).pid)"
    )
    data = DataDirectory(tmp_path)
    done = subprocess.run(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-c", holder, str(tmp_path / "lock")], check=True, capture_output=True, text=True
    )
    child = int(done.stdout)
    killer = threading.Timer(0.3, os.kill, (child, signal.SIGKILL))
    killer.start()
    try:
        with data.held():
            assert killer.finished.is_set()
    finally:
        killer.join()


# --- supervision -----------------------------------------------------------------------------------------------------


def test_what_dies_is_started_again_and_said_so(tmp_path: Path) -> None:
    said: list[str] = []
    with Valkey(tmp_path) as valkey, Supervisor([valkey], said.append):
        write(valkey, "job", "kept")
        first = valkey.pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: valkey.pid != first and valkey.running)
        valkey.wait_ready()
        assert read(valkey, "job") == b"kept"
    assert len(said) == 1
    assert said[0].startswith("valkey was ended by SIGKILL; starting it again in 0.5 s")


def test_what_keeps_dying_is_started_ever_later(tmp_path: Path) -> None:
    said: list[str] = []
    script = Script(tmp_path, "raise SystemExit(3)")
    script.start()
    with Supervisor([script], said.append):
        eventually(lambda: len(said) == 3)
    script.stop()
    assert ["in 0.5 s" in said[0], "in 1 s" in said[1], "in 2 s" in said[2]] == [True, True, True]


def test_what_was_killed_on_purpose_stays_down_until_restarted(tmp_path: Path) -> None:
    said: list[str] = []
    witness = Script(tmp_path, "raise SystemExit(3)")
    with Valkey(tmp_path / "valkey") as valkey, Supervisor([valkey, witness], said.append):
        valkey.kill()
        witness.start()
        eventually(lambda: len(said) == 2)  # the supervisor has looked many times by then
        assert not valkey.running
        valkey.restart()
        write(valkey, "job", "back")
    witness.stop()
    assert all(line.startswith("script") for line in said)


# --- what a data directory remembers ---------------------------------------------------------------------------------


def test_ports_are_remembered_unless_taken(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path).ports(["api", "valkey"])
    assert DataDirectory(tmp_path).ports(["api", "valkey"]) == first
    with socket.create_server(("127.0.0.1", first["api"])):
        second = DataDirectory(tmp_path).ports(["api", "valkey"])
    assert second["api"] != first["api"]
    assert second["valkey"] == first["valkey"]


def test_remembered_ports_that_cannot_be_read_hinder_nothing(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    (tmp_path / "ports.json").write_text('{"api": 18')
    ports = data.ports(["api"])
    assert json.loads((tmp_path / "ports.json").read_text()) == ports


def test_a_secret_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    made = iter(["first", "second"])
    data = DataDirectory(tmp_path / "data")
    assert data.secret("api-key", lambda: next(made)) == "first"
    assert data.secret("api-key", lambda: next(made)) == "first"
    assert stat.S_IMODE((data.path / "api-key").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700


def test_free_ports_are_different_and_outside_the_ephemeral_range() -> None:
    ports = free_ports(30)
    assert len(set(ports)) == 30
    assert max(ports) < 32_768


def test_a_busy_port_names_itself_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortBusyError, match=rf"port {port} .*DARKROOM_PORT={port + 1}"):
            require_free(port, "127.0.0.1", "DARKROOM_PORT")


def test_a_busy_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack = Stack(tmp_path, environment={}, address=("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(PortBusyError), stack:
            pass
    assert not (tmp_path / "valkey").exists()
    assert not list(stack.logs.iterdir())


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("192.0.2.7", "http://192.0.2.7:80")],  # noqa: S104
)
def test_the_url_of_a_server_is_one_that_reaches_it(host: str, url: str) -> None:
    assert base_url(host, 80) == url
