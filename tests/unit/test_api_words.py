"""Small pure parts of the door: headers, cursors, adopted requests, and codes."""

from __future__ import annotations

import pytest

from api.cursors import read_cursor, sign_cursor
from api.problems import code_of
from api.reading import preferred_wait
from darkroom.domain.adopted import adopted_reference
from darkroom.domain.errors import BlockedError, ConflictError, DarkroomError, PermanentError, TransientError
from darkroom.domain.ids import new_id
from darkroom.service.accept_job import fingerprint


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("WAIT = 10; strictly", 10),
        ('wait="10"', 10),
        ("wait=600", 60),
        ("wait=0", 0),
        ("wait", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=" + "9" * 40, 0),
        ("await=10", 0),
    ],
)
def test_prefer_wait_is_read_leniently(header: str | None, seconds: int) -> None:
    assert preferred_wait(header) == seconds


def test_a_cursor_is_read_by_its_own_account_and_secret_only() -> None:
    position = (1_770_000_000_000, new_id("job"))
    cursor = sign_cursor(b"s" * 32, "acct_a", position)
    assert read_cursor(b"s" * 32, "acct_a", cursor) == position
    for secret, account in ((b"t" * 32, "acct_a"), (b"s" * 32, "acct_b")):
        with pytest.raises(PermanentError, match="not given out"):
            read_cursor(secret, account, cursor)


def test_an_adopted_request_is_named_by_owner_and_app_only() -> None:
    reference = adopted_reference("https://queue.fal.run/", "fal-ai/krea-2/turbo", "abc-1")
    base = "https://queue.fal.run/fal-ai/krea-2/requests/abc-1"
    assert (reference.status_url, reference.response_url) == (f"{base}/status", base)
    assert reference.cancel_url == f"{base}/cancel"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "a b", "x" * 101, "é", "a\n"])
def test_what_could_lead_elsewhere_is_no_request_id(name: str) -> None:
    with pytest.raises(ValueError, match="request id"):
        adopted_reference("https://queue.fal.run", "fal-ai/krea-2/turbo", name)


def test_requests_are_the_same_whatever_the_order_of_their_fields() -> None:
    one = fingerprint({"input": {"prompt": "a", "seed": 1}, "lane": "bulk"})
    assert one == fingerprint({"lane": "bulk", "input": {"seed": 1, "prompt": "a"}})
    assert one != fingerprint({"input": {"prompt": "a", "seed": 2}, "lane": "bulk"})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransientError("x", code="s3_unavailable"), "storage_unavailable"),
        (BlockedError("x", code="s3_bucket_missing"), "storage_unavailable"),
        (ConflictError("x", code="job_not_ended"), "job_not_ended"),
        (ConflictError("x", code="of another room"), "conflict"),
        (PermanentError("x"), "invalid_request"),
        (DarkroomError("x"), "internal"),
    ],
)
def test_every_error_has_a_code_of_the_table(error: DarkroomError, code: str) -> None:
    assert code_of(error) == code
