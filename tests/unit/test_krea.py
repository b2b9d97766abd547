"""The model's input, exactly as its schema has it, and what it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom.domain.krea import PRESET_PIXELS, SEED_MAX, SIDE_MAX, KreaInput, same_input, usd

GOOD: list[dict[str, Any]] = [
    {},
    {"seed": 0},
    {"seed": None},
    {"seed": -1},
    {"seed": SEED_MAX},
    {"seed": -SEED_MAX - 1},
    *({"image_size": preset.value} for preset in PRESET_PIXELS),
    {"image_size": {"width": 1, "height": 1}},
    {"image_size": {"width": SIDE_MAX, "height": SIDE_MAX}},
    *({"num_images": number} for number in (1, 2, 3, 4)),
    {"acceleration": "none"},
    {"acceleration": "regular"},
    {"sync_mode": False},
    {"enable_safety_checker": True},
    {"enable_safety_checker": False},
    {"output_format": "png"},
    {"output_format": "jpeg"},
]

BAD: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": None}),
    ("prompt", {"prompt": 7}),
    ("prompt", {"prompt": ["Mars"]}),
    ("prompt", {"prompt": "NUL \x00"}),
    ("prompt", {"prompt": "lone \ud800"}),
    ("seed", {"seed": "7"}),
    ("seed", {"seed": 7.0}),
    ("seed", {"seed": True}),
    ("seed", {"seed": SEED_MAX + 1}),
    ("seed", {"seed": -SEED_MAX - 2}),
    ("image_size", {"image_size": "huge"}),
    ("image_size", {"image_size": None}),
    ("image_size", {"image_size": [512, 512]}),
    ("image_size", {"image_size": {"width": 512}}),
    ("image_size", {"image_size": {"width": 0, "height": 512}}),
    ("image_size", {"image_size": {"width": -1, "height": 512}}),
    ("image_size", {"image_size": {"width": SIDE_MAX + 1, "height": 512}}),
    ("image_size", {"image_size": {"width": 512.0, "height": 512}}),
    ("image_size", {"image_size": {"width": "512", "height": 512}}),
    ("image_size", {"image_size": {"width": 512, "height": 512, "depth": 1}}),
    ("num_images", {"num_images": 0}),
    ("num_images", {"num_images": 5}),
    ("num_images", {"num_images": "1"}),
    ("num_images", {"num_images": 1.0}),
    ("num_images", {"num_images": True}),
    ("num_images", {"num_images": None}),
    ("acceleration", {"acceleration": "high"}),
    ("acceleration", {"acceleration": None}),
    ("sync_mode", {"sync_mode": True}),
    ("sync_mode", {"sync_mode": 0}),
    ("enable_safety_checker", {"enable_safety_checker": "true"}),
    ("enable_safety_checker", {"enable_safety_checker": 1}),
    ("output_format", {"output_format": "webp"}),
    ("output_format", {"output_format": "PNG"}),
    ("guidance_scale", {"guidance_scale": 7}),
    ("enable_prompt_expansion", {"enable_prompt_expansion": False}),
]


def given_input(**fields: Any) -> KreaInput:  # noqa: ANN401 - the fields are under test
    return KreaInput.model_validate({"prompt": "Mars", **fields})


@pytest.mark.parametrize("fields", GOOD, ids=str)
def test_what_the_schema_allows(fields: dict[str, Any]) -> None:
    sent = given_input(**fields).arguments()
    assert isinstance(sent.pop("seed"), int)
    assert sent == {"prompt": "Mars", **{name: value for name, value in fields.items() if name != "seed"}}


@pytest.mark.parametrize(("field", "fields"), BAD, ids=ascii)
def test_what_it_does_not(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        given_input(**fields)
    assert {mistake["loc"][0] for mistake in refusal.value.errors()} == {field}


def test_a_prompt_is_needed_and_may_be_anything_that_is_text() -> None:
    with pytest.raises(ValidationError, match="prompt"):
        KreaInput.model_validate({})
    for prompt in ("", " ", "火星", "🚀" * 5000, 'quo"te\n'):
        assert given_input(prompt=prompt).arguments()["prompt"] == prompt


def test_the_refusal_of_sync_mode_says_why() -> None:
    with pytest.raises(ValidationError, match="could not be recovered"):
        given_input(sync_mode=True)


def test_a_given_seed_is_kept_and_a_missing_one_drawn() -> None:
    assert given_input(seed=42).arguments()["seed"] == 42
    assert given_input(seed=0).arguments()["seed"] == 0
    drawn = {given_input().arguments()["seed"] for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**31 for seed in drawn)


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({}, "1.048576"),
        ({"image_size": "square"}, "0.262144"),
        ({"image_size": "portrait_4_3"}, "0.786432"),
        ({"image_size": "landscape_16_9", "num_images": 4}, "2.359296"),
        ({"image_size": {"width": 333, "height": 777}, "num_images": 3}, "0.776223"),
    ],
)
def test_megapixels_of_all_pictures_together_are_not_rounded(fields: dict[str, Any], units: str) -> None:
    assert given_input(**fields).megapixels == Decimal(units)
    assert usd(Decimal(units), Decimal("0.008")) == Decimal(units) * 8 / 1000


# --- fal's listing ---------------------------------------------------------------------------------------------------

OURS = {"prompt": "Mars", "seed": 7}


@pytest.mark.parametrize(
    "listed",
    [
        OURS,
        {"seed": 7, "prompt": "Mars"},
        {**OURS, "num_images": 1, "image_size": "square_hd", "acceleration": "none", "output_format": "png"},
        {**OURS, "sync_mode": False, "enable_safety_checker": True},
        {**OURS, "enable_prompt_expansion": False, "something_new": None},
    ],
)
def test_the_same_input_with_or_without_defaults(listed: dict[str, Any]) -> None:
    assert same_input(listed, OURS)
    assert same_input(OURS, listed)


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"prompt": "Mars"},
        {"prompt": "Mars", "seed": None},
        {"prompt": "Mars", "seed": 8},
        {"prompt": "mars", "seed": 7},
        {**OURS, "num_images": 2},
        {**OURS, "image_size": {"width": 1024, "height": 1023}},
        {**OURS, "output_format": "jpeg"},
        {**OURS, "enable_safety_checker": False},
        {**OURS, "seed": "7"},
        {**OURS, "num_images": 99},
    ],
    ids=str,
)
def test_another_input(listed: dict[str, Any]) -> None:
    assert not same_input(listed, OURS)


@given(
    st.fixed_dictionaries(
        {"prompt": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))},
        optional={
            "seed": st.integers(-SEED_MAX - 1, SEED_MAX),
            "num_images": st.integers(1, 4),
            "image_size": st.sampled_from([preset.value for preset in PRESET_PIXELS]),
            "output_format": st.sampled_from(["png", "jpeg"]),
        },
    )
)
def test_what_is_sent_is_found_again(fields: dict[str, Any]) -> None:
    sent = KreaInput.model_validate(fields).arguments()
    filled_in = KreaInput.model_validate(sent).model_dump(mode="json")
    assert same_input(filled_in, sent)
    assert not same_input({**filled_in, "seed": sent["seed"] ^ 1}, sent)
