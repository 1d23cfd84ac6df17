"""Magnitude mask: the largest half of the starting weights never moves, whatever the optimiser does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from forgetbench.methods.base import Method
from forgetbench.methods.magnitude_mask import MagnitudeMask
from tests.support.families import llava
from tests.support.runs import all_same_bits, plan, same_bits, snapshot, trainee_of, trainer


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 5), (4, 8)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_the_largest_entries_keep_their_bits_and_have_no_gradient(shape: tuple[int, ...], share: float) -> None:
    start, task = torch.randn(shape), torch.randn(shape)
    context, method = trainee_of({"w": start}), MagnitudeMask(share=share)
    method.begin(context)
    weight = context.trainable["w"]
    weight.grad = task.clone()
    method.edit_gradients(context)
    with torch.no_grad():
        weight.mul_(0.9).sub_(weight.grad)
    stepped = weight.detach().clone()
    method.edit_weights(context)
    frozen = np.zeros(start.numel(), bool)
    frozen[np.argsort(-np.abs(start.numpy()).ravel())[: int(np.floor(share * start.numel()))]] = True
    frozen = frozen.reshape(shape)
    assert np.array_equal(weight.grad.numpy() != 0, ~frozen)
    assert np.array_equal(weight.grad.numpy()[~frozen], task.numpy()[~frozen])
    assert same_bits(weight.detach()[torch.tensor(frozen)], start[torch.tensor(frozen)])
    assert same_bits(weight.detach()[torch.tensor(~frozen)], stepped[torch.tensor(~frozen)])


def test_entries_tied_with_the_largest_free_one_are_free() -> None:
    context, method = trainee_of({"norm": torch.ones(6), "w": torch.tensor([2.0, -2.0, 2.0, 3.0])}), MagnitudeMask()
    method.begin(context)
    for weight in context.trainable.values():
        weight.grad = torch.ones_like(weight)
    method.edit_gradients(context)
    assert context.trainable["norm"].grad.tolist() == [1] * 6
    assert context.trainable["w"].grad.tolist() == [1, 1, 1, 0]


def test_frozen_entries_keep_their_bits_in_training_with_weight_decay(tmp_path: Path) -> None:
    folder = llava(tmp_path / "llava")
    subject = trainer(folder, MagnitudeMask(), weight_decay=0.1)
    start = snapshot(subject)
    norms = [report.grad_norm for report in subject.run(plan(4))]
    for name, end in snapshot(subject).items():
        if end.ndim == 1 or "embed_tokens" in name:
            continue
        size = start[name].abs()
        frozen = size > size.median()  # the lower of the two middle entries, so exactly half are larger
        assert int(frozen.sum()) == size.numel() // 2
        assert same_bits(end[frozen], start[name][frozen]), name
        assert (end[~frozen] != start[name][~frozen]).all(), name
    plain = next(trainer(folder, Method(), weight_decay=0.1).run(plan(4)))
    assert norms[0] < 0.9 * plain.grad_norm


def test_no_share_is_plain_training_and_a_whole_one_is_refused(tmp_path: Path) -> None:
    folder, ends = llava(tmp_path / "llava"), []
    for method in (Method(), MagnitudeMask(share=0.0)):
        subject = trainer(folder, method, weight_decay=0.1)
        list(subject.run(plan(3)))
        ends.append(snapshot(subject))
    assert all_same_bits(*ends)
    assert "share" in MagnitudeMask(share=1.0).problems()
    assert not MagnitudeMask().problems()
