"""Effective rank, drift and CKA against NumPy in fp64 and against cases worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.evaluation.spectra import (
    LinearCKA,
    MeanDrift,
    MeanEffectiveRank,
    UnbiasedHSIC,
    effective_rank,
    effective_ranks,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(drawn(size, size, seed=9).double())[0]


def textbook_rank(z: Tensor) -> float:
    """Definition of Roy & Vetterli 2007, by a singular value decomposition."""
    values = np.linalg.svd(z.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    return float(np.exp(-sum(p * np.log(p) for p in shares if p > 0)))


def textbook_hsic(x: Tensor, y: Tensor) -> float:
    """Unbiased HSIC from n x n matrices (Song et al. 2012)."""
    n = len(x)
    k, l = (side.double().numpy() @ side.double().numpy().T for side in (x, y))  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    ones = np.ones(n)
    rest = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (ones @ k @ l @ ones)
    return float((np.trace(k @ l) + rest) / (n * (n - 3)))


def cka(x: Tensor, y: Tensor, sizes: Sequence[int] = ()) -> float:
    """Linear CKA, added in chunks of the given sizes."""
    running = LinearCKA()
    for x_part, y_part in zip(x.split(list(sizes) or len(x)), y.split(list(sizes) or len(y)), strict=True):
        running.add(x_part, y_part)
    assert running.value is not None
    return running.value


@pytest.mark.parametrize("rank", [1, 4, 12])
@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_equal_singular_values_count_themselves(rank: int, shape: tuple[int, int]) -> None:
    left, right = (torch.linalg.qr(drawn(size, rank, seed=size))[0] for size in shape)
    assert effective_rank(left @ right.T) == pytest.approx(rank, abs=1e-5)


def test_effective_rank_of_singular_values_3_and_1_by_hand() -> None:
    # Shares 3/4 and 1/4: exp(3/4 ln 4/3 + 1/4 ln 4) = 4 / 3^(3/4).
    z = torch.zeros(2, 5)
    z[0, 3], z[1, 0] = -3, 1
    assert effective_rank(z) == pytest.approx(4 / 3**0.75, abs=1e-12)


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (1, 5)])
def test_effective_rank_agrees_with_a_decomposition_whatever_the_scale(shape: tuple[int, int]) -> None:
    # Columns of very different size, as hidden states have them.
    z = drawn(*shape) * torch.logspace(-3, 2, shape[1])
    for scale in (1e-12, 1, 1e12):
        assert effective_rank(z * scale) == pytest.approx(textbook_rank(z), rel=1e-6)


def test_centring_removes_what_all_tokens_share() -> None:
    z = drawn(6, 20) + 1000
    assert effective_rank(z, centred=True) == pytest.approx(textbook_rank(z.double() - z.double().mean(0)), rel=1e-4)
    assert effective_rank(z) == pytest.approx(1, abs=0.1)
    assert effective_rank(torch.full((6, 20), 0.1), centred=True) is None


def test_a_matrix_of_zeros_has_no_effective_rank_and_leaves_the_mean_alone() -> None:
    assert effective_rank(torch.zeros(3, 4)) is None
    mean = MeanEffectiveRank()
    assert mean.value is None
    mean.add([torch.eye(3), torch.zeros(3, 3), torch.eye(5, 7)])
    mean.add([torch.eye(1, 7)])
    assert mean.value == pytest.approx((3 + 5 + 1) / 3)


def test_matrices_are_decomposed_one_by_one_though_together() -> None:
    stack = drawn(5, 8, 20)
    assert effective_ranks(stack).tolist() == pytest.approx([textbook_rank(matrix) for matrix in stack], rel=1e-9)


def test_drift_is_the_mean_over_tokens_then_over_pictures_by_hand() -> None:
    drift = MeanDrift()
    assert drift.value is None
    zeros = [torch.zeros(2, 3), torch.zeros(1, 3)]
    moved = [torch.tensor([[1.0, -2, 0], [0, 0, 5]]), torch.tensor([[0.5, 0.5, -1]])]
    drift.add(zeros, moved)  # first picture: (3 + 5) / 2 = 4; second: 2
    assert drift.value == pytest.approx(3)
    drift.add([torch.ones(4, 3)], [torch.ones(4, 3)])
    assert drift.value == pytest.approx(2)


@pytest.mark.parametrize("n", [4, 5, 60])
def test_cka_agrees_with_the_unbiased_formula_on_n_by_n_matrices(n: int) -> None:
    x = drawn(n, 9) + 3
    y = torch.cat([x[:, :4] ** 2, drawn(n, 3, seed=1)], 1)
    expected = textbook_hsic(x, y) / math.sqrt(textbook_hsic(x, x) * textbook_hsic(y, y))
    assert cka(x, y) == pytest.approx(expected, abs=1e-9)


def test_hsic_of_four_examples_by_hand() -> None:
    # x = y = e1 e1 0 0: the one pair that is not 0 appears twice. tr = 2, 1'K1 = 2, 1'KK1 = 2:
    # (2 + 4 / 6 - 2 / 2 * 2) / (4 * 1) = 1/6.
    x, hsic = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), UnbiasedHSIC()
    hsic.add(x, x)
    assert hsic.value == pytest.approx(1 / 6, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_shifting_rotating_and_scaling_features_leaves_cka_alone(offset: float) -> None:
    x = drawn(30, 8).double()
    y = (x + 0.5 * drawn(30, 8, seed=1)).double()
    plain = cka(x, y)
    assert cka(x + offset * drawn(8, seed=2), y - offset) == pytest.approx(plain, abs=1e-9)
    assert cka(7 * x @ rotation(8), y) == pytest.approx(plain, abs=1e-9)
    assert cka(x, 0.1 * x @ rotation(8) + offset) == pytest.approx(1, abs=1e-9)
    assert plain < 0.95


def test_cka_of_features_with_themselves_is_one_and_of_unrelated_ones_nil_on_average() -> None:
    x = drawn(20, 50)
    assert cka(x, x) == 1
    values = [cka(drawn(20, 50, seed=2 * k), drawn(20, 50, seed=2 * k + 1)) for k in range(1, 60)]
    # The biased estimate would be near 0.7 with more features than examples.
    assert abs(float(np.mean(values))) < 4 * float(np.std(values)) / math.sqrt(len(values)) < 0.1


def test_cka_does_not_depend_on_how_examples_are_added() -> None:
    x, y = drawn(24, 6) + 50, drawn(24, 11, seed=1)
    whole = cka(x, y)
    for sizes in ([1] * 24, [5, 1, 11, 7], [23, 1]):
        assert cka(x, y, sizes) == pytest.approx(whole, abs=1e-9)


def test_too_few_and_constant_examples_have_no_cka() -> None:
    for n in range(1, 4):
        few = LinearCKA()
        few.add(drawn(n, 5), drawn(n, 5, seed=1))
        assert few.value is None
    assert LinearCKA().value is None
    constant = LinearCKA()
    constant.add(torch.full((9, 5), 0.3), drawn(9, 5))
    assert constant.value is None


def elements(thing: object) -> int:
    """Numbers that an object holds, inside its own objects too."""
    if isinstance(thing, Tensor):
        return thing.numel()
    if isinstance(thing, list | tuple):
        return sum(elements(part) for part in thing)
    return sum(elements(part) for part in vars(thing).values()) if hasattr(thing, "__dict__") else 1


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    held = []
    running = (MeanEffectiveRank(), MeanDrift(), LinearCKA())
    for _ in range(3):
        x, y = drawn(100, 6), drawn(100, 6, seed=1)
        running[0].add(list(x[:, None]))
        running[1].add(list(x[:, None]), list(y[:, None]))
        running[2].add(x, y)
        held.append(elements(running))
    assert held[0] == held[1] == held[2] < 3 * (6 * 6 + 10 * 6) + 40
