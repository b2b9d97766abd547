"""How often a request is repeated, after how long, and when it must not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from darkroom_client import errors
from darkroom_client.operations import cancel_job, create_job, delete_job, get_job, replay_job
from darkroom_client.patience import Patience
from darkroom_client.steps import Answer
from tests.client.kit import JOB_ID, Clock, Driven, answer, job_document, problem

LOST = httpx.ReadError("reset")
REFUSED = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "trouble", [LOST, REFUSED, httpx.ReadTimeout(""), answer(429), answer(502), answer(503), answer(504)], ids=repr
)
def test_what_passes_is_tried_again(clock: Clock, trouble: object) -> None:
    driven = Driven(get_job(clock.patience(), JOB_ID), clock).give(trouble, trouble, answer(200, job_document()))
    assert driven.result.id == JOB_ID
    assert driven.sleeps == [0.5, 1.0]


def test_a_repeated_creation_carries_the_same_key(clock: Clock) -> None:
    driven = Driven(create_job(clock.patience(), "a fox"), clock).give(LOST, answer(503), answer(202, job_document()))
    keys = [step.call.headers["Idempotency-Key"] for step in driven.steps]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    other = Driven(create_job(clock.patience(), "a fox"), clock).give(answer(202, job_document()))
    assert other.steps[0].call.headers["Idempotency-Key"] != keys[0]


def test_it_is_bounded(clock: Clock) -> None:
    with pytest.raises(errors.UnreachableError, match="connection broke: reset"):
        Driven(get_job(clock.patience(retries=2), JOB_ID), clock).give(LOST, LOST, LOST)


def test_the_wait_is_jittered_and_bounded() -> None:
    for share in (0.0, 0.5, 1.0):
        patience = Patience(first_delay=1.0, longest_delay=10.0, jitter=lambda share=share: share)  # type: ignore[misc]
        assert [patience.delay(number) for number in range(6)] == [share * s for s in (1, 2, 4, 8, 10, 10)]
    assert Patience(jitter=lambda: 0.5).delay(10**9) == 30.0


def test_retry_after_is_never_undercut(clock: Clock) -> None:
    limited = answer(429, problem(429, "rate_limited"), Retry_After="7")
    driven = Driven(get_job(clock.patience(jitter=lambda: 0.0), JOB_ID), clock).give(
        limited, answer(200, job_document())
    )
    assert driven.sleeps == [7.0]


def test_retry_after_may_be_a_date(clock: Clock) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    driven = Driven(get_job(clock.patience(jitter=lambda: 0.0), JOB_ID), clock)
    driven.give(answer(503, Retry_After=later), answer(200, job_document()))
    assert 15 < driven.sleeps[0] <= 20


@pytest.mark.parametrize("value", ["soon", "-5", "", "1.5.2", "²"])
def test_an_unreadable_retry_after_is_none(clock: Clock, value: str) -> None:
    driven = Driven(get_job(clock.patience(), JOB_ID), clock)
    driven.give(answer(503, Retry_After=value), answer(200, job_document()))
    assert driven.sleeps == [0.5]


def test_more_time_than_is_waited_for_is_told_instead(clock: Clock) -> None:
    with pytest.raises(errors.RateLimitedError) as caught:
        Driven(get_job(clock.patience(), JOB_ID), clock).give(
            answer(429, problem(429, "rate_limited"), Retry_After="3600")
        )
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequestError),
        (401, errors.UnauthorizedError),
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (413, errors.InvalidRequestError),
        (422, errors.InvalidRequestError),
        (500, errors.ServerError),
    ],
)
def test_a_refusal_is_final_and_says_why(clock: Clock, status: int, kind: type[errors.ApiError]) -> None:
    mistakes = [{"pointer": "/input/num_images", "detail": "at most 4"}]
    with pytest.raises(kind) as caught:
        Driven(create_job(clock.patience(), "x"), clock).give(answer(status, problem(status, "why", errors=mistakes)))
    error = caught.value
    assert (error.status, error.code, error.message) == (status, "why", "it is why")
    assert error.errors == (errors.Mistake("at most 4", pointer="/input/num_images"),)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"\xff", b'{"errors": [1], "detail": null}'])
def test_an_error_page_of_a_proxy_is_an_error_still(clock: Clock, body: bytes) -> None:
    with pytest.raises(errors.ServerError, match="HTTP status 501"):
        Driven(get_job(clock.patience(), JOB_ID), clock).give(Answer(501, {}, body))


def test_a_redirect_is_not_followed(clock: Clock) -> None:
    with pytest.raises(errors.UnexpectedAnswerError, match="DARKROOM_URL"):
        Driven(get_job(clock.patience(), JOB_ID), clock).give(answer(308, Location="https://elsewhere.example"))


@pytest.mark.parametrize("document", [{}, [], "x", {"id": JOB_ID}])
def test_a_good_answer_of_another_server_is_told(clock: Clock, document: object) -> None:
    with pytest.raises(errors.UnexpectedAnswerError, match="not a Job"):
        Driven(get_job(clock.patience(), JOB_ID), clock).give(answer(200, document))


# what must not be sent twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [LOST, httpx.ReadTimeout(""), answer(503), answer(502)], ids=repr)
def test_a_replay_that_may_have_happened_is_not_repeated(clock: Clock, trouble: object) -> None:
    with pytest.raises((errors.UnreachableError, errors.UnavailableError)):
        Driven(replay_job(clock.patience(), JOB_ID, accept_charge=True), clock).give(trouble)


@pytest.mark.parametrize("trouble", [REFUSED, httpx.ConnectTimeout(""), answer(429)], ids=repr)
def test_a_replay_that_did_not_happen_is_repeated(clock: Clock, trouble: object) -> None:
    driven = Driven(replay_job(clock.patience(), JOB_ID), clock).give(trouble, answer(202, job_document("queued")))
    assert driven.result.status == "queued"


def test_cancelling_is_repeatable(clock: Clock) -> None:
    Driven(cancel_job(clock.patience(), JOB_ID), clock).give(LOST, answer(202, job_document("cancelled")))


def test_what_a_lost_delete_deleted_is_deleted(clock: Clock) -> None:
    Driven(delete_job(clock.patience(), JOB_ID), clock).give(LOST, answer(404))


@pytest.mark.parametrize("first", [(), (REFUSED,), (answer(429),)], ids=repr)
def test_what_was_never_there_is_not_deleted(clock: Clock, first: tuple[object, ...]) -> None:
    with pytest.raises(errors.NotFoundError):
        Driven(delete_job(clock.patience(), JOB_ID), clock).give(*first, answer(404))


# what is not sent at all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["", ".", "..", "../usage", "a/b", "a?b", "job_ä"])
def test_what_is_no_id_leads_nowhere(clock: Clock, job_id: str) -> None:
    with pytest.raises(errors.MisuseError):
        Driven(get_job(clock.patience(), job_id), clock).give()


@pytest.mark.parametrize("key", ["", " a", "a ", "a\n", "é", "x" * 256])
def test_a_key_that_no_header_carries_is_refused(clock: Clock, key: str) -> None:
    with pytest.raises(errors.MisuseError, match="idempotency key"):
        Driven(create_job(clock.patience(), "x", idempotency_key=key), clock).give()


def test_a_prompt_or_an_input(clock: Clock) -> None:
    with pytest.raises(errors.MisuseError, match="a prompt"):
        Driven(create_job(clock.patience()), clock).give()
    with pytest.raises(errors.MisuseError, match="seed must be inside"):
        Driven(create_job(clock.patience(), input={"prompt": "x"}, seed=1), clock).give()
    driven = Driven(create_job(clock.patience(), input={"prompt": "x", "new": 1}, lane="bulk"), clock)
    driven.give(answer(202, job_document("queued")))
    assert driven.steps[0].call.json == {"input": {"prompt": "x", "new": 1}, "lane": "bulk"}
