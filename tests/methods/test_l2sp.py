"""L2-SP: the gradient of the quadratic, nothing at the start, and less drift."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forgetbench.methods.base import Method
from forgetbench.methods.l2sp import L2SP
from tests.support.families import llava
from tests.support.runs import all_same_bits, plan, same_bits, snapshot, trainee_of, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def test_pull_is_the_gradient_of_half_alpha_times_the_squared_distance() -> None:
    torch.manual_seed(0)
    start, moved, task = (torch.randn(5, 3) for _ in range(3))
    context = trainee_of({"w": start})
    method = L2SP(alpha=0.3)
    method.begin(context)
    weight = context.trainable["w"]
    weight.data.copy_(moved)
    weight.grad = task.clone()
    method.edit_gradients(context)
    exact = moved.double().requires_grad_()
    (0.15 * (exact - start.double()).square().sum()).backward()
    assert (weight.grad - task.double() - exact.grad).abs().max() < 1e-6


def test_no_bit_of_a_gradient_changes_at_the_start() -> None:
    context = trainee_of({"w": torch.randn(50), "unused": torch.randn(3)})
    method = L2SP(alpha=7.0)
    method.begin(context)
    task = torch.randn(50)
    context.trainable["w"].grad = task.clone()
    method.edit_gradients(context)
    assert same_bits(context.trainable["w"].grad, task)
    assert context.trainable["unused"].grad is None


def test_a_moved_tensor_is_pulled_in_a_step_that_does_not_reach_it() -> None:
    context = trainee_of({"w": torch.zeros(2)})
    method = L2SP(alpha=0.5)
    method.begin(context)
    context.trainable["w"].data.copy_(torch.tensor([2.0, 0.0]))
    method.edit_gradients(context)
    assert context.trainable["w"].grad.tolist() == [1.0, 0.0]


def test_a_stronger_pull_leaves_the_weights_nearer_and_none_is_plain_training(folder: Path) -> None:
    ends, distances = [], []
    for method in (Method(), L2SP(alpha=0.0), L2SP(alpha=0.1), L2SP(alpha=1.0)):
        subject = trainer(folder, method)
        start = snapshot(subject)
        list(subject.run(plan(8)))
        ends.append(snapshot(subject))
        distances.append(sum(float((ends[-1][name] - start[name]).square().sum()) for name in start))
    assert all_same_bits(ends[0], ends[1])
    assert distances[1] > 1.1 * distances[2] > 1.1 * distances[3] > 0


def test_a_pull_away_from_the_start_is_refused() -> None:
    assert "alpha" in L2SP(alpha=-1.0).problems()
    assert not L2SP().problems()
