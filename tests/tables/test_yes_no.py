"""Precision, recall and F1 of yes/no answers."""

import pytest

from forgetbench.statistics.ratios import RatioScores, clustered_ratio
from forgetbench.tables.yes_no import yes_no_counts

PARSED = ["yes", "yes", "yes", "no", None, "no", None]
TARGETS = ["yes", "yes", "no", "yes", "yes", "no", "no"]


def test_answers_are_hits_false_alarms_and_misses() -> None:
    counts = yes_no_counts(PARSED, TARGETS, "yes")
    assert counts.tp_N.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert counts.fp_N.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert counts.fn_N.tolist() == [0, 0, 0, 1, 1, 0, 0]


def test_an_unparsed_answer_is_a_miss_but_no_false_alarm() -> None:
    counts = yes_no_counts([None, None], ["yes", "no"], "yes")
    assert (counts.tp_N.sum(), counts.fp_N.sum(), counts.fn_N.sum()) == (0, 0, 1)


def test_the_three_ratios_match_the_hand_worked_case() -> None:
    counts, ways = yes_no_counts(PARSED, TARGETS, "yes"), [[f"item={i}" for i in range(7)]]

    def value(scores: RatioScores) -> float | None:
        return clustered_ratio(scores).value

    precision, recall = 2 / 3, 2 / 4
    assert value(counts.precision(ways)) == pytest.approx(precision)
    assert value(counts.recall(ways)) == pytest.approx(recall)
    assert value(counts.f1(ways)) == pytest.approx(2 * precision * recall / (precision + recall))


def test_never_saying_yes_has_no_precision_but_a_recall_of_zero() -> None:
    counts, ways = yes_no_counts(["no", "no"], ["yes", "no"], "yes"), [["a", "b"]]
    assert clustered_ratio(counts.precision(ways)).value is None
    assert clustered_ratio(counts.recall(ways)).value == 0


def test_no_items_give_empty_counts_and_unequal_lengths_are_refused() -> None:
    assert yes_no_counts([], [], "yes").tp_N.size == 0
    with pytest.raises(ValueError, match="shorter"):
        yes_no_counts(["yes", "no"], ["yes"], "yes")
