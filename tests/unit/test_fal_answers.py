"""How fal's words become ours: one readable sentence, bounded, and nothing in it that should not be shown."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.adapters.fal_answers import MESSAGE_LIMIT, UPSTREAM_LIMIT, Answer, read_rejection, read_retry_after
from darkroom.adapters.fal_origins import TrustedOrigins
from darkroom.adapters.fal_readings import read_status, read_verdict
from darkroom.domain.errors import DarkroomError, RateLimitedError
from darkroom.domain.generation import Completed, Generated, GenerationFailed, InProgress, InQueue


def answer(
    status: int, body: object = None, headers: dict[str, str] | None = None, secrets: tuple[str, ...] = ()
) -> Answer:
    return Answer.read(status, headers or {}, json.dumps(body).encode(), secrets=secrets)


def rejection(status: int, body: object, headers: dict[str, str] | None = None) -> DarkroomError:
    error = read_rejection(answer(status, body, headers))
    assert error is not None
    return error


def test_a_list_of_details_becomes_one_sentence() -> None:
    detail = [
        {"loc": ["body", "image_size", "width"], "msg": "Input should be less than or equal to 14142", "type": "le"},
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"},
    ]
    assert rejection(422, {"detail": detail}).message == (
        "fal refused the input: image_size.width: Input should be less than or equal to 14142; prompt: Field required."
    )


def test_a_string_is_said_as_it_is() -> None:
    assert rejection(422, {"detail": "Too many images."}).message == "fal refused the input: Too many images."


def test_urls_and_echoed_input_are_not_kept() -> None:
    item = {
        "loc": ["body"],
        "msg": "see https://u:p@x.example/cb?token=1",
        "type": "t",
        "input": "i",
        "url": "https://d",
    }
    error = rejection(422, {"detail": [item]})
    assert error.message == "fal refused the input: see [url]."
    assert error.upstream == {"status": 422, "detail": [{"loc": ["body"], "type": "t", "msg": "see [url]"}]}


def test_secrets_are_blotted_out_of_errors_and_not_of_results() -> None:
    assert "k3y" not in answer(500, {"detail": "the k3y"}, secrets=("k3y",)).text
    assert "k3y" in answer(200, {"prompt": "the k3y"}, secrets=("k3y",)).text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_detail_is_the_error_stays_readable_and_bounded(detail: object) -> None:
    error = rejection(422, {"detail": detail})
    assert len(error.message) <= MESSAGE_LIMIT + 40
    assert "\n" not in error.message
    assert len(json.dumps(error.upstream, ensure_ascii=False)) <= UPSTREAM_LIMIT * 2


def test_a_huge_detail_is_cut() -> None:
    items = [{"loc": ["body", str(n)], "msg": "m" * 900, "type": "t"} for n in range(500)]
    error = rejection(422, {"detail": items})
    assert len(error.message) <= MESSAGE_LIMIT + 40
    assert len(json.dumps(error.upstream)) <= UPSTREAM_LIMIT + 100
    assert error.upstream is not None
    assert error.upstream["detail"]


@pytest.mark.timeout(5)
@pytest.mark.parametrize("detail", ["m" * 2_000_000, [["x"] * 9] * 9, json.loads("[" * 900 + "]" * 900)])
def test_an_odd_detail_takes_neither_long_nor_deep(detail: object) -> None:
    assert rejection(422, {"detail": detail}).message.startswith("fal refused the input")


@pytest.mark.parametrize(
    ("said", "seconds"), [("12", 12.0), ("0.5", 0.5), ("", None), ("soon", None), ("-3", None), ("1e9", None)]
)
def test_retry_after_in_seconds(said: str, seconds: float | None) -> None:
    assert read_retry_after(answer(429, headers={"Retry-After": said})) == seconds


def test_retry_after_as_a_date() -> None:
    def at(seconds: int) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    error = rejection(429, {"detail": "slow"}, {"retry-after": at(60)})
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is not None
    assert 50 < error.retry_after <= 60
    assert read_retry_after(answer(429, headers={"Retry-After": at(-60)})) == 0.0


@pytest.mark.parametrize("status", [200, 202, 301, 307, 408, 500, 502, 599])
def test_what_is_no_rejection(status: int) -> None:
    assert read_rejection(answer(status, {"detail": "x"})) is None


def test_a_5xx_that_names_a_request_is_no_rejection() -> None:
    assert read_rejection(answer(500, {"error_type": "runner_error", "request_id": "r"})) is None
    assert read_rejection(answer(500, {"error_type": "runner_error"}, {"X-Fal-Request-Id": "r"})) is None


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://queue.fal.run/x", True),
        ("https://fal.run/x", True),
        ("https://eu.queue.fal.run/x?y=1", True),
        ("http://127.0.0.1:9000/x", True),
        ("https://api.example/x", True),
        ("http://queue.fal.run/x", False),
        ("https://queue.fal.run:8443/x", False),
        ("https://evilfal.run/x", False),
        ("https://queue.fal.run.evil.example/x", False),
        ("https://queue.fal.run@evil.example/x", False),
        ("https://evil.example\\@queue.fal.run/x", False),
        ("https://evil.example/?https://queue.fal.run", False),
        ("http://127.0.0.1:9001/x", False),
        ("http://api.example/x", False),
        ("https://[::1", False),
        ("https://queue.fal.run:99999/x", False),
        ("/x", False),
        ("", False),
    ],
)
def test_where_the_key_may_go(url: str, *, trusted: bool) -> None:
    assert (url in TrustedOrigins("http://127.0.0.1:9000", "https://api.example")) is trusted


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "images", "url", "error", "metrics", "queue_position", "detail", "seed"]), x
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from([200, 202, 302, 400, 401, 404, 422, 429, 500, 504]), documents)
def test_no_answer_leaves_as_anything_but_ours(status: int, document: object) -> None:
    """Whatever fal may send, what comes out is a reading or an error of the tree: never a KeyError in the night."""
    said = answer(status, document)
    with suppress(DarkroomError):
        assert isinstance(read_status(said), InQueue | InProgress | Completed)
    with suppress(DarkroomError):
        assert isinstance(read_verdict(said, Completed("x")), Generated | GenerationFailed)
