"""Options: three of the five nearest wrong names and the answer, drawn by the seed and the picture alone."""

from __future__ import annotations

from collections import Counter

from forgetbench.data.build.folders import imagenet_classes
from forgetbench.data.build.questions import distinct, option_letter, options

NEAREST = ("crane", "heron", "stork", "ibis", "egret", "flamingo", "pelican")
DRAWN = [options("heron", NEAREST, f"0\0picture {number}") for number in range(4000)]


def test_every_question_has_the_answer_and_three_of_the_five_nearest_wrong_names() -> None:
    for shown in DRAWN:
        assert len(set(shown)) == len(shown) == 4
        assert "heron" in shown
        assert set(shown) <= {"heron", "crane", "stork", "ibis", "egret", "flamingo"}


def test_the_right_letters_are_spread_evenly() -> None:
    letters = Counter(option_letter(shown, "heron") for shown in DRAWN)
    assert set(letters) == set("ABCD")
    assert all(900 < n < 1100 for n in letters.values()), letters


def test_each_of_the_five_is_drawn_as_often_and_shown_anywhere() -> None:
    drawn = Counter(name for shown in DRAWN for name in shown if name != "heron")
    assert all(2250 < n < 2550 for n in drawn.values()), drawn
    places = Counter(shown.index("crane") for shown in DRAWN if "crane" in shown)
    assert all(500 < n < 700 for n in places.values()), places


def test_another_seed_draws_other_options() -> None:
    others = [options("heron", NEAREST, f"1\0picture {number}") for number in range(100)]
    assert sum(drawn == redrawn for drawn, redrawn in zip(DRAWN, others, strict=False)) < 10


def test_a_wrong_option_is_never_the_answer_in_other_capitals() -> None:
    shown = {name for number in range(100) for name in options("Heron", NEAREST, str(number))}
    assert "heron" not in shown


def test_names_that_differ_in_capitals_only_are_one() -> None:
    assert distinct(["crane", "Cardigan", "crane ", "cardigan", "kite"]) == ("crane", "Cardigan", "kite")


def test_the_shipped_classes_of_imagenet_are_a_thousand_in_the_order_of_their_wordnet_ids() -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert (len(set(classes.values())), len(distinct(classes.values()))) == (998, 997)
    assert classes["n01440764"] == "tench"
    assert classes["n15075141"] == "toilet tissue"
