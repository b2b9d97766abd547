"""What fal says no to: the caller's input, our key and balance, too many at once, and its own troubles."""

from __future__ import annotations

import pytest

from tests.e2e.studio import ENDED, Studio, eventually

pytestmark = pytest.mark.timeout(180)


def test_a_refused_input_fails_at_once_with_fals_own_reason(house: Studio) -> None:
    house.arm("result_422", times=1)
    job = house.ended(house.ask("something forbidden"))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert job["error"]["code"] == "content_policy_violation"
    assert "content checker" in job["error"]["message"]
    assert len(house.requests("something forbidden")) == 1

    assert house.api.post(f"/v1/jobs/{job['id']}/replay").status_code == 202
    assert house.ended(job["id"])["status"] == "succeeded"
    assert len(house.requests("something forbidden")) == 2


def test_what_was_billed_is_replayed_only_by_whoever_accepts_another_charge(house: Studio) -> None:
    house.arm("result_422", times=1, billed=True)
    job = house.ended(house.ask("billed and forbidden"))
    assert job["cost"]["actual_usd"] > 0
    refused = house.api.post(f"/v1/jobs/{job['id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "charge_not_accepted")
    assert house.api.post(f"/v1/jobs/{job['id']}/replay", json={"accept_charge": True}).status_code == 202
    replayed = house.ended(job["id"])
    assert replayed["status"] == "succeeded"
    assert replayed["cost"]["actual_usd"] == 2 * job["cost"]["actual_usd"]


def test_runner_trouble_is_tried_again_and_every_submission_is_shown(house: Studio) -> None:
    house.arm("result_failed", times=2)
    job = house.ended(house.ask("third time lucky"))
    assert (job["status"], job["attempts"]) == ("succeeded", 3)
    requests = house.requests("third time lucky")
    assert [request["outcome"] for request in requests] == ["failed", "failed", "completed"]
    assert [s["fal_request_id"] for s in job["submissions"]] == [request["request_id"] for request in requests]
    assert {request["input"]["seed"] for request in requests} == {job["input"]["seed"]}
    assert job["cost"]["actual_usd"] == job["cost"]["estimated_usd"]


@pytest.mark.parametrize(("fault", "said"), [("submit_401", "fal: key refused"), ("submit_403", "fal: out of balance")])
def test_a_refused_key_or_an_empty_balance_fails_no_job(house: Studio, fault: str, said: str) -> None:
    house.arm(fault, rate=1)
    prompts = [f"{fault} {number}" for number in range(5)]
    jobs = [house.ask(prompt) for prompt in prompts]
    eventually(lambda: said in house.degraded, f"/readyz says {said}")
    eventually(lambda: house.job(jobs[0])["stage"] == "blocked", "the jobs show that they are blocked")
    assert not {house.job(job_id)["status"] for job_id in jobs} & ENDED
    house.disarm()
    assert {house.ended(job_id)["status"] for job_id in jobs} == {"succeeded"}
    assert house.degraded == []
    assert [len(house.requests(prompt)) for prompt in prompts] == [1] * 5
    assert {house.job(job_id)["attempts"] for job_id in jobs} == {1}


def test_while_everyone_slows_down_deadlines_and_cancellations_act_at_once(house: Studio) -> None:
    house.arm("submit_429", times=1, retry_after=4)
    slowed = house.ask("asked to slow down")
    eventually(lambda: house.ledger()["faults"].get("submit_429"), "fal says 429")
    house.in_stage(slowed, "waiting_for_slot")
    late = house.ask("no time to wait", deadline_seconds=1)
    unwanted = house.ask("cancelled while queued")
    answer = house.api.post(f"/v1/jobs/{unwanted}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    expired = house.ended(late)
    assert (expired["status"], expired["error"]["code"]) == ("failed", "deadline_exceeded")
    job = house.ended(slowed)
    assert (job["status"], job["attempts"]) == ("succeeded", 1)
    assert house.requests("no time to wait") == house.requests("cancelled while queued") == []


def test_a_cancellation_while_fal_renders_stops_fal(house: Studio) -> None:
    job_id = house.ask("cancelled while rendering")
    eventually(lambda: house.rendering("cancelled while rendering"), "fal renders")
    assert house.api.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    job = house.ended(job_id)
    assert (job["status"], job["images"]) == ("cancelled", [])
    (request,) = house.requests("cancelled while rendering")
    assert (request["outcome"], request["billed"]) == ("cancelled", False)


def test_a_cancellation_that_fal_ignores_keeps_the_picture_that_was_billed(house: Studio) -> None:
    house.arm("cancel_ignored", times=1)
    job_id = house.ask("cancelled in vain")
    eventually(lambda: house.rendering("cancelled in vain"), "fal renders")
    assert house.api.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    job = house.ended(job_id)
    assert (job["status"], len(job["images"])) == ("cancelled", 1)
    assert job["cost"]["actual_usd"] == job["cost"]["estimated_usd"]
