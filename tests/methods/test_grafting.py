"""Grafting: the mask's slope against autograd, and that learning mends the basis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch
from forgetbench.methods.grafting import Grafting
from forgetbench.methods.operation import Trained
from tests.support.tuned import tuned_llava


class Regression:
    """Squared error of a module, on one micro-batch or several, the same at every step."""

    seed = 0

    def __init__(self, model: nn.Module, x_ND: Tensor, y_NO: Tensor, micro_batches: int = 1) -> None:
        self._model = model
        pairs = zip(x_ND.chunk(micro_batches), y_NO.chunk(micro_batches), strict=True)
        self._batches = [Batch({"x": x}, y, (), (), len(y) / len(y_NO), len(y_NO)) for x, y in pairs]

    def upcoming(self, steps: int) -> Iterator[Sequence[Batch]]:
        return (self._batches for _ in range(steps))

    def forward(self, batch: Batch) -> Tensor:
        return self._model(batch.inputs["x"])

    def loss(self, batch: Batch, outputs: Tensor) -> Tensor:
        return ((outputs - batch.labels) ** 2).sum()


def regression(model: nn.Module, tuned: Mapping[str, Tensor], x: Tensor, y: Tensor, micro_batches: int = 1) -> Trained:
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if name in tuned}
    passes: Any = Regression(model, x, y, micro_batches)
    return Trained(model, base, tuned, (), {}, passes)


def network(micro_batches: int = 1) -> Trained:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    tuned = {
        name: parameter.detach() + torch.randn_like(parameter)
        for name, parameter in model.named_parameters()
        if name != "0.bias"
    }
    x_ND = torch.randn(10, 4).double()
    return regression(model, tuned, x_ND, functional_call(model, tuned, (x_ND,)).detach(), micro_batches)


def by_autograd(
    trained: Trained, density: float, updates: int, lr: float, start: float, l1: float
) -> dict[str, Tensor]:
    """Gamma after gradient descent on S, with the gradient from autograd through the whole formula."""
    base, d = trained.base, {name: w - trained.base[name] for name, w in trained.tuned.items()}
    ranked = torch.cat([tensor.abs().flatten() for tensor in d.values()]).sort(descending=True).values
    basis = {name: (tensor.abs() >= ranked[round(density * len(ranked)) - 1]).double() for name, tensor in d.items()}
    logits = {name: torch.full_like(tensor, start).requires_grad_(True) for name, tensor in d.items()}

    def gammas() -> dict[str, Tensor]:
        return {
            name: basis[name] * (1 - torch.sigmoid(s)) + (1 - basis[name]) * torch.sigmoid(s)
            for name, s in logits.items()
        }

    (batch,) = next(trained.passes.upcoming(1))
    for _ in range(updates):
        gamma = gammas()
        weights = {name: base[name] + gamma[name] * d[name] for name in d}
        outputs = functional_call(trained.model, weights, (batch.inputs["x"],))
        loss = ((outputs - batch.labels) ** 2).sum() / batch.answers + l1 * sum(
            tensor.sum() for tensor in gamma.values()
        )
        slopes = torch.autograd.grad(loss, list(logits.values()))
        with torch.no_grad():
            for s, slope in zip(logits.values(), slopes, strict=True):
                s.sub_(lr * slope)
    return {name: tensor.detach() for name, tensor in gammas().items()}


@pytest.mark.parametrize("micro_batches", [1, 5])
def test_the_mask_descends_as_autograd_says(micro_batches: int) -> None:
    settings: dict[str, Any] = {"density": 0.3, "updates": 4, "lr": 3.0, "start": -1.0, "l1": 0.02}
    expected = by_autograd(network(), **settings)
    gammas = Grafting(**settings).learn_gamma(network(micro_batches))
    assert gammas.keys() == expected.keys()
    for name in gammas:
        torch.testing.assert_close(gammas[name], expected[name], rtol=1e-10, atol=1e-12)
    # Some entries entered and others left, so the path was not a straight one.
    before, after = (
        torch.cat([gamma.flatten() > 0.5 for gamma in Grafting(**(settings | more)).learn_gamma(network()).values()])
        for more in ({"updates": 0}, {})
    )
    assert (after & ~before).any()
    assert (before & ~after).any()


def hurtful() -> Trained:
    """Of four weights, the largest change hurts and the second and third help; the fourth did not change."""
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    x_ND = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y_NO = x_ND @ torch.tensor([[0.0, 1.0, -0.5, 0.0]]).T
    return regression(model, {"weight": torch.tensor([[3.0, 1.0, -0.5, 0.0]])}, x_ND, y_NO)


def grafted(method: Grafting, trained: Trained) -> dict[str, Tensor]:
    ((setting, tensors),) = method.variants(trained)
    assert setting == ""
    return dict(tensors)


def test_learning_drops_a_basis_entry_that_hurts_and_adds_what_helps() -> None:
    method = Grafting(density=0.25, updates=200, lr=5.0, start=-4.0)
    assert grafted(Grafting(density=0.25, updates=0), hurtful())["weight"].tolist() == [[3.0, 0.0, 0.0, 0.0]]
    assert grafted(method, hurtful())["weight"].tolist() == [[0.0, 1.0, -0.5, 0.0]]


def test_l1_leaves_out_what_helps_little() -> None:
    method = Grafting(density=0.25, updates=200, lr=5.0, start=-4.0, l1=0.4)
    assert grafted(method, hurtful())["weight"].tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_a_loss_that_is_not_finite_is_named() -> None:
    trained = hurtful()
    next(trained.passes.upcoming(1))[0].labels[0] = float("nan")
    with pytest.raises(UserError, match="loss is nan at step 1"):
        grafted(Grafting(density=0.5), trained)


@pytest.mark.parametrize(
    ("field", "value"),
    [("density", 0.0), ("updates", -1), ("lr", 0.0), ("start", 0.0), ("l1", -1.0), ("density", float("nan"))],
)
def test_settings_without_meaning_are_refused(field: str, value: float) -> None:
    assert list(Grafting(**{field: value}).problems()) == [field]
    assert not Grafting().problems()


def target_loss(trained: Trained, weights: Mapping[str, Tensor]) -> float:
    batches = [batch for step in trained.passes.upcoming(2) for batch in step]
    losses = [trained.passes.loss(batch, trained.passes.reference(batch, weights)) for batch in batches]
    return float(sum(losses)) / int(sum(batch.labels.ne(-100).sum() for batch in batches))


def test_a_learned_graft_of_a_llava_fits_the_target_better_than_as_many_of_the_largest_changes(tmp_path: Path) -> None:
    trained = tuned_llava(tmp_path / "llava", "projector", "language")
    learned = grafted(Grafting(density=0.02, updates=30, lr=1e5), trained)
    for name, w in learned.items():
        assert ((w == trained.base[name]) | (w == trained.tuned[name])).all()
    kept = sum(int((w != trained.base[name]).sum()) for name, w in learned.items())
    share = kept / sum(w.numel() for w in learned.values())
    assert 0.02 < share < 0.03
    largest = grafted(Grafting(density=share, updates=0), trained)
    assert sum(int((w != trained.base[name]).sum()) for name, w in largest.items()) == kept
    assert target_loss(trained, learned) < target_loss(trained, largest) - 1
