"""Names: unguessable, sortable by time, and safe as part of a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.domain.ids import is_id, new_id

MOMENTS = st.integers(0, 2**48 - 1)


@given(MOMENTS, MOMENTS)
def test_names_sort_by_the_time_they_were_made(one: int, other: int) -> None:
    if one < other:
        assert new_id("job", at_ms=one) < new_id("job", at_ms=other)


@given(MOMENTS)
def test_a_name_is_one(moment: int) -> None:
    name = new_id("job", at_ms=moment)
    assert is_id(name, "job")
    assert not is_id(name, "sub")
    assert len(name) == 30


def test_names_of_the_same_moment_differ() -> None:
    assert len({new_id("sub", at_ms=1) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "job",
        "job_" + "0" * 25,
        "job_" + "0" * 27,
        "job_" + "l" * 26,
        "job_" + "U" * 26,
        "job_" + "0" * 25 + ":",
        "job_" + "0" * 26 + "\n",
        "job_" + "٣" * 26,
    ],
    ids=ascii,
)
def test_what_is_no_name(text: str) -> None:
    assert not is_id(text, "job")
