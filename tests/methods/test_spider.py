"""SPIDER: several steps against NumPy in float64, the special cases of N, and which weights may have moved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.methods.base import TrainingContext
from forgetbench.methods.spider import Spider, normalised
from tests.support.families import llava
from tests.support.runs import plan, same_bits, snapshot, trainee_of, trainer

SHAPES = {"matrix": (6, 5), "long": (40, 3), "bias": (7,), "norm": (4,), "zero": (5,), "scalar": (1,)}


def n_of(values: Any) -> Any:
    size = np.abs(np.asarray(values, dtype=np.float64))
    if not size.any():
        return np.zeros_like(size)
    if size.size == 1 or np.ptp(size) == 0:
        return np.full_like(size, 0.5)
    return 1 / (1 + np.exp(-(size - size.mean()) / size.std(ddof=1)))


def m_of(importance: Any, gradients: Any) -> Any:
    learned = n_of(gradients)
    chosen = importance < learned
    mask = np.where(chosen, learned / np.where(chosen, importance + learned, 1), 0)
    return np.minimum(1, mask / mask[chosen].mean()) if chosen.any() else mask


class AdamW:
    """One tensor's optimiser, in float64."""

    def __init__(self, decay: float) -> None:
        self.decay, self.first, self.second, self.steps = decay, 0.0, 0.0, 0

    def step(self, weight: Any, gradient: Any, lr: float) -> Any:
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        denominator = np.sqrt(self.second / (1 - 0.999**self.steps)) + 1e-8
        return weight * (1 - lr * self.decay) - lr * self.first / (1 - 0.9**self.steps) / denominator


def starting() -> dict[str, Tensor]:
    torch.manual_seed(0)
    values = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    values["norm"] = torch.ones(4)
    values["zero"] = torch.zeros(5)
    return values


def test_steps_agree_with_numpy_in_float64() -> None:
    context, method, lr = trainee_of(starting()), Spider(), 0.05
    method.begin(context)
    optimiser = torch.optim.AdamW(context.trainable.values(), lr=lr, weight_decay=0.1)
    start = {name: weight.detach().double().numpy().copy() for name, weight in context.trainable.items()}
    weights, sums = dict(start), {name: np.zeros(value.shape) for name, value in start.items()}
    importance = {name: n_of(value) for name, value in start.items()}
    by_hand = {name: AdamW(0.1) for name in start}
    moved: set[str] = set()
    for step in range(6):
        for name, weight in context.trainable.items():
            reached = not (name == "bias" and step == 2)
            weight.grad = torch.randn(weight.shape) if reached else None
            if name == "long" and step == 0:
                weight.grad = torch.zeros(weight.shape)  # reached, but nothing to learn
            if not reached:
                continue
            gradient = weight.grad.double().numpy()
            stepped = by_hand[name].step(weights[name], gradient, lr)
            sums[name] += gradient
            mask = m_of(importance[name], sums[name])
            weights[name] = (1 - mask) * start[name] + mask * stepped
        optimiser.step()
        method.edit_weights(context)
        for name, weight in context.trainable.items():
            difference = np.abs(weight.detach().double().numpy() - weights[name]).max()
            assert difference < 2e-5, (step, name)
            moved |= {name} if (weights[name] != start[name]).any() else set()
    # One entry against one entry: 1/2 is not above 1/2.
    assert moved == set(SHAPES) - {"scalar"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, -0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.1] * 1000, [0.5] * 1000),
        ([0.3, -0.3, 0.3], [0.5] * 3),
        ([-7.0], [0.5]),
        ([0.0], [0.0]),
        # |a| = 1, 2, 3: mean 2, unbiased deviation 1.
        ([1.0, -2.0, 3.0], [1 / (1 + math.e), 0.5, math.e / (1 + math.e)]),
        ([1e-25, -2e-25, 3e-25], [1 / (1 + math.e), 0.5, math.e / (1 + math.e)]),
        ([0.0, 0.0, 0.0, 4.0], [1 / (1 + math.exp(0.5))] * 3 + [1 / (1 + math.exp(-1.5))]),
    ],
)
def test_normalisation_and_its_special_cases(values: list[float], expected: list[float]) -> None:
    a = torch.tensor(values)
    before = a.clone()
    assert normalised(a).tolist() == pytest.approx(expected, rel=1e-5)
    assert same_bits(a, before)


def test_normalisation_of_many_entries_is_as_good_as_float64() -> None:
    a = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    assert np.abs(normalised(a).numpy() - n_of(a.numpy())).max() < 1e-6


def fold(start: Tensor, stepped: Tensor, gradient: Tensor | None) -> Tensor:
    context, method = trainee_of({"w": start}), Spider()
    method.begin(context)
    weight = context.trainable["w"]
    weight.data.copy_(stepped)
    weight.grad = gradient
    method.edit_weights(context)
    return weight.detach()


def test_unselected_zeros_keep_their_sign() -> None:
    start, gradient = torch.tensor([-0.0, 0.0, -0.0, 5.0, -3.0]), torch.tensor([0.0, 0.0, 9.0, 9.0, 9.0])
    assert (m_of(n_of(start), gradient) > 0).tolist() == [False, False, True, False, True]
    for sign in (1.0, -1.0):
        end = fold(start, start + sign, gradient)
        assert same_bits(end[[0, 1, 3]], start[[0, 1, 3]])
        assert (end[[2, 4]] != start[[2, 4]]).all()


def test_a_tensor_whose_gradients_sum_to_nothing_stays_and_one_without_took_no_step() -> None:
    start = torch.randn(8)
    assert same_bits(fold(start, start + 1, torch.zeros(8)), start)
    assert torch.equal(fold(start, start + 1, None), start + 1)


def test_sums_cancel_where_gradients_change_their_sign() -> None:
    context, method = trainee_of({"w": torch.randn(6)}), Spider()
    method.begin(context)
    gradient = torch.randn(6)
    for sign in (1, -1):
        context.trainable["w"].grad = sign * gradient
        method.edit_weights(context)
    assert torch.equal(method.state()["w"], torch.zeros(6))


def test_only_entries_that_outweigh_their_importance_move_in_training(tmp_path: Path) -> None:
    """After every step, from the clipped gradients as another observer sums them."""
    method = Spider()
    subject = trainer(llava(tmp_path / "llava"), method, weight_decay=0.1)
    start = snapshot(subject)
    sums = {name: np.zeros(value.shape) for name, value in start.items()}
    importance = {name: n_of(value.numpy()) for name, value in start.items()}
    folding, stepped = method.edit_weights, {}

    def observed(context: TrainingContext) -> None:
        for name, weight in context.trainable.items():
            if weight.grad is not None:
                sums[name] += weight.grad.double().numpy()
        stepped.update(snapshot(subject))
        folding(context)

    method.edit_weights = observed  # type: ignore[method-assign]
    some_whole = some_partly = 0
    for _ in subject.run(plan(3)):
        for name, now in snapshot(subject).items():
            mask, margin = m_of(importance[name], sums[name]), n_of(sums[name]) - importance[name]
            sure = torch.tensor(np.abs(margin) > 1e-4)
            out, whole = torch.tensor(mask == 0) & sure, torch.tensor(mask == 1) & sure
            assert same_bits(now[out], start[name][out]), name
            near = (now - (1 - torch.tensor(mask)) * start[name] - torch.tensor(mask) * stepped[name]).abs()
            assert not (near[sure] > 1e-5).any(), name
            some_whole += int((now[whole] == stepped[name][whole]).sum())
            some_partly += int((sure & ~out & ~whole).sum())
    assert some_whole > 1000
    assert some_partly > 1000
    assert method.state().keys() == subject.trainable.keys()
