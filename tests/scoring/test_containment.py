"""The lenient matches of public benchmarks, with what they wrongly accept."""

import pytest

from forgetbench.scoring.containment import contains_match, lenient_match, mutual_match


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Yes", "yes", True), ("It shows a Necrosis of the liver.", "necrosis", True),
        ("I cannot say", "no", True), ("normal", "no", True),  # parts of words count
        ("liver", "the liver", False), ("", "no", False), ("Unanswerable, but no", "no", False),
        ("unanswerable", "able", True),
    ],
)  # fmt: skip
def test_an_answer_that_holds_the_right_one_is_right_whatever_surrounds_it(
    text: str, reference: str, expected: bool
) -> None:
    assert contains_match(text, [reference]) is expected


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("No", "no"), ("No.", "no"), ("no, it is not", "no"), ("The answer is no", "No."), ("there is\nno", "no"),
        ("cannot", "no"),  # a text of one word may hold it anywhere
        ("I do not know", "no"), ("a casino by the sea", "no"),  # the start or the end of another word
        ("It is a rural area, I think", "rural area"), ("Keep going straight ahead.", "going straight"),
    ],
)  # fmt: skip
def test_lenient_takes_an_end_of_a_word(text: str, reference: str) -> None:
    assert lenient_match(text, [reference])


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("I cannot say", "no"), ("maybe snowy here", "no"), ("rural", "rural area"), ("area, rural", "rural area"),
        ("", "no"), ("Unanswerable", "no"), ("no Unanswerable", "no"), ("yes", "no"), ("anything", "."),
    ],
)  # fmt: skip
def test_lenient_does_not_take_the_middle_of_a_word_nor_a_refusal(text: str, reference: str) -> None:
    assert not lenient_match(text, [reference])


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("tiger cat", "tiger cat", True), ("cat", "tiger cat", True), ("a tiger cat.", "tiger cat", True),
        ("a", "cat", True),
        ("Cat", "cat", False), ("dog", "cat", False), ("", "cat", False), (" \n", "tiger cat", False),
    ],
)  # fmt: skip
def test_mutual_takes_either_text_inside_the_other_but_no_empty_one(text: str, reference: str, expected: bool) -> None:
    assert mutual_match(text, [reference]) is expected


def test_any_reference_will_do() -> None:
    for match in (contains_match, lenient_match, mutual_match):
        assert match("red", ["blue", "red"])
        assert not match("red", [])
