"""CIDEr-D against worked numbers, its properties, and tokens recorded from the public tokeniser."""

import math
import os
import subprocess
import sys
from itertools import permutations

import pytest

from forgetbench.core.paths import PACKAGE
from forgetbench.scoring.cider import cider_d, tokens

CAPTIONS = [
    "a red shirt hangs on a wooden chair",
    "two small dogs play in the deep snow",
    "an old man reads his newspaper outside",
]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # Each as Stanford CoreNLP 3.4.1 and COCO's list of punctuation make it.
        ("A dog isn't on the mat.", "a dog is n't on the mat"),
        ("a dog's ball, the girls' coach", "a dog 's ball the girls coach"),
        ("It can't, won't, cannot; gonna do it!", "it ca n't wo n't can not gon na do it"),
        ("I'm sure they'll say he\u2019d go", "i 'm sure they 'll say he 'd go"),
        ("a black-and-white t-shirt and/or tie", "a black-and-white t-shirt and/or tie"),
        ("1,000 people at 3:30 p.m. in the U.S. today.", "1,000 people at 3:30 p.m. in the u.s. today"),
        ("He said \"hello\" and 'goodbye'...", "he said hello and goodbye"),
        ("\u201cquotes\u201d \u2014 and \u2018more\u2019 -- dashes \u2013 here", "quotes and more dashes here"),
        ("1/2 of 50% for $5 & more @ home #1", "1/2 of 50 % for $ 5 & more @ home # 1"),
        ("five o'clock at Mr. Smith's, 3.5m high", "five o'clock at mr. smith 's 3.5 m high"),
        ("the caf\u00e9 at 20\u00b0", "the caf\u00e9 at 20 \u00b0"),
        ("end.Next sentence,no space", "end.next sentence no space"),
    ],
)
def test_captions_are_cut_as_the_public_tokeniser_cuts_them(caption: str, expected: str) -> None:
    assert tokens(caption) == expected.split()


def test_brackets_stay_as_they_do_in_lower_case() -> None:
    assert tokens("a ball (red)") == ["a", "ball", "(", "red", ")"]


def test_a_score_matches_the_hand_worked_case() -> None:
    # Two items; "a" is in the references of both, so idf("a") = log 1 = 0, and log 2 for all else.
    # Answer "a b b", reference "a b c": in units of log 2,
    #   1-grams: answer b: 2, reference b: 1, c: 1; clipped min(2, 1) * 1 = 1, over 2 * sqrt(2);
    #   2-grams: answer ab, bb; reference ab, bc: 1 over sqrt(2) * sqrt(2);
    #   3-grams: abb and abc share nothing; 4-grams: none. As long as each other: no penalty.
    expected = 10 * (1 / (2 * math.sqrt(2)) + 1 / 2) / 4
    assert cider_d(["a b b", "x"], [["a b c"], ["a d"]])[0] == pytest.approx(expected)


def test_references_are_averaged_and_a_difference_in_length_costs() -> None:
    # The second reference has two words more: "a b" is 1-grams 1 / (1 * sqrt(3)), 2-grams 1 / (1 * sqrt(3)).
    near = 10 * (1 + 1) / 4
    far = 10 * (1 / math.sqrt(3) + 1 / math.sqrt(3)) / 4 * math.exp(-(2**2) / (2 * 6**2))
    scores = cider_d(["a b", "x"], [["a b", "a b c d"], ["a e"]])
    assert scores[0] == pytest.approx((near + far) / 2)


def test_the_items_not_the_captions_are_the_documents() -> None:
    # Saying a caption twice makes "b" no more common: it is in one item of two.
    once, twice = (cider_d(["b c", "x"], [references, ["d"]])[0] for references in (["b e"], ["b e", "b e"]))
    assert once == pytest.approx(twice)


def test_an_n_gram_no_reference_holds_still_counts_against_the_answer() -> None:
    assert cider_d(["b", "x"], [["b"], ["y"]])[0] == pytest.approx(2.5)
    # "q" weighs as a word of one item: cosine 1 / sqrt(2), and a bigram more than the reference.
    expected = 2.5 / math.sqrt(2) * math.exp(-1 / 72)
    assert cider_d(["b q", "x"], [["b"], ["y"]])[0] == pytest.approx(expected)


def test_a_caption_equal_to_its_references_scores_ten() -> None:
    assert cider_d(CAPTIONS, [[caption, caption] for caption in CAPTIONS]) == pytest.approx([10, 10, 10])


def test_repeating_a_good_word_earns_less_than_saying_it_once() -> None:
    references = [[caption] for caption in CAPTIONS]
    once, often = (cider_d([text, *CAPTIONS[1:]], references)[0] for text in ("red shirt", "red red red shirt"))
    assert often < once


def test_an_unrelated_caption_an_empty_one_and_one_without_references_score_zero() -> None:
    assert cider_d([CAPTIONS[1], "", "a cat"], [[CAPTIONS[0]], [CAPTIONS[1]], []]) == [0, 0, 0]


def test_a_single_item_scores_zero() -> None:
    assert cider_d([CAPTIONS[0]], [[CAPTIONS[0]]]) == [0]
    assert cider_d([], []) == []


def test_the_order_of_the_items_does_not_matter() -> None:
    references = {"a red chair": CAPTIONS[:2], "two dogs in a chair": CAPTIONS[1:], "an old dog": CAPTIONS[2:]}
    scores = dict(zip(references, cider_d(list(references), list(references.values())), strict=True))
    assert min(scores.values()) > 0
    for texts in permutations(references):
        assert cider_d(texts, [references[text] for text in texts]) == pytest.approx([scores[text] for text in texts])


def test_items_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        cider_d(["a", "b"], [["a"]])


def test_what_is_no_share_is_asked_of_the_metric_and_not_by_its_name() -> None:
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "cider_d" in path.read_text("utf-8")]
    assert {path.as_posix() for path in modules} == {"core/records.py", "scoring/answers.py", "scoring/cider.py"}


def test_a_score_is_the_same_to_the_last_digit_in_every_process() -> None:
    code = (
        "import random; from forgetbench.scoring.cider import cider_d; draw = random.Random(0);"
        "say = lambda: ' '.join(draw.choices([f'w{i}' for i in range(12)], k=24));"
        "print(cider_d([say() for _ in range(60)], [[say() for _ in range(5)] for _ in range(60)]))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
