"""Normalised Levenshtein similarity, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.scoring.anls import anls


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("invoice", "invoice", 1),
        ("Invoice  NO.\n7", "invoice no. 7", 1),
        ("kitten", "sitting", 1 - 3 / 7),  # the textbook pair: three edits
        ("1O0", "100", 1 - 1 / 3),
        ("abcd", "abce", 0.75),
        ("abcd", "abef", 0),  # NL is 0.5: not below
        ("abc", "abcdef", 0),  # so is this one, by the lengths alone
        ("abcd", "abcdef", 1 - 2 / 6),
        ("ba", "ab", 0),  # a transposition is two edits
        ("the total is 12.50", "12.50", 0),
        ("", "total", 0),
        ("total", "", 0),
        ("café", "cafe", 0.75),
    ],
)
def test_similarity_is_one_minus_edits_per_character_of_the_longer(text: str, reference: str, expected: float) -> None:
    assert anls(text, [reference]) == pytest.approx(expected)
    assert anls(reference, [text]) == pytest.approx(expected)


def test_the_best_reference_counts() -> None:
    assert anls("abcd", ["zzzz", "abce", "abcz!"]) == 0.75
    assert anls("abcd", []) == 0


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0), (0.51, 0.5), (1, 0.5), (0.25, 0)])
def test_the_threshold_is_on_the_distance_and_excluded(threshold: float, expected: float) -> None:
    assert anls("abcd", ["abef"], threshold) == expected


@given(st.text("abéß日😀 ", max_size=12), st.text("abéß日😀 ", max_size=12))
def test_edits_are_counted_character_by_character_in_every_script(first: str, second: str) -> None:
    first_text, second_text = " ".join(first.split()), " ".join(second.split())
    normalised = edits(first_text, second_text) / max(len(first_text), len(second_text), 1)
    assert anls(first, [second]) == (1 - normalised if normalised < 0.5 else 0)


def edits(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions, one row of the table at a time."""
    above = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        row = [i]
        for j, b in enumerate(second, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]
