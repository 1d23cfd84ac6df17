"""Sign flips against enumeration, SciPy and statsmodels; Holm and TOST against statsmodels."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from forgetbench.statistics.intervals import Estimate, paired_difference
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import equivalence_p, holm, sign_flip_p, t_test_p


def labels(codes: object) -> list[str]:
    return [str(code) for code in np.asarray(codes)]


def test_unclustered_right_and_wrong_is_mcnemars_exact_test() -> None:
    changes = [-1] * 14 + [1] * 5 + [0] * 81
    table = [[40, 14], [5, 41]]
    expected = mcnemar(table, exact=True).pvalue
    assert sign_flip_p(changes, [labels(range(100))]) == pytest.approx(expected, rel=1e-12)


def test_whole_cluster_sums_are_exact_for_many_clusters() -> None:
    random = np.random.default_rng(3)
    cluster = np.repeat(np.arange(60), 5)
    changes = random.choice([-1, 0, 1], 300, p=[0.2, 0.65, 0.15])
    sums = np.bincount(cluster, changes)
    drawn = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=40_000, rng=0).pvalue
    assert sign_flip_p(changes, [labels(cluster)]) == pytest.approx(drawn, abs=0.008)


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_few_clusters_are_enumerated(scale: float) -> None:
    sums = np.array([-3.0, -2, 1, -4, 2, -1, 0.5, -2.5]) * scale
    reached = [abs(sums @ np.array(signs)) >= abs(sums.sum()) - 1e-12 for signs in product((1, -1), repeat=8)]
    assert sign_flip_p(sums, [labels(range(8))]) == pytest.approx(np.mean(reached), rel=1e-12)


def test_many_clusters_of_any_size_are_drawn_from_a_fixed_seed() -> None:
    changes = np.random.default_rng(5).normal(0.2, 1, 80)
    first = sign_flip_p(changes, [labels(range(80))])
    drawn = stats.permutation_test((changes,), np.sum, permutation_type="samples", n_resamples=40_000, rng=1).pvalue
    assert first == sign_flip_p(changes, [labels(range(80))])
    assert first == pytest.approx(drawn, abs=0.015)
    assert sign_flip_p(np.ones(80) + changes / 100, [labels(range(80))]) == 1e-4  # never 0


def test_weights_of_datasets_count() -> None:
    changes, weights = [-1, -1, 1, 1, 1], [1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6]
    signs = np.array(list(product((1, -1), repeat=5)))
    sums = signs @ (np.array(changes) * weights)
    expected = np.mean(np.abs(sums) >= abs(np.dot(changes, weights)) - 1e-12)
    assert sign_flip_p(changes, [labels(range(5))], weights) == pytest.approx(expected)


def test_no_change_is_p_one_and_no_items_is_absent() -> None:
    assert sign_flip_p([0, 0, 0], [labels(range(3))]) == 1
    assert sign_flip_p([0, 0, 0, 0], [labels([0, 0, 1, 1]), labels([0, 1, 0, 1])]) == 1
    assert sign_flip_p([], [[]]) is None


def two_way_statistic(flipped: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """|Sum| over its two-way error around 0, in loops."""

    def variance(keys: list[object]) -> float:
        groups = {key: sum(flipped[i] for i in range(len(keys)) if keys[i] == key) for key in set(keys)}
        return len(groups) / (len(groups) - 1) * sum(value**2 for value in groups.values())

    both = variance(list(zip(a, b, strict=True)))
    total = variance(list(a)) + variance(list(b)) - both
    if total <= 0:
        total = max(variance(list(a)), variance(list(b)))
    return abs(flipped.sum()) / np.sqrt(total)


def test_two_ways_flip_the_coarser_one_and_studentise_by_both() -> None:
    random = np.random.default_rng(8)
    a, b = random.integers(0, 6, 40), random.integers(0, 15, 40)
    changes = random.choice([-1.0, 0, 1], 40, p=[0.4, 0.4, 0.2])
    observed = two_way_statistic(changes, a, b)
    reached = [
        two_way_statistic(changes * np.array(signs)[a], a, b) >= observed - 1e-9 for signs in product((1, -1), repeat=6)
    ]
    ours = sign_flip_p(changes, [labels(b), labels(a)])  # whichever way comes first
    assert ours == pytest.approx(np.mean(reached))


def test_two_way_flips_hold_their_level_where_one_way_does_not() -> None:
    # Both ways carry errors of equal size: flipping one of them alone rejects a true null far too often.
    random, rejected, naive = np.random.default_rng(0), 0, 0
    a, b = np.repeat(np.arange(12), 30), np.tile(np.arange(30), 12)
    for _ in range(200):
        changes = random.normal(size=12)[a] + 0.8 * random.normal(size=30)[b] + random.normal(size=360)
        rejected += sign_flip_p(changes, [labels(a), labels(b)]) < 0.05
        naive += sign_flip_p(changes, [labels(b)]) < 0.05
    assert rejected / 200 < 0.09
    assert naive / 200 > 0.2


def test_holm_agrees_with_statsmodels_and_passes_over_absent_cells() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.6]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)
    assert holm([0.01, None, 0.04, None]) == [0.02, None, 0.04, None]
    assert holm([]) == []
    assert holm([0.01, 0.004], family=6) == pytest.approx([0.05, 0.024])  # four larger ones are not given


def estimated(changes: object, seeds: int = 1) -> SeedEstimate:
    changes = np.asarray(changes, dtype=float)
    n = changes.size
    return over_seeds([changes] * seeds, [labels(range(n))], np.full(n, 1 / n), [""] * n)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5])
def test_equivalence_of_graded_scores_agrees_with_statsmodels(margin: float) -> None:
    changes = np.random.default_rng(2).normal(0.1, 1, 60)
    expected = DescrStatsW(changes).ttost_mean(-margin, margin)[0]
    assert equivalence_p(estimated(changes), margin) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("lost", "n", "margin"), [(0, 40, 0.02), (0, 300, 0.02), (2, 300, 0.02), (5, 400, 0.03)])
def test_rare_losses_are_no_proof_of_equivalence(lost: int, n: int, margin: float) -> None:
    # With so few losses the chance of as few, were the true loss the margin, is the least that p may be.
    changes = np.r_[-np.ones(lost), np.zeros(n - lost)]
    assert equivalence_p(estimated(changes), margin) >= stats.binom.cdf(lost, n, margin) - 1e-12


def test_equivalence_at_the_margin_is_claimed_in_five_percent_at_most() -> None:
    for n, margin in ((300, 0.02), (1000, 0.02), (150, 0.1)):
        losses = np.arange(int(4 * n * margin))
        claims = [equivalence_p(estimated(np.r_[-np.ones(k), np.zeros(n - k)]), margin) < 0.05 for k in losses]
        assert 0.001 < stats.binom.pmf(losses, n, margin) @ claims <= 0.05


def test_many_changes_that_balance_are_judged_by_the_t_test() -> None:
    changes = np.r_[-np.ones(100), np.ones(100), np.zeros(4800)]
    expected = DescrStatsW(changes).ttost_mean(-0.02, 0.02)[0]
    assert equivalence_p(estimated(changes), 0.02) == pytest.approx(expected, rel=1e-6)
    assert expected < 0.001


def test_equivalence_needs_an_error_and_a_positive_margin() -> None:
    assert equivalence_p(estimated([0.3]), 0.05) is None
    assert equivalence_p(estimated([0.5] * 9), 0.6) is None  # graded, and all alike
    assert equivalence_p(estimated(-np.ones(9)), 0.02) == pytest.approx(1)
    assert equivalence_p(estimated(np.zeros(9), seeds=3), 0.02) > 0.8
    with pytest.raises(ValueError, match="positive"):
        equivalence_p(estimated([0.1, 0.2]), 0)


def test_t_test_is_scipys_for_unclustered_items() -> None:
    random = np.random.default_rng(4)
    after, before = random.normal(0.2, 1, 50), random.normal(0, 1, 50)
    change = paired_difference(after, before, [labels(range(50))]).difference
    assert t_test_p(change) == pytest.approx(stats.ttest_rel(after, before).pvalue)
    assert t_test_p(Estimate(None, None, None, None, 0, 0)) is None
    assert t_test_p(Estimate(-0.5, 0.0, None, None, 2, 2, 1)) is None  # two clusters that happen to agree
    assert t_test_p(Estimate(0.0, 0.0, 0.0, 0.0, 9, 9, 8)) == 1
