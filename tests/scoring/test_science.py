"""Letters, lists of states and texts of science questions."""

import pytest

from forgetbench.scoring.science import letter_match, science_match


@pytest.mark.parametrize("text", ["B", "b", "B.", " B\n", "B. two of them", "(B)", "The answer is B.", "Answer: b"])
def test_the_letter_that_stands_alone_first_is_the_answer(text: str) -> None:
    assert letter_match(text, ["B"])
    assert not letter_match(text, ["A"])


@pytest.mark.parametrize("text", ["", "two", "BB", "A dog or B", "It's B", "3 of them: B"])
def test_words_digits_and_articles_hide_a_letter(text: str) -> None:
    assert not letter_match(text, ["B"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", 1), ("a", 1), ("A.", 1), (" A \n", 1), (" A.\n", 1),
        ("B", 0), ("A. liver", 0), ("The answer is A", 0), ("cat", 0), ("", 0), ("Unanswerable", 0),
    ],
)  # fmt: skip
def test_a_letter_of_sci_is_the_whole_text_but_for_blanks_and_full_stops(text: str, expected: float) -> None:
    assert science_match(text, ["A"], "Which part is it?") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ohio,Utah,Iowa,Maine", 1), ("Maine, Iowa, Utah, Ohio.", 1), ("utah, ohio", 0.5), ("Iowa, Texas", 0.25),
        ("Texas", 0), ("", 0), ("Ohio and Utah", 0), ("Ohio, Ohio", 0.25), ("Unanswerable, Ohio", 0),
        ("Ohio, Utah, Iowa, Maine, Texas", 1),  # too many cost nothing
    ],
)  # fmt: skip
def test_a_list_of_states_scores_the_share_that_was_found_in_any_order(text: str, expected: float) -> None:
    assert science_match(text, ["Ohio, Utah, Iowa, Maine"], "Which states have the lowest value?") == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("It is 14-21 here", 1), ("14 - 21", 0), ("", 0), ("Unanswerable 14-21", 0)]
)
def test_any_other_answer_of_sci_stands_in_the_text(text: str, expected: float) -> None:
    assert science_match(text, ["14-21"], "What is the value of Ohio?") == expected


def test_the_best_reference_counts_and_none_is_worth_nothing() -> None:
    assert science_match("Utah", ["Ohio, Iowa", "Utah, Ohio"], "Which states are green?") == 0.5
    assert science_match("Utah", [], "Which states are green?") == 0
