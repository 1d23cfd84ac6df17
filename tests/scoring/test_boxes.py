"""Boxes as text, and how far they overlap."""

import pytest

from forgetbench.scoring.boxes import box_match, overlap, read_box


@pytest.mark.parametrize(
    "text",
    [
        "[0.1, 0.25, 0.6, 0.75]",
        "0.1,0.25,0.6,0.75",
        " [0.1,0.25,0.6,0.75].\n",
        "[[.1, .25, .6, .75]]",
        ".1,.25,.6,7.5e-1",
    ],
)
def test_four_numbers_between_commas_are_a_box(text: str) -> None:
    assert read_box(text) == (0.1, 0.25, 0.6, 0.75)


@pytest.mark.parametrize(
    "text", ["", "[]", "[0.1, 0.2, 0.3]", "[1,2,3,4,5]", "left", "The box is [0, 0, 1, 1]", "[0,0,1,inf]", "0 0 1 1"]
)
def test_anything_else_is_none(text: str) -> None:
    assert read_box(text) is None
    assert not box_match(text, ["[0, 0, 1, 1]"])


def test_overlap_is_the_shared_area_over_the_whole() -> None:
    square = (0.0, 0.0, 1.0, 1.0)
    assert overlap(square, square) == 1
    assert overlap(square, (0.5, 0.0, 1.5, 1.0)) == pytest.approx(1 / 3)  # half of each is shared: 0.5 / (1 + 1 - 0.5)
    assert overlap(square, (0.0, 0.0, 0.5, 0.5)) == 0.25
    assert overlap(square, (1.0, 0.0, 2.0, 1.0)) == 0
    assert overlap(square, (0.0, 0.0, 0.0, 0.0)) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0, 0, 1, 0.51]", True), ("[0, 0, 1, 0.5]", False),  # above one half, not at it
        ("[0, 0, 1, 0.49]", False), ("[1, 1, 0, 0]", False), ("[0, 0, 2, 0.9]", False),
    ],
)  # fmt: skip
def test_more_than_half_must_be_shared(text: str, expected: bool) -> None:
    assert box_match(text, ["[0, 0, 1, 1]"]) is expected


def test_the_last_digit_of_the_last_coordinate_counts() -> None:
    """The public script cuts it off: 0.19 becomes 0.1."""
    assert box_match("[0.1, 0.1, 0.2, 0.19]", ["[0.1, 0.1, 0.2, 0.19]"])
    assert not box_match("[0.1, 0.1, 0.2, 0.1]", ["[0.1, 0.1, 0.2, 0.19]"])
