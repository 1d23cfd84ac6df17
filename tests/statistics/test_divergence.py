"""Distances between two distributions, against figures worked on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forgetbench.statistics.divergence import (
    MIN_REMAINDER,
    kl_divergence,
    logprob_matrix,
    normalise_outcomes,
    total_variation,
    with_remainder,
)


def logs(*rows: list[float]) -> np.ndarray:
    """Log-probabilities of probabilities."""
    with np.errstate(divide="ignore"):
        return logprob_matrix([np.log(row).tolist() for row in rows])


def test_the_divergence_of_two_options_is_that_worked_by_hand() -> None:
    even, uneven = logs([0.5, 0.5]), logs([0.25, 0.75])
    # 1/2 log 2 + 1/2 log(2/3) = log(2 / sqrt 3); and 1/4 log(1/2) + 3/4 log(3/2) = (3 log 3 - 4 log 2) / 4.
    assert kl_divergence(even, uneven) == pytest.approx([math.log(2 / math.sqrt(3))], rel=1e-12)
    assert kl_divergence(uneven, even) == pytest.approx([(3 * math.log(3) - 4 * math.log(2)) / 4], rel=1e-12)
    assert total_variation(even, uneven) == pytest.approx([0.25])


def test_equal_distributions_are_exactly_0_apart_and_disjoint_ones_infinitely() -> None:
    mixed, certain = logs([0.3, 0.7]), logs([1.0, 0.0])
    assert kl_divergence(mixed, mixed).tolist() == [0.0]
    assert total_variation(mixed, mixed).tolist() == [0.0]
    assert kl_divergence(certain, mixed) == pytest.approx([math.log(1 / 0.3)])
    assert np.isinf(kl_divergence(mixed, certain)).all()
    assert total_variation(logs([0.0, 1.0]), certain).tolist() == [1.0]


def test_log_probabilities_that_underflow_as_probabilities_still_give_a_divergence() -> None:
    unlikely = normalise_outcomes(logprob_matrix([[-1000.0, 0.0]]))
    assert kl_divergence(logs([0.5, 0.5]), unlikely) == pytest.approx([500 - math.log(2)])


def test_items_of_fewer_options_keep_their_own_distribution() -> None:
    first, second = logs([0.5, 0.5], [0.2, 0.3, 0.5]), logs([0.25, 0.75], [0.2, 0.3, 0.5])
    assert kl_divergence(first, second) == pytest.approx([math.log(2 / math.sqrt(3)), 0])


def test_options_and_the_rest_bound_the_divergence_of_the_whole_distribution_from_below() -> None:
    draw = np.random.default_rng(3)
    for _ in range(50):
        whole = [np.log(draw.dirichlet(np.full(40, 0.3), size=20)) for _ in range(2)]
        full = kl_divergence(*whole)
        options = [with_remainder(logprobs[:, :4]) for logprobs in whole]
        assert options[0] is not None
        assert options[1] is not None
        of_options = kl_divergence(options[0], options[1])
        assert (of_options <= full + 1e-9).all()
        assert (of_options > 0).all()
    assert of_options.mean() > 0.05 * full.mean()


def test_the_rest_is_what_the_options_leave() -> None:
    logprobs = with_remainder(logs([0.1, 0.4], [0.5, 0.25]))
    assert logprobs is not None
    assert np.exp(logprobs) == pytest.approx(np.array([[0.1, 0.4, 0.5], [0.5, 0.25, 0.25]]))


@pytest.mark.parametrize("total", [1.0, 1 + 1e-7, 1.005, 1 - 1e-9])
def test_a_rest_of_rounding_alone_is_no_divergence(total: float) -> None:
    """The mass outside is never negative, and never so small that its logarithm decides."""
    rounded, exact = with_remainder(logs([0.6 * total, 0.4 * total])), with_remainder(logs([0.6, 0.4]))
    assert rounded is not None
    assert exact is not None
    assert np.exp(rounded).sum() == pytest.approx(1)
    assert np.exp(rounded)[0, 2] == pytest.approx(MIN_REMAINDER, rel=0.01)
    assert kl_divergence(rounded, exact) == pytest.approx([0], abs=1e-7)


def test_log_probabilities_of_more_than_1_together_are_of_no_such_distribution() -> None:
    assert with_remainder(logprob_matrix([[-0.1, -0.2]])) is None
