"""`make demo` and `make up` as a person meets them: real processes, a real terminal's signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from infra.local.ports import free_port
from infra.local.program import Program
from infra.local.stack import Stack

pytestmark = pytest.mark.timeout(240)

# At fal at once. The simulator runs two at a time, a second each: enough to end the stack in the middle of it.
JOBS = 16


def bare_environment(**more: str) -> dict[str, str]:
    """Nothing of the developer's own: no FAL_KEY, no AWS profile, no proxy."""
    return {"PATH": os.defpath, "HOME": "/nonexistent", "LANG": "C.UTF-8", **more}


@contextmanager
def up(directory: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`make up` in that directory, ready; with all it printed until then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local.up"],
        cwd=directory,
        env=bare_environment(DARKROOM_PORT=str(port), DARKROOM_LEASE_SECONDS="3", DARKROOM_FAL_CONCURRENCY=str(JOBS)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    try:
        while "Ctrl-C stops everything" not in said:
            line = process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        yield process, said
    finally:
        process.kill()
        process.communicate()


def client(port: int, directory: Path) -> httpx.Client:
    key = (directory / ".darkroom" / "api-key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=70, trust_env=False)


def simulator(directory: Path) -> httpx.Client:
    port = json.loads((directory / ".darkroom" / "ports.json").read_text())["simulator"]
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)


def ask(api: httpx.Client, prompt: str) -> str:
    answer = api.post("/v1/jobs", json={"input": {"prompt": prompt, "image_size": "square"}})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def all_jobs(api: httpx.Client) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = api.get("/v1/jobs", params={"limit": 100}).json()["data"]
    return jobs


def wait_for(api: httpx.Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = api.get(f"/v1/jobs/{job_id}", params={"wait": "60"}).json()
    return job


def test_the_demo_renders_a_picture_and_proves_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.local.demo"],
        cwd=tmp_path,
        env=bare_environment(PROMPT="a lighthouse on the Moon"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a lighthouse on the Moon" in done.stdout
    (picture,) = (tmp_path / "out").iterdir()
    assert re.fullmatch(r"job_\w+-0\.png", picture.name)
    with Image.open(picture) as image:
        assert image.size == (1024, 1024)
    job_id = picture.name.removesuffix("-0.png")
    assert re.search(rf"s3://darkroom/renders/\S+/{job_id}/0\.png", done.stdout)
    assert re.search(r"job\.succeeded \S+ \(signature verified\)", done.stdout)
    assert "$0.0084 (estimated $0.0084)" in done.stdout
    assert done.stderr == ""


def test_the_demo_fails_plainly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.local.demo"],
        cwd=tmp_path,
        env=bare_environment(DARKROOM_LEASE_SECONDS="soon"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "worker-1 ended with exit code 2 while starting" in done.stdout
    assert "DARKROOM_LEASE_SECONDS: " in done.stdout
    assert f"logs: {tmp_path}/.darkroom/demo/logs/" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_up_stops_cleanly_and_finds_its_jobs_again(tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path, port) as (process, said):
        assert f"http://127.0.0.1:{port}/docs" in said
        assert f"Bearer {(tmp_path / '.darkroom' / 'api-key').read_text().strip()}" in said
        with client(port, tmp_path) as api:
            job_id = api.post("/v1/jobs", json={"input": {"prompt": "a fox"}}).json()["id"]
            assert wait_for(api, job_id)["status"] == "succeeded"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # an impatient second Ctrl-C changes nothing
        assert process.wait(60) == 0
    with up(tmp_path, port) as (process, _), client(port, tmp_path) as api:
        job = api.get(f"/v1/jobs/{job_id}").json()
        assert job["status"] == "succeeded"
        assert httpx.get(job["images"][0]["url"], trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_up_ended_in_the_middle_of_work_goes_on_at_its_next_start_and_pays_once(
    tmp_path: Path, how: signal.Signals
) -> None:
    port = free_port()
    with up(tmp_path, port) as (process, _), client(port, tmp_path) as api:
        jobs = [ask(api, f"fox {number}") for number in range(JOBS)]
        while any(job["fal_request_id"] is None for job in all_jobs(api)):
            time.sleep(0.02)
        with simulator(tmp_path) as fal:
            at_fal = fal.get("/_sim/inflight").json()
        process.send_signal(how)
        process.wait(60)
    assert at_fal["running"] == 2, "the stack was to be ended while fal rendered"
    assert at_fal["queued"] > 0
    with up(tmp_path, port), client(port, tmp_path) as api, simulator(tmp_path) as fal:
        jobs.append(ask(api, "a hen"))
        ended = [wait_for(api, job_id) for job_id in jobs]
        ledger = fal.get("/_sim/ledger").json()
    assert {job["status"] for job in ended} == {"succeeded"}, [job["error"] for job in ended]
    assert {len(job["submissions"]) for job in ended} == {1}
    assert ledger["totals"]["billed"] == len(ledger["requests"]) == len(jobs)
    assert {entry["request_id"] for entry in ledger["requests"]} == {job["fal_request_id"] for job in ended}


def test_a_second_up_on_the_same_data_refuses(tmp_path: Path) -> None:
    with up(tmp_path, free_port()) as (process, _):
        second = subprocess.run(
            [sys.executable, "-m", "infra.local.up"],
            cwd=tmp_path,
            env=bare_environment(DARKROOM_PORT=str(free_port())),
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"another stack (pid {process.pid}) already runs on {tmp_path}/.darkroom" in second.stdout
        assert process.poll() is None


def die(program: Program) -> None:
    """End it as a fault would, and return when the supervisor has brought it back."""
    os.kill(dead := program.pid, signal.SIGKILL)
    while program.pid == dead:
        time.sleep(0.02)
    program.wait_ready()


def test_api_workers_and_simulator_that_die_come_back_and_work(tmp_path: Path) -> None:
    said: list[str] = []
    slow = ("--latency", "2", "--latency-sigma", "0")
    with Stack(tmp_path, environment=bare_environment(), workers=1, simulator_arguments=slow, say=said.append) as stack:
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        assert stack.simulator is not None
        die(stack.api)
        die(stack.workers[0])
        with httpx.Client(base_url=stack.url, headers=headers, timeout=70, trust_env=False) as api:
            job_id = ask(api, "a fox")
            while all_jobs(api)[0]["fal_request_id"] is None:
                time.sleep(0.02)
            die(stack.simulator)
            job = wait_for(api, job_id)
        ledger = httpx.get(f"{stack.simulator.url}/_sim/ledger", trust_env=False).json()
    assert (job["status"], len(job["submissions"]), job["error"]) == ("succeeded", 1, None)
    assert (len(ledger["requests"]), ledger["totals"]["billed"], ledger["counters"]["posts"]) == (1, 1, 0)
    assert [line.split()[0] for line in said] == ["api", "worker-1", "simulator"]
