"""A picture is never paid for twice: workers die and replies get lost, and fal's ledger shows one request a job."""

from __future__ import annotations

import pytest

from tests.e2e.studio import Studio, eventually

pytestmark = pytest.mark.timeout(180)

# How a request becomes known whose reply nobody kept.
CALLBACK, LISTING = "callback", "listing"


def arm_way(house: Studio, way: str) -> None:
    if way == LISTING:
        house.arm("callback_never", rate=1)


def assert_paid_once(house: Studio, prompt: str, job_id: str) -> None:
    job = house.ended(job_id, 90)
    assert job["status"] == "succeeded", job
    (request,) = house.requests(prompt)
    assert request["billed"]
    assert [submission["fal_request_id"] for submission in job["submissions"]] == [request["request_id"]]
    assert job["cost"]["actual_usd"] == job["cost"]["estimated_usd"]


@pytest.mark.parametrize("way", [CALLBACK, LISTING])
def test_workers_killed_in_the_middle_of_rendering_and_of_submitting(house: Studio, way: str) -> None:
    """One job is being rendered; another's POST was taken by fal and not answered yet. Then kill -9."""
    arm_way(house, way)
    rendered, submitted = f"killed rendering, {way}", f"killed submitting, {way}"
    first = house.ask(rendered)
    house.in_stage(first, "generating")
    house.arm("submit_slow", times=1, seconds=20)
    second = house.ask(submitted)
    eventually(lambda: house.requests(submitted), "fal takes the second")
    assert house.requests(submitted)[0]["reply"] == "pending"
    house.kill_workers()
    assert house.job(first)["stage"] == "generating"
    if way == LISTING:
        assert house.job(second)["stage"] == "submitting"
    house.start_workers()
    assert_paid_once(house, rendered, first)
    assert_paid_once(house, submitted, second)


@pytest.mark.parametrize("way", [CALLBACK, LISTING])
def test_a_reply_that_is_lost_on_the_wire(house: Studio, way: str) -> None:
    """Lost, cut off, and hidden behind an ingress error: fal took all three."""
    arm_way(house, way)
    lost = {
        "submit_lost_after": {},
        "submit_malformed": {},
        "submit_5xx": {"enqueued": True},
    }
    jobs = {}
    for fault, particulars in lost.items():
        house.arm(fault, times=1, **particulars)
        prompt = f"{fault}, {way}"
        jobs[prompt] = house.ask(prompt)
        eventually(lambda prompt=prompt: house.requests(prompt), f"{fault} strikes")  # type: ignore[misc]
    for prompt, job_id in jobs.items():
        assert_paid_once(house, prompt, job_id)
    assert house.ledger()["faults"].keys() >= lost.keys()


def test_a_request_that_never_reached_fal_is_proven_absent_and_sent_once_more(house: Studio) -> None:
    posts = house.ledger()["counters"]["posts"]
    house.arm("submit_lost_before", times=1)
    job_id = house.ask("lost on its way")
    assert house.in_stage(job_id, "reconciling")["status"] == "queued"
    job = house.ended(job_id)
    assert job["status"] == "succeeded"
    assert [submission["status"] for submission in job["submissions"]] == ["absent", "done"]
    assert len(house.requests("lost on its way")) == 1
    assert house.ledger()["counters"]["posts"] == posts + 2
    first, second = (submission["opened_at"] for submission in job["submissions"])
    assert first < second
