"""When an answer names a label of the task, and how uneven the recall of letters is."""

import math

import pytest

from forgetbench.scoring.bias import names_label, recall_deviation

LABELS = frozenset({"shirt", "dress", "Evening dress", "T-shirt/top", "7", "a", "10"})


@pytest.mark.parametrize(
    "text",
    [
        "dress", "Dress.", "It is a DRESS!", "**dress**", "an evening\n dress", "the dress's hem", "(shirt)",
        "a t-shirt/top", "7", "(7).", " a ", "A", "Answer: 10", "10.",
    ],
)  # fmt: skip
def test_a_label_is_named_as_a_whole_phrase(text: str) -> None:
    assert names_label(text, LABELS, ["red", "blue"])


@pytest.mark.parametrize(
    "text",
    [
        "", "...", "trousers", "dresses", "address", "polo-shirt", "dress-up", "t-shirt", "7 of them", "a cat",
        "about 10.5", "100", "b",
    ],
)  # fmt: skip
def test_a_part_of_a_word_or_a_letter_among_words_is_not(text: str) -> None:
    assert not names_label(text, LABELS, ["red", "blue"])


@pytest.mark.parametrize(
    ("text", "item_texts", "expected"),
    [
        ("dress", ["dress", "shirt"], False),
        ("dress", ["The dress."], False),
        ("dress", ["evening dress", "suit"], False),
        ("evening dress", ["dress", "suit"], True),  # a longer label than the item's
        ("a dress, not a shirt", ["dress"], True),
        ("dress", ["dresses"], True),
        ("A", ["A", "B"], False),
        ("a", ["vitamin A"], False),
        ("7", ["5", "6"], True),
        ("dress", [], True),
    ],
)
def test_a_label_that_the_item_holds_does_not_count(text: str, item_texts: list[str], expected: bool) -> None:
    assert names_label(text, LABELS, item_texts) is expected


def test_phrases_that_overlap_are_each_found() -> None:
    assert names_label("dress shirt collar", ["dress shirt", "shirt collar"], ["dress shirt"])
    assert not names_label("dress shirt", ["", " ", "."], [])


def test_any_collection_of_labels_will_do() -> None:
    assert names_label("dress", ["dress"], ()) and names_label("dress", {"dress": 0}, ())  # noqa: PT018


def test_recall_deviation_matches_the_hand_worked_case() -> None:
    # Recalls: A 2/2, B 1/2, C 0/1, whose mean is 0.5; a wrong or unparsed answer lowers only its target's.
    parsed = ["A", "A", "B", None, "A"]
    targets = ["A", "A", "B", "B", "C"]
    assert recall_deviation(parsed, targets) == pytest.approx(math.sqrt((0.25 + 0 + 0.25) / 3))


@pytest.mark.parametrize(
    ("parsed", "targets", "expected"),
    [
        (["A", "A", "A", "A"], ["A", "B", "A", "B"], 0.5),  # always A
        (["A", "B", "D"], ["A", "B", "B"], 0.25),  # D is never right
        (["A", "B"], ["A", "B"], 0),
        ([None, None], ["A", "B"], 0),
        (["A", "A", "A", "B"], ["A", "A", "A", "B"], 0),  # uneven targets are no bias
        (["A"], ["A"], None),
        ([], [], None),
    ],
)
def test_recall_deviation_is_over_the_letters_that_are_ever_right(
    parsed: list[str | None], targets: list[str], expected: float | None
) -> None:
    assert recall_deviation(parsed, targets) == expected
