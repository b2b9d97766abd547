"""The `darkroom` command as a shell meets it: its exit codes, its stdout for machines, its stderr for people."""

from __future__ import annotations

import json
import signal
import subprocess
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.client.kit import JOB_ID, PICTURE, Said, Server, image_document, job_document, problem, says
from tests.client.shell import Shell, on_a_terminal


@pytest.fixture
def shell(api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(api, tmp_path)


def stream(*jobs: dict[str, Any]) -> Said:
    text = "".join(f"event: job\nid: {n}\ndata: {json.dumps(job)}\n\n" for n, job in enumerate(jobs))
    return Said(body=text.encode())


def rendered(api: Server, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return job_document(images=[image_document(f"{api.url}/0.png")], finished_at="2026-11-22T22:06:26.5Z", **more)


# render -------------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_the_paths_and_people_the_words(api: Server, shell: Shell) -> None:
    running = job_document("running")
    api.then(
        says(job_document("queued", stage="waiting_for_slot"), 202), stream(running, rendered(api)), Said(body=PICTURE)
    )
    done = shell.run(
        "render", "a fox", "-n", "2", "--size", "640x480", "--seed", "0", "--format", "png", "--lane", "bulk"
    )
    assert done.returncode == 0
    assert done.stdout == f"out/{JOB_ID}-0.png\n"
    assert (shell.directory / done.stdout.strip()).read_bytes() == PICTURE
    said = [line.strip() for line in done.stderr.splitlines()]
    assert said[1:4] == ["waiting for a slot at fal", "generating", "✓ rendered in 2.5 s  $0.0084"]
    asked = {"prompt": "a fox", "num_images": 2, "seed": 0, "output_format": "png"}
    assert json.loads(api.heard[0].body) == {
        "input": asked | {"image_size": {"width": 640, "height": 480}},
        "lane": "bulk",
    }


def test_json_is_the_job_with_its_files(api: Server, shell: Shell) -> None:
    api.then(says(job_document("queued"), 202), stream(rendered(api)), Said(body=PICTURE))
    done = shell.run("render", "a fox", "--json", "--out", "pictures")
    job = json.loads(done.stdout)
    assert (done.returncode, job["id"], job["files"]) == (0, JOB_ID, [f"pictures/{JOB_ID}-0.png"])
    assert json.loads(api.heard[0].body) == {"input": {"prompt": "a fox"}}


def test_without_waiting_a_pipe_gets_the_id(api: Server, shell: Shell) -> None:
    api.then(says(job_document("queued"), 202))
    done = shell.run("render", "a fox", "--no-wait", "--size", "square")
    assert (done.returncode, done.stdout) == (0, f"{JOB_ID}\n")
    assert f"darkroom jobs watch {JOB_ID}" in done.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_a_job_that_fails_is_exit_1(api: Server, shell: Shell, as_json: bool) -> None:  # noqa: FBT001 - a case
    error = {"code": "content_policy_violation", "message": "fal refused the [bold]prompt\x1b[2J"}
    api.then(says(job_document("queued"), 202), stream(job_document("failed", error=error)))
    done = shell.run("render", "a fox", *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert "✗ failed: fal refused the [bold]prompt [2J (content_policy_violation)" in done.stderr
    assert (json.loads(done.stdout)["error"]["code"] == error["code"]) if as_json else (done.stdout == "")


def test_a_picture_that_cannot_be_had_is_exit_1(api: Server, shell: Shell) -> None:
    api.then(says(rendered(api), 202), Said(403))
    done = shell.run("render", "a fox")
    assert (done.returncode, done.stdout) == (1, "")
    assert "its URL has expired" in done.stderr
    assert list((shell.directory / "out").iterdir()) == []


def test_where_nothing_can_be_saved_nothing_is_paid(api: Server, shell: Shell) -> None:
    (shell.directory / "file").touch()
    done = shell.run("render", "a fox", "--out", "file/out")
    assert done.returncode == 2
    assert api.heard == []


def test_ctrl_c_leaves_the_job_and_says_so(api: Server, shell: Shell) -> None:
    api.then(says(job_document("queued"), 202), Said(body=b": ping\n\n" * 2, cut=1), *[Said(503)] * 20)
    process = shell.start("render", "a fox", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(3):  # it watches, and bears that nobody answers
        assert api.arrived.acquire(timeout=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert f"{JOB_ID} goes on" in err
    assert f"darkroom jobs watch {JOB_ID}" in err
    assert not any(heard.target.endswith("/cancel") for heard in api.heard)


def test_a_terminal_sees_a_moving_line_and_no_bare_paths(api: Server, shell: Shell) -> None:
    api.then(says(job_document("queued"), 202), stream(job_document("running"), rendered(api)), Said(body=PICTURE))
    text = on_a_terminal(shell, "render", "a fox")
    assert "\x1b[?25l" in text
    assert "generating" in text
    assert text.count(f"out/{JOB_ID}-0.png") == 1


# exit codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["render"], "Missing argument"),
        (["render", "x", "-n", "5"], "--images"),
        (["render", "x", "--size", "0x5"], "--size"),
        (["render", "x", "--size", "square_4k"], "landscape_16_9"),
        (["render", "x", "--format", "gif"], "--format"),
        (["jobs", "show", "../usage"], "not an id"),
        (["jobs", "delete", JOB_ID], "--yes"),
        (["jobs", "ls", "--status", "lost"], "--status"),
        (["usage", "--from", "yesterday"], "--from"),
    ],
)
def test_usage_is_exit_2_and_sends_nothing(api: Server, shell: Shell, words: list[str], about: str) -> None:
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert about in done.stderr
    assert api.heard == []


@pytest.mark.parametrize(("variable", "value"), [("DARKROOM_API_KEY", ""), ("DARKROOM_URL", "foo")])
def test_a_wrong_environment_is_exit_2(shell: Shell, variable: str, value: str) -> None:
    assert shell.run("jobs", "ls", **{variable: value}).returncode == 2


def test_a_refusal_is_exit_3(api: Server, shell: Shell) -> None:
    mistakes = [{"pointer": "/input/seed", "detail": "too large"}]
    api.then(says(problem(422, "invalid_request", errors=mistakes), 422))
    done = shell.run("render", "x", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["status"]) == (3, "invalid_request", 422)
    assert error["errors"] == [{**mistakes[0], "parameter": None}]


def test_no_answer_is_exit_4(api: Server, shell: Shell) -> None:
    api.then(says(problem(503, "unavailable"), 503, Retry_After="3600"))
    done = shell.run("webhook-secret", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (4, "unavailable")
    api.then(Said(200, b"<html>"))
    assert shell.run("webhook-secret").returncode == 4


def test_the_key_of_make_up_opens_this_machine_only(api: Server, shell: Shell) -> None:
    key = shell.directory / ".darkroom" / "api-key"
    key.parent.mkdir()
    key.write_text("dk_local\n")
    api.then(says({"secret": "whsec_x"}))
    assert shell.run("webhook-secret", DARKROOM_API_KEY="").stdout == "whsec_x\n"
    assert api.heard[0].headers["authorization"] == "Bearer dk_local"
    elsewhere = shell.run("webhook-secret", DARKROOM_API_KEY="", DARKROOM_URL="http://darkroom.invalid")
    assert elsewhere.returncode == 2


# jobs, usage, version -----------------------------------------------------------------------------------------------


def test_a_listing_for_a_pipe_is_one_job_a_line(api: Server, shell: Shell) -> None:
    odd = job_document("running", input={"prompt": "two\nlines\tand \x1b[31mred"})
    api.then(says({"data": [odd, job_document(), job_document()], "has_more": True, "next_cursor": "c"}))
    done = shell.run("jobs", "ls", "--limit", "2", "--status", "running")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        (JOB_ID, "generating", "two lines and  [31mred"),
        (JOB_ID, "succeeded", "a fox"),
    ]
    assert api.heard[0].target == "/v1/jobs?status=running&limit=2"


def test_on_a_terminal_a_long_prompt_leaves_the_id_whole(api: Server, shell: Shell) -> None:
    api.then(says({"data": [job_document(input={"prompt": "a fox " * 100})]}))
    text = on_a_terminal(shell, "jobs", "ls")
    assert JOB_ID in text
    assert "$0.0084" in text
    assert "a fox a fox" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said", "target"),
    [
        (["show", JOB_ID], job_document(), f"GET /v1/jobs/{JOB_ID}"),
        (["cancel", JOB_ID], job_document("cancelled"), f"POST /v1/jobs/{JOB_ID}/cancel"),
        (["replay", JOB_ID], job_document("queued"), f"POST /v1/jobs/{JOB_ID}/replay"),
        (["delete", JOB_ID, "--yes"], None, f"DELETE /v1/jobs/{JOB_ID}"),
    ],
)
def test_each_job_command_speaks_json(api: Server, shell: Shell, words: list[str], said: object, target: str) -> None:
    api.then(says(said) if said else Said(204))
    done = shell.run("jobs", *words, "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, JOB_ID)
    assert [f"{heard.method} {heard.target}" for heard in api.heard] == [target]


def test_a_replay_that_may_cost_is_said_to_be_wanted(api: Server, shell: Shell) -> None:
    api.then(says(problem(409, "charge_not_accepted"), 409), says(job_document("queued"), 202))
    assert shell.run("jobs", "replay", JOB_ID).returncode == 3
    assert shell.run("jobs", "replay", JOB_ID, "--accept-charge").returncode == 0
    assert [heard.body for heard in api.heard] == [b'{"accept_charge":false}', b'{"accept_charge":true}']


def test_usage_shows_days_with_something(api: Server, shell: Shell) -> None:
    none = {"jobs": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "pictures": 0, "spend_usd": 0.0}
    some = none | {"jobs": 3, "succeeded": 2, "pictures": 8, "spend_usd": 0.067}
    used = {"data": [{"date": "2026-11-21", **none}, {"date": "2026-11-22", **some}], "totals": some}
    api.then(says(used))
    done = shell.run("usage", "--from", "2026-11-21", "--to", "2026-11-22")
    assert done.stdout == "2026-11-22\t3\t2\t0\t0\t8\t$0.0670\ntotal\t3\t2\t0\t0\t8\t$0.0670\n"
    assert api.heard[0].target == "/v1/usage?from=2026-11-21&to=2026-11-22"


def test_the_version_needs_nobody(shell: Shell) -> None:
    done = shell.run("version", "--json", DARKROOM_URL="", DARKROOM_API_KEY="")
    assert json.loads(done.stdout) == {"version": version("darkroom-client")}


@pytest.mark.parametrize("words", [[], ["render"], ["jobs"], ["jobs", "ls"]])
def test_help_is_there(shell: Shell, words: list[str]) -> None:
    done = shell.run(*words, "--help")
    assert done.returncode == 0
    assert "darkroom" in done.stdout


def test_what_is_installed_suits_the_client() -> None:
    for line in requires("darkroom-client") or []:
        requirement = Requirement(line)
        assert requirement.specifier.contains(version(requirement.name)), line
