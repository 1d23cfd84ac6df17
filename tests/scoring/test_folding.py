"""Texts are folded only as far as an item's options stay apart."""

import pytest

from forgetbench.scoring.choice import parse_choice
from forgetbench.scoring.exact import exact_match, open_match
from forgetbench.scoring.folding import folding, plain
from forgetbench.scoring.vqa import vqa_accuracy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don’t", "don't"), ("“so”", '"so"'), ("10–20", "10-20"), ("a\u00a0b\u2003c", "a b c"), ("ﬁve", "five"),
        ("ｃａｔ", "cat"), ("cafe\u0301", "café"), ("50\u200b%", "50%"), ("5 \u00b5m", "5 \u03bcm"),
    ],
)  # fmt: skip
def test_one_plain_form(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        (("Gg", "GG", "gg"), "Gg", 0),
        (("Gg", "GG", "gg"), "The genotype is GG.", 1),
        (("Gg", "GG", "gg"), "gG", None),
        (("Gg", "GG", "none"), "None", 2),  # case tells the others apart, not this one
        (("mW", "MW"), "It is 5 MW", 1),
        (("*", "**", "***"), "**", 1),
        (("*", "**", "***"), "**C**", 2),
        (("x²", "x2"), "x²", 0),
        (("x²", "y²"), "x2", 0),
        (("a–b", "a-b"), "a-b", 1),
        (("a–b", "a–c"), "a-c", 1),
        (("it’s", "it's"), "it’s", 0),
        (("it’s", "its"), "it's", 0),
        (("2.", "2"), "2.", 0),
        (("two.", "three."), "two", 0),
        (("$\\frac{1}{2}$", "2"), "\\dfrac{1}{2}", 0),
        (("70°", "20°"), "\\boxed{70^\\circ}", 0),
        (("`a`", "a"), "`a`", 0),
        (("*", "x"), "x", 1),  # a mark of emphasis that would leave an option empty is kept
    ],
)
def test_what_tells_options_apart_is_kept(options: tuple[str, ...], text: str, expected: int | None) -> None:
    assert parse_choice(text, options) == expected


def test_equal_options_stay_equal_and_name_none() -> None:
    assert folding(("black", "black", "white")).matching_option("black") is None
    assert folding(("black", "black", "white")).matching_option("White") == 2


def test_an_open_exact_match_takes_it_and_published_metrics_do_not() -> None:
    assert open_match("Don’t", ["don't"])
    assert not exact_match("ｃａｔ", ["cat"])
    assert open_match("ｃａｔ", ["cat"])
    assert vqa_accuracy("ｃａｔ", ["cat"]) == 0
