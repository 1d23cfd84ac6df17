"""Seeds as a second level of error."""

import numpy as np
import pytest

from forgetbench.statistics.intervals import clustered_mean
from forgetbench.statistics.seeds import over_seeds

N, CLUSTERS = 120, [[str(i // 3) for i in range(120)]]
EVEN, ONE = np.full(N, 1 / N), [""] * N


def values(seed_effects: list[float], noise: float, rng: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(rng)
    shared = np.repeat(random.normal(size=N // 3), 3)
    return [shared + effect + noise * random.normal(size=N) for effect in seed_effects]


def test_one_seed_has_the_item_error_and_no_seed_sd() -> None:
    (only,) = values([0.3], 1)
    estimate, plain = over_seeds([only], CLUSTERS, EVEN, ONE), clustered_mean(only, CLUSTERS, limits=None)
    assert estimate.seed_sd is None
    assert (estimate.item_stderr, estimate.stderr) == pytest.approx((plain.stderr, plain.stderr))
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((plain.ci_low, plain.ci_high))


@pytest.mark.parametrize("effects", [[0.3], [-2, 0, 2]])
def test_an_interval_over_seeds_ends_where_the_figure_must(effects: list[float]) -> None:
    seed_values = values(effects, 1)
    free, bound = (over_seeds(seed_values, CLUSTERS, EVEN, ONE, limits) for limits in (None, (-0.5, 0.25)))
    assert free.ci_high is not None
    assert free.ci_low is not None
    assert free.ci_high > 0.25
    assert (bound.ci_low, bound.ci_high) == (max(free.ci_low, -0.5), 0.25)
    assert bound.stderr == free.stderr


def test_seeds_that_agree_add_no_error() -> None:
    same = values([0.0], 0.5) * 3
    estimate, plain = over_seeds(same, CLUSTERS, EVEN, ONE), clustered_mean(same[0], CLUSTERS)
    assert estimate.seed_sd == pytest.approx(0, abs=1e-12)
    assert estimate.stderr == pytest.approx(plain.stderr)


def test_item_error_and_seed_error_are_never_mixed() -> None:
    near, far = (over_seeds(values(effects, 0.1), CLUSTERS, EVEN, ONE) for effects in ([0, 0, 0], [-2, 0, 2]))
    assert far.item_stderr == pytest.approx(near.item_stderr)
    assert far.seed_sd == pytest.approx(2, rel=0.05)
    assert far.df < near.df


def test_both_errors_add_up_in_the_interval() -> None:
    estimate = over_seeds(values([-1, 0, 1, 0.5, -0.5], 0.0), CLUSTERS, EVEN, ONE)
    expected = np.sqrt(estimate.item_stderr**2 + estimate.seed_sd**2 / 5)
    assert estimate.stderr == pytest.approx(expected, rel=0.06)  # 2,000 resamples
    assert estimate == over_seeds(values([-1, 0, 1, 0.5, -0.5], 0.0), CLUSTERS, EVEN, ONE)


def test_datasets_keep_their_weights_in_every_resample() -> None:
    # One dataset is far above the other: were its share drawn too, that gap would be taken for an error.
    strata = ["a"] * 30 + ["b"] * 90
    weights = np.array([1 / 60] * 30 + [1 / 180] * 90)
    seeds = [seed_values + np.array([100.0] * 30 + [0.0] * 90) for seed_values in values([0, 0.1, -0.1], 0.2)]
    estimate = over_seeds(seeds, CLUSTERS, weights, strata)
    assert estimate.value == pytest.approx(
        50 + np.mean([weights @ seed_values for seed_values in values([0, 0.1, -0.1], 0.2)])
    )
    assert estimate.stderr < 1


def test_no_items_are_absent() -> None:
    assert over_seeds([np.array([])], [[]], np.array([]), []).value is None
