from __future__ import annotations

import subprocess
import sys

import pytest

GOOD = {"FAL_KEY": "id:secret"}


def start(**environment: str) -> tuple[int, list[str]]:
    """What a worker with that environment says at its start: exit status and lines on stderr."""
    code = "from darkroom.settings import WorkerSettings, load; load(WorkerSettings)"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    return ended.returncode, ended.stderr.splitlines()


def test_defaults_and_a_key_are_enough() -> None:
    assert start(**GOOD) == (0, [])


def test_each_mistake_has_a_line_that_names_the_variable() -> None:
    status, lines = start(
        FAL_KEY="k", DARKROOM_REDIS_URL="localhost", DARKROOM_FAL_RATE="fast", DARKROOM_SECRET="short"
    )

    assert status == 2
    assert sorted(line.partition(":")[0] for line in lines) == [
        "DARKROOM_FAL_RATE",
        "DARKROOM_REDIS_URL",
        "DARKROOM_SECRET",
    ]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "FAL_KEY"),
        ({"FAL_KEY_ID": "only"}, "FAL_KEY_SECRET"),
        (GOOD | {"DARKROOM_UNCERTAIN_WINDOW_SECONDS": "60"}, "DARKROOM_UNCERTAIN_WINDOW_SECONDS"),
        (GOOD | {"DARKROOM_FAL_QUEUE_URL": "http://queue.example"}, "DARKROOM_FAL_QUEUE_URL"),
        (GOOD | {"DARKROOM_FAL_CONCURRENCY": "2", "DARKROOM_FAL_INTERACTIVE_RESERVE": "2"}, "RESERVE"),
        (GOOD | {"DARKROOM_WORKER_QUEUES": "interactive,fast"}, "DARKROOM_WORKER_QUEUES"),
        (GOOD | {"DARKROOM_WEBHOOK_ALLOW_CIDRS": "10.0.0.0/99"}, "DARKROOM_WEBHOOK_ALLOW_CIDRS"),
    ],
)
def test_what_contradicts_itself_is_an_error_at_start(environment: dict[str, str], words: str) -> None:
    status, lines = start(**environment)

    assert status == 2
    assert words in "\n".join(lines)


def test_no_secret_is_ever_printed() -> None:
    _, lines = start(FAL_KEY="sk-visible", DARKROOM_SECRET="tiny-secret", DARKROOM_REDIS_URL="http://user:hunter2@host")

    assert not any(word in line for line in lines for word in ("sk-visible", "tiny-secret", "hunter2"))
