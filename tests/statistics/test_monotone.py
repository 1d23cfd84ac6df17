"""Rank correlation clustered by run, against scipy and figures worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgetbench.statistics import monotone
from forgetbench.statistics.monotone import MIN_RUNS, monotone_fit, rank_difference


def points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Points with ties, two to a run."""
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 8, n).astype(float)
    return x, np.round(x + draw.normal(0, 3, n)), [str(place // 2) for place in range(n)]


@pytest.mark.parametrize("n", [3, 10, 61])
def test_the_rank_correlation_is_scipys_with_ties_too(n: int) -> None:
    x, y, runs = points(n, seed=n)
    assert monotone_fit(x, y, runs).rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_resample_correlates_runs_as_often_as_they_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scipy on points that are really repeated: the weighted ranks are those of the longer list."""
    x, y, _ = points(24)
    runs, rhos = [str(place // 4) for place in range(24)], []
    draw = np.random.default_rng(0)
    for counts in draw.multinomial(6, np.full(6, 1 / 6), 40):
        again = np.repeat(np.arange(24), [counts[int(run)] for run in runs])
        rhos.append(np.arctanh(stats.spearmanr(x[again], y[again]).statistic))
    monkeypatch.setattr(monotone, "RESAMPLES", 40)
    fit = monotone_fit(x, y, runs)
    centre, half = np.arctanh(stats.spearmanr(x, y).statistic), stats.t.ppf(0.975, 5) * np.std(rhos, ddof=1)
    assert fit.rho_low == pytest.approx(np.tanh(centre - half), abs=1e-9)
    assert fit.rho_high == pytest.approx(np.tanh(centre + half), abs=1e-9)


def test_an_isotonic_fit_explains_what_is_worked_by_hand() -> None:
    # The fit of 1 3 2 6 is 1 2.5 2.5 6: SSE 1/2 of SST 14.
    fit = monotone_fit([1, 2, 3, 4], [1, 3, 2, 6], list("abcd"))
    assert fit.explained == pytest.approx(1 - 0.5 / 14)
    # Equal x have one fitted value, 2 for the first two: SSE 2 of SST 14.
    assert monotone_fit([1, 1, 3, 4], [1, 3, 2, 6], list("abcd")).explained == pytest.approx(1 - 2 / 14)
    assert monotone_fit([4, 3, 2, 1], [1, 2, 3, 4], list("abcd")).explained == pytest.approx(0)


def test_within_strata_only_the_order_inside_each_counts() -> None:
    x, y = [1.0, 2, 3, 11, 12, 13], [1.0, 2, 3, 13, 12, 11]
    strata = ["low"] * 3 + ["high"] * 3
    assert monotone_fit(x, y, list("abcdef")).rho == pytest.approx(stats.spearmanr(x, y).statistic)
    # One stratum goes up, one of the same size goes down.
    assert monotone_fit(x, y, list("abcdef"), strata).rho == pytest.approx(0)
    # Steps that grow both alike, and nothing else: no correlation is left.
    assert monotone_fit([1, 1, 5, 5], [2, 2, 7, 7], list("abcd"), list("aabb")).rho is None


def test_figures_that_differ_by_rounding_alone_are_ties() -> None:
    x = [0.1 + 0.2, 0.3, 0.5, 0.2]
    assert x[0] != x[1]
    fit = monotone_fit(x, [1, 2, 3, 4], list("abcd"))
    assert fit.rho == pytest.approx(stats.spearmanr([0.3, 0.3, 0.5, 0.2], [1, 2, 3, 4]).statistic)


def test_few_runs_have_a_correlation_without_an_interval() -> None:
    x, y, _ = points(20)
    runs = [str(place % (MIN_RUNS - 1)) for place in range(20)]
    fit = monotone_fit(x, y, runs)
    assert fit.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (fit.rho_low, fit.rho_high, fit.n_runs) == (None, None, MIN_RUNS - 1)
    assert monotone_fit(x, y, [str(place % MIN_RUNS) for place in range(20)]).rho_low is not None


def test_what_cannot_be_known_is_absent_and_points_without_a_value_are_left_out() -> None:
    assert monotone_fit([], [], []).rho is None
    assert monotone_fit([1, 1, 1, 1], [1, 2, 3, 4], list("abcd")).rho is None
    fit = monotone_fit([1, 2, np.nan, 4, 5], [1, 2, 3, np.nan, 0], list("abcde"))
    assert (fit.n, fit.n_runs) == (3, 3)


def test_the_interval_covers_at_its_level_where_checkpoints_of_a_run_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight runs of six checkpoints; of two normal figures Spearman's correlation is 6/pi asin(r/2)."""
    monkeypatch.setattr(monotone, "RESAMPLES", 300)
    draw, truth, hits, naive = np.random.default_rng(5), 6 / np.pi * np.arcsin(0.25), 0, 0
    for _ in range(300):
        point_noise, shared = draw.normal(size=(2, 48)), np.repeat(draw.normal(size=(2, 8)), 6, axis=1)
        x, e = np.sqrt(0.2) * point_noise + np.sqrt(0.8) * shared
        y, runs = 0.5 * x + np.sqrt(0.75) * e, [str(place // 6) for place in range(48)]
        fit = monotone_fit(x, y, runs)
        assert fit.rho is not None
        assert fit.rho_low is not None
        assert fit.rho_high is not None
        hits += fit.rho_low <= truth <= fit.rho_high
        naive += abs(np.arctanh(fit.rho) - np.arctanh(truth)) < 1.96 / np.sqrt(45)
    assert hits / 300 == pytest.approx(0.95, abs=0.035)
    assert naive / 300 < 0.8


def test_within_rates_the_interval_covers_0_where_only_larger_steps_do_more_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monotone, "RESAMPLES", 200)
    draw, hits, pooled = np.random.default_rng(6), 0, 0
    rate = np.repeat([0, 1, 2], 6 * 3)
    runs, rates = [str(place // 3) for place in range(54)], [str(value) for value in rate]
    for _ in range(150):
        x, y = (2 * rate + np.repeat(draw.normal(size=18), 3) + 0.3 * draw.normal(size=54) for _ in range(2))
        within, without = monotone_fit(x, y, runs, rates), monotone_fit(x, y, runs)
        assert within.rho_low is not None
        assert within.rho_high is not None
        assert without.rho_low is not None
        hits += within.rho_low <= 0 <= within.rho_high
        pooled += without.rho_low > 0
    assert hits / 150 >= 0.92
    assert pooled / 150 > 0.9


def test_pairs_of_runs_in_strata_of_their_own_are_few_runs() -> None:
    """Six runs of three rates leave three degrees of freedom, as four runs do."""
    x, y, _ = points(24)
    runs = [str(place // 4) for place in range(24)]
    assert monotone_fit(x, y, runs, [str(place // 8) for place in range(24)]).rho_low is None
    assert monotone_fit(x, y, runs, [str(place // 12) for place in range(24)]).rho_low is not None


def test_two_correlations_on_the_same_points_differ_by_what_they_do_alone() -> None:
    x, y, runs = points(40)
    other = x + np.random.default_rng(9).normal(0, 9, 40)
    difference = rank_difference(x, other, y, runs)
    rhos = [stats.spearmanr(predictor, y).statistic for predictor in (x, other)]
    assert difference.value == pytest.approx(rhos[0] - rhos[1])
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < difference.value < difference.high
    same = rank_difference(x, x, y, runs)
    assert (same.value, same.low, same.high) == (0, 0, 0)
