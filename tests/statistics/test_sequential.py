"""The test behind a budget of forgetting, by hand: levels, bounds, and what is over, broken and kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special  # type: ignore[import-untyped]

from forgetbench.statistics.intervals import Estimate, paired_difference
from forgetbench.statistics.sequential import Budget, items_to_detect, one_sided_bounds, smallest_detectable_loss


def losses(lost: int, gained: int, n: int, each: int = 1) -> Estimate:
    """Of n items in clusters of `each`, the first ones lost and the next ones gained."""
    before = np.array([1.0] * lost + [0.0] * gained + [1.0] * (n - lost - gained))
    after = np.array([0.0] * lost + [1.0] * gained + [1.0] * (n - lost - gained))
    return paired_difference(before, after, [[str(i // each) for i in range(n)]]).difference


def test_planned_looks_and_groups_share_the_level_evenly() -> None:
    budget = Budget(0.02, groups=3, looks=4)
    assert budget.level(1) == budget.level(4) == pytest.approx(0.05 / 12)
    assert sum(3 * budget.level(look) for look in range(1, 5)) == pytest.approx(0.05)


def test_looks_without_an_end_spend_the_level_and_no_more() -> None:
    budget = Budget(0.02, groups=2)
    assert budget.level(1) == pytest.approx(0.05 * 6 / math.pi**2 / 2)
    spent = sum(2 * budget.level(look) for look in range(1, 20_000))
    assert 0.0499 < spent < 0.05


def test_a_look_that_was_not_planned_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="look 3 of 2"):
        Budget(0.02, looks=2).level(3)
    with pytest.raises(ValueError, match="1 groups instead of 2"):
        Budget(0.02, groups=2, looks=1).verdicts(1, {"a": losses(1, 0, 10)})


def test_bounds_of_unclustered_items_are_those_of_t_with_a_little_more_error() -> None:
    change = losses(10, 2, 50)  # mean .16, sum of squares 12
    variance = (12 - 50 * 0.16**2) / 49 / 50
    half = special.stdtrit(49, 1 - 0.004) * math.sqrt(variance * 50 / 49)
    assert one_sided_bounds(change, 0.004) == pytest.approx((0.16 - half, 0.16 + half))


def test_uneven_clusters_have_fewer_degrees_of_freedom_and_more_error() -> None:
    labels = [["large"] * 6 + ["a", "b", "c", "d"]]
    after = [0.0, 1, 1, 1, 1, 1, 0, 0, 1, 1]
    change = paired_difference([1.0] * 10, after, labels).difference
    k = 10**2 / (6**2 + 4)  # Kish's 2.5 clusters
    error = math.sqrt((k / (k - 1)) ** 2 * 4 / 5) * (change.stderr or 0.0)
    low, high = one_sided_bounds(change, 0.05)
    half = special.stdtrit(k - 1, 0.95) * error
    assert low == pytest.approx(0.3 - half)
    assert high == pytest.approx(min(1.0, 0.3 + half))


def test_where_no_answer_changed_the_bounds_are_what_so_many_clusters_leave_open() -> None:
    open_share = 1 - 0.01 ** (1 / 40)
    assert one_sided_bounds(losses(0, 0, 40), 0.01) == pytest.approx((-open_share, open_share))


def test_a_model_that_has_lost_every_answer_breaks_a_budget() -> None:
    low, high = one_sided_bounds(losses(40, 0, 40), 0.01)
    assert low == pytest.approx(1 - 2 * (1 - 0.01 ** (1 / 40)))
    assert high == 1


def test_a_single_cluster_shows_nothing() -> None:
    change = losses(4, 0, 10, each=10)
    assert one_sided_bounds(change, 0.05) == (None, None)
    verdict = Budget(0.02, looks=1).verdicts(1, {"a": change})["a"]
    assert (verdict.is_over, verdict.is_broken, verdict.is_within_budget) == (True, False, False)


def test_over_is_seen_broken_is_shown_and_kept_is_shown_too() -> None:
    groups = {
        "seen": losses(4, 0, 40),
        "shown": losses(30, 0, 40),
        "within": losses(0, 3, 40),
        "open": losses(1, 0, 40),
    }
    verdicts = Budget(0.05, groups=4, looks=2).verdicts(2, groups)
    flags = {name: (verdict.is_over, verdict.is_broken, verdict.is_within_budget) for name, verdict in verdicts.items()}
    assert flags == {
        "seen": (True, False, False),
        "shown": (True, True, False),
        "within": (False, False, True),
        "open": (False, False, False),
    }


def test_more_looks_ask_for_more_evidence() -> None:
    change = {"a": losses(9, 0, 40)}
    assert Budget(0.05, looks=1).verdicts(1, change)["a"].is_broken
    assert not Budget(0.05, looks=20).verdicts(1, change)["a"].is_broken


def test_the_smallest_loss_that_is_shown_has_the_power_that_it_is_said_to_have() -> None:
    level, budget, n = 0.0125, 0.05, 400
    p = smallest_detectable_loss(budget, n, level)
    error = math.sqrt(p * (1 - p) / n)
    assert (p - budget) / error == pytest.approx(special.ndtri(1 - level) + special.ndtri(0.8))


def test_the_items_that_tell_a_loss_from_none_are_the_fewest_that_do() -> None:
    n = items_to_detect(0.02, 0.01)
    assert smallest_detectable_loss(0.0, n, 0.01) <= 0.02 < smallest_detectable_loss(0.0, n - 1, 0.01)
