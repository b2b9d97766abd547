"""`darkroom batch …` as a shell meets it."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client.kit import (
    BATCH_ID,
    Said,
    Server,
    batch_document,
    lines,
    problem,
    result_document,
    says,
)
from tests.client.shell import Done, Shell, on_a_terminal

HERE = f"/v1/batches/{BATCH_ID}"
STORED = says(batch_document("validating"), 202)


@pytest.fixture
def shell(api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a fox\nan owl\n")
    api.places["/readyz"] = lambda _: says({"status": "ok", "degraded": []})
    return Shell(api, tmp_path)


def ended(status: str = "completed", **counts: int) -> dict[str, Any]:
    return batch_document(status, counts={"total": 60, "succeeded": 60, **counts}, cost={"spent_usd": 0.5033})


def asked(api: Server, number: int = 0) -> dict[str, str]:
    """What was asked of the API in the query."""
    return dict(httpx.URL(api.heard[number].target).params)


def keys(api: Server) -> list[str]:
    return [heard.headers["idempotency-key"] for heard in api.heard if heard.method == "POST"]


def first_words(done: Done) -> list[str]:
    return [line.strip() for line in done.stderr.splitlines()]


# submit ---------------------------------------------------------------------------------------------------------------


def test_a_file_is_sent_and_the_verdict_awaited(api: Server, shell: Shell) -> None:
    forecast = {"finish_at": "2026-11-26T07:00:00Z", "meets_finish_by": True}
    api.then(STORED, STORED, says(batch_document("queued", forecast=forecast, counts={"queued": 60})))
    done = shell.run("batch", "submit", "prompts.txt", "--budget", "2.5", "--canary", "5")
    assert (done.returncode, done.stdout) == (0, f"{BATCH_ID}\n")
    said = first_words(done)
    assert said[1:4] == [
        f"✓ {BATCH_ID}  stored",
        "checking its lines",
        "✓ 60 jobs, waiting for its turn  about $0.5033",
    ]
    assert said[-1] == f"darkroom batch watch {BATCH_ID}"
    assert api.heard[0].body == b'{"input":{"prompt":"a fox"}}\n{"input":{"prompt":"an owl"}}\n'
    assert asked(api) == {"name": "prompts.txt", "budget_usd": "2.5", "canary": "5"}


def test_a_file_with_mistakes_is_exit_1_and_says_which(api: Server, shell: Shell) -> None:
    errors = [{"line": 2, "pointer": "/input/seed", "detail": "too [red]large\x1b[2J"}]
    rejected = batch_document("failed", status_reason="invalid_lines", invalid=3, errors=errors, counts={"total": 0})
    api.then(STORED, says(rejected))
    done = shell.run("batch", "submit", "prompts.txt", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, "failed")
    assert "✗ failed: lines with mistakes, so nothing was started" in done.stderr
    assert "line 2      /input/seed: too [red]large [2J" in done.stderr
    assert "… 3 lines in all" in done.stderr


def test_the_same_command_is_the_same_request(api: Server, shell: Shell) -> None:
    again = says(ended(), 202, Idempotent_Replayed="true")
    api.then(says(ended(), 202), again, again)
    words = ("batch", "submit", "prompts.txt", "--budget", "1")
    shell.run(*words)
    done = shell.run(*words)
    assert f"! this file was submitted before: {BATCH_ID}" in done.stderr
    assert "With --again it is submitted once more" in done.stderr
    assert (done.returncode, done.stdout) == (0, f"{BATCH_ID}\n")
    shell.run(*words, "--again")
    one, two, other = keys(api)
    assert one == two != other


@pytest.mark.parametrize(
    "words",
    [
        *(["--budget", "2"], ["--name", "other"], ["--on-invalid", "skip"], ["--canary", "2"], ["--finish-by", "+8h"]),
        *(["--webhook-url", "https://x.example"], ["--not-before", "23:00"], ["--format", "csv"]),
    ],
)
def test_another_option_is_another_request(api: Server, shell: Shell, words: list[str]) -> None:
    api.then(says(ended(), 202), says(ended(), 202))
    shell.run("batch", "submit", "prompts.txt")
    shell.run("batch", "submit", "prompts.txt", *words)
    one, two = keys(api)
    assert one != two


def test_another_content_is_another_request_and_another_name_is_not(api: Server, shell: Shell) -> None:
    api.then(*[says(ended(), 202)] * 3)
    shell.run("batch", "submit", "prompts.txt")
    (shell.directory / "prompts.txt").rename(shell.directory / "renamed.txt")
    shell.run("batch", "submit", "renamed.txt")
    (shell.directory / "renamed.txt").write_text("a fox\nan Owl\n")
    shell.run("batch", "submit", "renamed.txt")
    one, two, other = keys(api)
    assert one == two != other


def test_a_time_ahead_is_the_same_request_later_and_is_told_when_the_api_refuses_it(api: Server, shell: Shell) -> None:
    api.then(says(ended(), 202), says(problem(422, "idempotency_key_reused"), 422))
    api.then(says({"data": [batch_document(name="else", id="batch_2"), batch_document(name="prompts.txt")]}))
    shell.run("batch", "submit", "prompts.txt", "--finish-by", "+8h")
    done = shell.run("batch", "submit", "prompts.txt", "--finish-by", "+8h", "--json")
    assert keys(api)[0] == keys(api)[1]
    ahead = datetime.fromisoformat(asked(api)["finish_by"]) - datetime.now(UTC)
    assert timedelta(hours=7.9) < ahead < timedelta(hours=8)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "idempotency_key_reused")
    assert f"Probably as {BATCH_ID}" in done.stderr


def test_stdin_is_read_once_and_can_be_sent_again(api: Server, shell: Shell) -> None:
    api.then(Said(drop=True), says(ended(), 202))
    process = shell.start(
        "batch",
        "submit",
        "-",
        "--name",
        "tonight",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, _ = process.communicate('{"input":{"prompt":"a fox"}}\n', timeout=30)
    assert (process.returncode, out) == (0, f"{BATCH_ID}\n")
    assert [heard.body for heard in api.heard] == [b'{"input":{"prompt":"a fox"}}\n'] * 2
    assert asked(api) == {"name": "tonight"}


def test_a_named_pipe_is_read_with_the_format_that_is_given(api: Server, shell: Shell) -> None:
    api.then(says(ended(), 202))
    process = subprocess.Popen(
        ["/bin/bash", "-c", f"'{shell.command}' batch submit --format csv <(printf 'prompt\\na fox\\n')"],
        env=shell.plain(),
        cwd=shell.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.wait(30) == 0
    assert (api.heard[0].body, api.heard[0].headers["content-type"]) == (b"prompt\na fox\n", "text/csv")


def test_ctrl_c_while_its_lines_are_checked_changes_nothing(api: Server, shell: Shell) -> None:
    api.then(STORED)
    api.places[HERE] = lambda _: says(batch_document("validating"))
    process = shell.start("batch", "submit", "prompts.txt", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(3):
        assert api.arrived.acquire(timeout=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["status"]) == (130, "validating")
    assert f"darkroom batch watch {BATCH_ID}" in err
    assert [heard.method for heard in api.heard].count("POST") == 1


@pytest.mark.parametrize(
    ("words", "about"), [([], "the same command again finds it"), (["--again"], "see darkroom batch ls")]
)
def test_a_batch_that_may_have_arrived_is_told(api: Server, shell: Shell, words: list[str], about: str) -> None:
    api.then(says(problem(503, "unavailable"), 503, Retry_After="3600"))
    done = shell.run("batch", "submit", "prompts.txt", "--json", *words)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (4, "unavailable")
    assert f"the file may have arrived: {about}" in done.stderr


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["submit", "nothing.jsonl"], "no file"),
        (["submit", "."], "no file"),
        (["submit", "prompts.txt", "--finish-by", "tomorrow"], "--finish-by"),
        (["submit", "prompts.txt", "--not-before", "2026-11-26"], "add the time"),
        (["submit", "prompts.txt", "--format", "xml"], "--format"),
        (["submit", "prompts.txt", "--canary-max-failures", "2"], "--canary-max-failures"),
        (["submit", "unknown"], "tells no format"),
        (["submit", "prompts.txt", "--job-events"], "--webhook-url"),
        (["show", "../jobs"], "not an id"),
        (["download", BATCH_ID, "--parallel", "0"], "--parallel"),
        (["open", "."], "no downloaded copy"),
    ],
)
def test_usage_is_exit_2_and_sends_nothing(api: Server, shell: Shell, words: list[str], about: str) -> None:
    (shell.directory / "unknown").touch()
    done = shell.run("batch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert about in done.stderr
    assert api.heard == []


# dry run --------------------------------------------------------------------------------------------------------------


def tried(invalid: int = 0, **more: Any) -> Said:  # noqa: ANN401 - any JSON
    return says(
        {
            "valid": 60 - invalid,
            "invalid": invalid,
            "errors": [{"line": 7, "pointer": "", "detail": "no JSON"}] * min(invalid, 1),
            "counts": {"lines": 60, "jobs": 60 - invalid, "pictures": 120, "duplicate_inputs": 3},
            "cost": {"min_usd": 0, "expected_usd": 1.0067, "max_usd": 1.0067},
            "forecast": {"finish_at": "2020-01-01T07:00:00Z", "meets_finish_by": False},
            **more,
        }
    )


def test_a_dry_run_says_what_it_would_come_to(api: Server, shell: Shell) -> None:
    api.then(tried())
    done = shell.run("batch", "submit", "prompts.txt", "--dry-run", "--finish-by", "+1h")
    assert done.returncode == 0
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["lines"] == "60 good, 0 with mistakes"
    assert facts["pictures"] == "120"
    assert facts["cost"] == "about $1.0067 ($0.0000 to $1.0067)"
    assert facts["duplicates"] == "3 lines have the input of an earlier one"
    assert facts["finished"].endswith(", too late")
    assert "later than --finish-by" in done.stderr
    assert asked(api)["dry_run"] == "true"


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--on-invalid", "skip"], 0)])
def test_a_dry_run_where_nothing_would_start_is_exit_1(api: Server, shell: Shell, words: list[str], code: int) -> None:
    api.then(tried(invalid=2))
    done = shell.run("batch", "submit", "prompts.txt", "--dry-run", "--json", *words)
    assert (done.returncode, json.loads(done.stdout)["invalid"]) == (code, 2)
    assert "✗ 2 of 60 lines have mistakes" in done.stderr
    assert "line 7      the line: no JSON" in done.stderr
    assert ("nothing would start" in done.stderr) == (code == 1)


# watch ----------------------------------------------------------------------------------------------------------------


def running(done: int, **more: Any) -> Said:  # noqa: ANN401 - any JSON
    counts = {"succeeded": done, "running": 2, "queued": 58 - done, **more.pop("counts", {})}
    return says(batch_document("running", counts=counts, cost={"spent_usd": done / 100}, **more))


def test_a_log_gets_a_line_where_there_is_something_to_tell(api: Server, shell: Shell) -> None:
    failing = {
        "failures": [{"code": "request_timeout", "count": 1, "example_job_id": "job_1"}],
        "counts": {"failed": 1},
    }
    api.then(running(0), running(1), running(2), running(7), running(8), running(9, **failing), says(ended()))
    done = shell.run("batch", "watch", "--every", "0.1", BATCH_ID)
    assert done.returncode == 0
    assert first_words(done) == [
        "running, 0 of 60 jobs",
        "running, 7 of 60 jobs, $0.0700 spent",
        "running, 10 of 60 jobs, failed: request_timeout 1, $0.0900 spent",
        "completed, 60 of 60 jobs, $0.5033 spent",
        "✓ completed: 60 of 60 succeeded in 1 min  $0.5033",
        f"darkroom batch download {BATCH_ID}    darkroom batch open {BATCH_ID}",
    ]


def test_it_outlives_the_connection(api: Server, shell: Shell) -> None:
    api.then(running(1), Said(drop=True), Said(503), Said(drop=True), running(2), says(ended()))
    done = shell.run("batch", "watch", "--every", "0.1", BATCH_ID)
    assert done.returncode == 0
    said = "\n".join(first_words(done))
    assert said.count("no connection since") == 1
    assert "connected again after" in said


def test_what_makes_it_wait_is_told(api: Server, shell: Shell) -> None:
    degraded = [["fal: out of balance"], ["fal: out of balance"], []]
    api.places["/readyz"] = lambda _: says({"status": "ok", "degraded": degraded.pop(0)})
    waiting = batch_document("running", counts={"queued": 60})
    api.then(says(waiting), says(waiting), says(waiting), says(waiting), says(ended()))
    done = shell.run("batch", "watch", "--every", "0.1", BATCH_ID)
    assert done.stderr.count("running, it waits: fal: out of balance, 0 of 60 jobs") == 1
    assert degraded == []


@pytest.mark.parametrize(
    ("end", "code", "about"),
    [
        (ended(), 0, "✓ completed: 60 of 60"),
        (ended(succeeded=58, failed=2), 1, f"darkroom batch retry {BATCH_ID}"),
        (ended("cancelled", succeeded=10), 1, "✗ cancelled; 10 of 60 succeeded"),
        (ended("expired", succeeded=10) | {"status_reason": "finish_by"}, 1, "✗ expired: its finish-by has passed"),
        (ended("failed", total=0, succeeded=0) | {"status_reason": "empty"}, 1, "✗ failed: there are no lines"),
        (
            batch_document("paused", status_reason="budget", cost={"budget_usd": 0.25, "expected_usd": 0.5033}),
            5,
            f"darkroom batch resume {BATCH_ID} --budget 0.51",
        ),
        (batch_document("paused", status_reason="canary"), 5, f"darkroom batch resume {BATCH_ID}    darkroom"),
        (batch_document("paused", status_reason="bill_above_bound"), 5, "a bill was higher"),
        (batch_document("paused", status_reason="sunspots"), 5, "! paused: sunspots"),
    ],
)
@pytest.mark.parametrize("before", [[], [running(3)]], ids=["at once", "later"])
def test_how_it_went_is_the_exit_code(
    api: Server, shell: Shell, before: list[Said], end: dict[str, Any], code: int, about: str
) -> None:
    api.then(*before, says(end))
    done = shell.run("batch", "watch", "--every", "0.1", BATCH_ID, "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (code, end["status"])
    assert about in done.stderr


def test_a_pause_that_was_asked_for_is_waited_for(api: Server, shell: Shell) -> None:
    asked_for = says(batch_document("paused", status_reason="requested"))
    api.then(asked_for, asked_for, running(3), says(ended()))
    done = shell.run("batch", "watch", "--every", "0.1", BATCH_ID)
    assert done.returncode == 0
    assert first_words(done)[0] == "paused: as asked, 0 of 60 jobs"


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(api: Server, shell: Shell) -> None:
    api.places[HERE] = lambda _: running(3)
    process = shell.start(
        "batch", "watch", "--every", "0.1", BATCH_ID, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(3):
        assert api.arrived.acquire(timeout=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["status"]) == (130, "running")
    assert f"stopped watching; {BATCH_ID} goes on" in err
    assert f"darkroom batch watch {BATCH_ID}" in err
    assert {heard.method for heard in api.heard} == {"GET"}


def test_a_terminal_sees_a_bar_that_moves(api: Server, shell: Shell) -> None:
    api.then(says(batch_document("validating"), 202))
    failures = [{"code": "request_timeout", "count": 3, "example_job_id": "job_1"}]
    eta = (datetime.now(UTC) + timedelta(minutes=90)).isoformat()
    api.then(running(31, counts={"failed": 3}, failures=failures, rate_per_minute=41.4, eta=eta), says(ended()))
    text = on_a_terminal(shell, "batch", "submit", "prompts.txt", "--watch")
    for words in ("34 of 60  57%", "running 2  queued 27  failed 3", "41 a minute", "(in 1 h)", "$0.3100 spent", "━"):
        assert words in text
    assert "failed: request_timeout 3" in text
    assert "✓\x1b[0m completed: 60 of 60" in text


# looking --------------------------------------------------------------------------------------------------------------


def test_batches_are_listed_one_a_line(api: Server, shell: Shell) -> None:
    api.then(says({"data": [ended(), batch_document(name="two\nlines")], "has_more": False}))
    done = shell.run("batch", "ls")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[5], row[6]) for row in rows] == [
        (BATCH_ID, "completed", "60/60", "$0.5033", "prompts.jsonl"),
        (BATCH_ID, "running", "0/60", "$0.0000", "two lines"),
    ]


def test_one_is_shown(api: Server, shell: Shell) -> None:
    failures = [{"code": "request_timeout", "count": 2, "example_job_id": "job_1"}]
    api.then(says(ended(succeeded=58, failed=2) | {"failures": failures, "finish_by": "2026-11-26T07:00:00Z"}))
    shown = shell.run("batch", "show", BATCH_ID).stdout
    for words in (BATCH_ID, "total 60  succeeded 58  failed 2", "$0.5033 spent", "finish by", "2 x request_timeout"):
        assert words in shown


def test_results_and_errors_are_lines_of_json(api: Server, shell: Shell) -> None:
    api.then(lines(result_document(3, api.url), result_document(4, api.url)))
    done = shell.run("batch", "results", BATCH_ID, "--after", "2")
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [3, 4]
    assert asked(api)["after"] == "2"
    api.then(lines({"line": 9, "error": {"code": "invalid_line", "message": "größer"}}))
    done = shell.run("batch", "errors", BATCH_ID)
    assert [json.loads(line)["error"]["message"] for line in done.stdout.splitlines()] == ["größer"]
    assert done.stderr == ""


def test_a_terminal_sees_the_causes_first(api: Server, shell: Shell) -> None:
    failures = [{"code": code, "count": n, "example_job_id": "job_1"} for code, n in (("a_cause", 2), ("b_cause", 30))]
    api.then(
        says(ended(failed=32) | {"failures": failures, "invalid": 4}),
        lines({"line": 9, "error": {"code": "x", "message": "y"}}),
    )
    text = on_a_terminal(shell, "batch", "errors", BATCH_ID)
    assert (
        text.index("30  b_cause")
        < text.index("2  a_cause")
        < text.index("4  lines with mistakes")
        < text.index('"line":9')
    )


# changing its course --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["pause", BATCH_ID], "/pause"),
        (["resume", BATCH_ID], "/resume"),
        (["resume", BATCH_ID, "--budget", "3"], "/resume?budget_usd=3.0"),
        (["cancel", BATCH_ID], "/cancel"),
    ],
)
def test_each_change_speaks_json(api: Server, shell: Shell, words: list[str], target: str) -> None:
    api.then(says(batch_document(), 202))
    done = shell.run("batch", *words, "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, BATCH_ID)
    assert [(heard.method, heard.target) for heard in api.heard] == [("POST", HERE + target)]


def test_a_budget_without_room_is_refused(api: Server, shell: Shell) -> None:
    api.then(says(problem(409, "budget_used_up"), 409))
    assert shell.run("batch", "resume", BATCH_ID).returncode == 3


FAILED = ended(succeeded=58, failed=2) | {
    "failures": [{"code": "request_timeout", "count": 2, "example_job_id": "job_1"}]
}


def test_a_retry_is_watched_from_where_it_begins(api: Server, shell: Shell) -> None:
    later = ended() | {"finished_at": "2026-11-25T19:00:00Z"}
    api.then(says(FAILED), says(FAILED, 202), says(FAILED), running(58), running(59), says(later))
    done = shell.run("batch", "retry", BATCH_ID, "--code", "request_timeout", "--watch", "--json")
    assert (done.returncode, json.loads(done.stdout)["finished_at"]) == (0, "2026-11-25T19:00:00Z")
    assert api.heard[1].target == f"{HERE}/retry-failed?code=request_timeout"


def test_a_retry_that_ends_between_two_looks_was_one(api: Server, shell: Shell) -> None:
    later = ended() | {"finished_at": "2026-11-25T19:00:00Z"}
    api.then(says(FAILED), says(FAILED, 202), says(later))
    assert shell.run("batch", "retry", BATCH_ID, "--watch").returncode == 0


@pytest.mark.parametrize(("words", "about"), [([], "no job has failed"), (["--code", "x"], "no job has failed with x")])
def test_nothing_to_retry_is_told(api: Server, shell: Shell, words: list[str], about: str) -> None:
    before = FAILED if words else ended()
    api.then(says(before), says(before, 202))
    done = shell.run("batch", "retry", BATCH_ID, "--watch", *words)
    assert done.returncode == 0
    assert about in done.stderr


def test_a_retry_that_may_cost_is_said_to_be_wanted(api: Server, shell: Shell) -> None:
    api.then(says(FAILED), says(batch_document(), 202))
    assert shell.run("batch", "retry", BATCH_ID, "--accept-charge").returncode == 0
    assert api.heard[1].target == f"{HERE}/retry-failed?accept_charge=true"


# download and open ----------------------------------------------------------------------------------------------------


def copied(api: Server, batch: dict[str, Any]) -> None:
    """A batch with one result, and its bucket."""
    api.places[HERE] = lambda _: says(batch)
    api.places[f"{HERE}/results"] = lambda _: lines(result_document(1, f"{api.url}/bucket", picture=b"one"))
    api.places[f"{HERE}/files"] = lambda _: says({"data": []})
    api.places[f"{HERE}/contact-sheet"] = lambda heard: Said(body=heard.target.encode())
    api.places["/bucket/images/1-0.png"] = lambda _: Said(body=b"one")
    api.places["/bucket/thumbs/1-0.jpg"] = lambda _: Said(body=b"small")


def test_a_download_says_what_is_here(api: Server, shell: Shell) -> None:
    copied(api, ended(total=1, succeeded=1))
    done = shell.run("batch", "download", BATCH_ID)
    assert (done.returncode, done.stdout) == (0, f"out/{BATCH_ID}\n")
    assert (shell.directory / "out" / BATCH_ID / "images/1-0.png").read_bytes() == b"one"
    assert f"✓ 1 picture in out/{BATCH_ID}  1 fetched, 0 were here" in done.stderr
    again = json.loads(shell.run("batch", "download", BATCH_ID, "--json").stdout)
    assert (again["kept"], again["fetched"], again["complete"], again["to_come"]) == (1, 0, True, 0)


def test_a_download_says_what_is_still_to_come(api: Server, shell: Shell) -> None:
    copied(api, batch_document("running", counts={"total": 60, "succeeded": 1, "queued": 59}))
    done = shell.run("batch", "download", BATCH_ID, "--out", "copy", "--no-thumbs", "--json")
    assert (done.returncode, json.loads(done.stdout)["to_come"]) == (0, 59)
    assert "! 59 jobs have not ended" in done.stderr
    assert not (shell.directory / "copy/thumbs").exists()


def test_a_download_with_something_missing_is_exit_1(api: Server, shell: Shell) -> None:
    copied(api, ended(total=1, succeeded=1))
    api.places["/bucket/images/1-0.png"] = lambda _: Said(404)
    done = shell.run("batch", "download", BATCH_ID, "--json")
    assert (done.returncode, [m["path"] for m in json.loads(done.stdout)["missing"]]) == (1, ["images/1-0.png"])
    assert "✗ images/1-0.png" in done.stderr


def test_a_name_that_leads_out_is_exit_1_and_writes_nothing(api: Server, shell: Shell) -> None:
    copied(api, ended(total=1, succeeded=1))
    row = result_document(1, f"{api.url}/bucket", picture=b"one")
    row["images"][0]["path"] = "../../evil.png"
    api.places[f"{HERE}/results"] = lambda _: lines(row)
    done = shell.run("batch", "download", BATCH_ID, "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "download_failed")
    assert not list(shell.directory.rglob("evil*"))


def test_ctrl_c_leaves_only_whole_files(api: Server, shell: Shell) -> None:
    copied(api, ended(total=1, succeeded=1))
    api.places["/bucket/images/1-0.png"] = lambda _: Said(body=b"one", cut=1)
    process = shell.start("batch", "download", BATCH_ID, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not any(heard.target.startswith("/bucket") for heard in api.heard):
        assert api.arrived.acquire(timeout=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "The same command fetches the rest" in err
    assert list((shell.directory / "out" / BATCH_ID / "images").iterdir()) == []


def test_a_sheet_is_opened_in_the_browser(api: Server, shell: Shell) -> None:
    copied(api, ended())
    browser = shell.directory / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{shell.directory}/opened"\n')
    browser.chmod(0o755)
    shell.environment |= {"BROWSER": str(browser)}
    process = shell.start("batch", "open", BATCH_ID, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    page = shell.directory / "out" / f"{BATCH_ID}.html"
    assert (process.returncode, out) == (0, f"out/{BATCH_ID}.html\n")
    assert (shell.directory / "opened").read_text().strip() == page.as_uri()
    assert (page.read_text(), page.stat().st_mode & 0o777) == (f"{HERE}/contact-sheet?links=signed", 0o600)
    assert "opened: out/" in err


def test_a_downloaded_copy_is_opened_without_the_api(api: Server, shell: Shell) -> None:
    (shell.directory / "copy").mkdir()
    (shell.directory / "copy/index.html").touch()
    done = shell.run("batch", "open", "copy", "--no-browser", "--json")
    assert json.loads(done.stdout) == {"file": "copy/index.html", "opened": False}
    assert api.heard == []


# the shell ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["submit", "watch", "ls", "show", "results", "errors", "download", "retry", "open"])
def test_help_is_there(shell: Shell, command: str) -> None:
    done = shell.run("batch", command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_shell_completes_ids(api: Server, shell: Shell) -> None:
    def complete(words: str) -> list[str]:
        process = shell.start(
            env={"_DARKROOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return process.communicate(timeout=30)[0].split()

    api.then(says({"data": [batch_document(), batch_document(id="batch_2")]}))
    assert complete("darkroom batch show batch_2") == ["batch_2"]
    api.then(Said(500))
    assert complete("darkroom batch show b") == []


def test_who_reads_no_more_is_no_error(api: Server, shell: Shell) -> None:
    api.places[f"{HERE}/results"] = lambda _: lines(*[result_document(line, api.url) for line in range(1, 500)])
    process = subprocess.Popen(
        ["/bin/bash", "-c", f"'{shell.command}' batch results {BATCH_ID} | head -1"],
        env=shell.plain(),
        cwd=shell.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=30)
    assert (json.loads(out)["line"], err) == (1, "")
