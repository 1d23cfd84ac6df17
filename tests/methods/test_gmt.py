"""GMT: exactly the smallest entries of every step's gradient, ties and odd sizes among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetbench.methods.base import Method
from forgetbench.methods.gmt import GMT, nth_smallest
from tests.support.families import llava
from tests.support.runs import all_same_bits, plan, snapshot, trainee_of, trainer


def masked(gradient: Tensor, share: float = 0.5) -> Tensor:
    context = trainee_of({"w": torch.zeros_like(gradient)})
    context.trainable["w"].grad = gradient.clone()
    GMT(share=share).edit_gradients(context)
    return context.trainable["w"].grad


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 5), (4, 8), (2, 3, 3)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_the_smallest_entries_are_dropped_and_the_others_keep_their_bits(shape: tuple[int, ...], share: float) -> None:
    gradient = torch.randn(shape)
    order = np.argsort(np.abs(gradient.numpy()).ravel())
    expected = gradient.numpy().copy().ravel()
    expected[order[: int(np.floor(share * gradient.numel()))]] = 0
    assert np.array_equal(masked(gradient, share).numpy().ravel(), expected)


def test_entries_tied_with_the_smallest_kept_one_stay() -> None:
    assert masked(torch.tensor([1.0, -2.0, 2.0, 2.0, 3.0, 0.5])).tolist() == [0, -2, 2, 2, 3, 0]
    assert masked(torch.full((4, 4), -0.1)).eq(-0.1).all()
    assert masked(torch.zeros(5)).eq(0).all()
    # The rows of tokens that a batch does not show, in the gradient of the embeddings.
    assert masked(torch.tensor([0.0, 0, 0, 0, 1e-9, -1])).tolist() == torch.tensor([0.0, 0, 0, 0, 1e-9, -1]).tolist()


def test_a_transposed_gradient_is_masked_where_it_lies() -> None:
    gradient = torch.randn(6, 4)
    assert torch.equal(masked(gradient.T), masked(gradient.T.contiguous()))


def test_nth_smallest_counts_from_zero() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    assert [nth_smallest(values, n) for n in range(4)] == [1, 1, 2, 3]


def test_the_first_step_moves_half_of_every_tensor_and_later_ones_choose_anew(tmp_path: Path) -> None:
    subject = trainer(llava(tmp_path / "llava"), GMT(), parts=["projector", "language"])
    start = snapshot(subject)
    steps = subject.run(plan(3))
    next(steps)
    moved = {name: (value != start[name]) for name, value in snapshot(subject).items()}
    for name, value in moved.items():
        if "embed_tokens" not in name:  # mostly tokens that were not shown
            assert int(value.sum()) == value.numel() - value.numel() // 2, name
    list(steps)
    # Momentum still moves the first half, and the second half has been reached too.
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    now = snapshot(subject)[name] != start[name]
    assert (now | ~moved[name]).all()
    assert int(now.sum()) > int(moved[name].sum())


def test_no_share_is_plain_training_and_a_whole_one_is_refused(tmp_path: Path) -> None:
    folder, ends = llava(tmp_path / "llava"), []
    for method in (Method(), GMT(share=0.0)):
        subject = trainer(folder, method)
        list(subject.run(plan(3)))
        ends.append(snapshot(subject))
    assert all_same_bits(*ends)
    assert "share" in GMT(share=1.0).problems()
    assert "share" in GMT(share=-0.1).problems()
    assert not GMT().problems()
