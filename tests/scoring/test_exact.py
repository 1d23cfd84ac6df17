"""The official VQA normalisation, rule by rule."""

import pytest

from forgetbench.scoring.exact import exact_match, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Red Dress", "red dress"),
        ("the end", "end"),
        ("Trousers.", "trousers"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("1,000", "1000"),
        ("1,000-2", "10002"),
        ("left/right", "left right"),
        ("left / right", "left right"),
        ("t-shirt", "t shirt"),
        ("yes, sir", "yes sir"),
        ("red,blue", "red blue"),
        ("zero one ten", "0 1 10"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("its", "its"),
        ("oclock", "o'clock"),
        ("two\n\tcats", "2 cats"),
        ("a", ""),
    ],
)
def test_an_answer_is_normalised_as_the_vqa_evaluation_does(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_any_reference_may_match() -> None:
    assert exact_match("Two dogs!", ["three dogs", "2 dogs"])
    assert not exact_match("two cats", ["three dogs", "2 dogs"])


def test_an_empty_reply_matches_nothing() -> None:
    assert not exact_match("", ["", "a"])
    assert not exact_match("the", ["a"])


def test_a_reply_identical_to_the_reference_matches_even_if_it_is_an_article() -> None:
    assert exact_match("A", ["a"])
