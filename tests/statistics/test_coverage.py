"""The coverage study: a small run of its own functions, and what its committed page states."""

import re

import numpy as np
import pytest

from forgetbench.statistics.intervals import paired_difference
from tools.coverage_study import OUT
from tools.coverage_worlds import (
    accuracy,
    before_and_after,
    change_of,
    crossed,
    datasets,
    grouped,
    latent,
    paired,
    quadrant,
    rare_losses,
    rejections,
    right_and_wrong,
    seeds,
    two_ways,
    unclustered,
    yes_no,
)
from tools.guard_study import false_stops, looks_at


def test_clustered_intervals_cover_where_naive_ones_do_not() -> None:
    row = accuracy(0.5, 30, 0.3, uneven=False, repetitions=300)
    assert row["ours"] == pytest.approx(95, abs=3)
    assert row["naive"] < 80


def test_paired_and_two_way_intervals_cover_where_naive_ones_do_not() -> None:
    change = paired(0.6, 30, -0.1, uneven=False, repetitions=200)
    assert change["ours"] == pytest.approx(95, abs=4)
    assert change["naive"] < 90
    both = two_ways("crossed", crossed(14, 14), [0.25, 0.25], 0.5, repetitions=150)
    assert both["ours"] == pytest.approx(95, abs=5)
    assert max(both["by images"], both["by facts"], both["naive"]) < both["ours"] - 3


def test_the_change_that_is_tested_for_equivalence_is_the_paired_difference() -> None:
    items = quadrant((30, 3), (80, 40))
    before_N, after_N = before_and_after(np.random.default_rng(0), items, [0.3], -0.2)
    ours = change_of(after_N, before_N, items)
    paired_one = paired_difference(after_N, before_N, items.labels, items.weights_N, items.strata).difference
    assert (ours.value, ours.ci_low, ours.ci_high) == pytest.approx(
        (paired_one.value, paired_one.ci_low, paired_one.ci_high)
    )


def test_a_quadrant_of_few_and_many_clusters_is_covered_only_with_a_correction_for_each_dataset() -> None:
    row = datasets("few and many clusters", quadrant((60, 6), (60, 60)), 0.6, (-0.1, -0.1), repetitions=300)
    assert row["mean, ours"] == pytest.approx(95, abs=4)
    assert row["mean, together"] < row["mean, ours"] - 1


def test_equivalence_is_rarely_claimed_of_a_change_as_large_as_the_margin() -> None:
    assert rare_losses(300)["margin 2, -2"] <= 5


def test_sign_flips_hold_their_level_where_mcnemar_does_not() -> None:
    row = rejections("null", grouped(30), 0.0, repetitions=250)
    assert row["sign flips"] < 8
    assert row["McNemar"] > row["sign flips"]


def test_seeds_that_differ_are_covered_where_items_alone_are_not() -> None:
    row = seeds(5, 3.0, repetitions=40, n_clusters=10)
    assert row["ours"] > 88
    assert row["items only"] < 85


def test_exact_coverage_agrees_with_simulated_coverage() -> None:
    exact, random = unclustered(0.2, 10), np.random.default_rng(0)
    right = random.binomial(10, 0.2, 40_000)
    # Wilson's interval of k of 10 holds 20 % for k from 0 to 4; that of 5 begins at 23.7 %.
    assert exact["ours"] == pytest.approx(100 * np.mean(right <= 4), abs=1)


def test_f1_near_1_is_covered_where_a_t_interval_has_no_width() -> None:
    row = yes_no(30, 0.98, 0.02, repetitions=200)
    assert row["F1"] > 90
    assert row["F1 by t"] < 70


def test_simulated_answers_have_the_share_and_correlation_asked_for() -> None:
    random, items = np.random.default_rng(0), grouped(10_000)
    y_CN = right_and_wrong(random, 0.3, 0.1, items).reshape(-1, 10)
    assert y_CN.mean() == pytest.approx(0.3, abs=0.01)
    assert np.corrcoef(y_CN[:, 0], y_CN[:, 1])[0, 1] == pytest.approx(0.1, abs=0.03)
    z_CN = latent(random, items, [0.3]).reshape(-1, 10)
    assert z_CN.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(z_CN[:, 0], z_CN[:, 1])[0, 1] == pytest.approx(0.3, abs=0.03)
    before_N, after_N = before_and_after(random, items, [0.3], -0.1)
    assert (after_N - before_N).mean() == pytest.approx(-0.1, abs=0.01)


def test_committed_page_states_its_claim_within_a_point_of_95() -> None:
    stated = re.search(r"Mean coverage of our accuracy intervals is (\d+\.\d+) %", OUT.read_text("utf-8"))
    assert stated is not None
    assert abs(float(stated[1]) - 95) <= 1
    assert OUT.with_suffix(".svg").exists()


def test_a_budget_that_is_just_kept_stops_few_runs_though_looked_at_again_and_again() -> None:
    row = false_stops("67 items", looks_at, 0.9, 0.02, looks=4, groups=3, repetitions=200)
    assert row["ours"] <= 5
    assert row["naive"] > 15
