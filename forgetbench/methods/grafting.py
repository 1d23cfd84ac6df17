"""Grafting (Panigrahi et al. 2023, arXiv:2302.06600): keep the few changed entries that the target loss needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch, Passes
from forgetbench.methods.operation import Operation, Trained
from forgetbench.methods.ties import changes_of, magnitude_threshold

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Grafting(Operation):
    """w0 + m d with d = w - w0 and a sparse binary mask m, learned on the run's training data.

    As in the paper, the basis b marks the entries with the largest |d| over all changed tensors, and
    gamma = b (1 - sigmoid(S)) + (1 - b) sigmoid(S) replaces m during learning. Gradient descent on S lowers the loss at
    w0 + gamma d; at the end gamma is rounded. S starts low, so that gamma is almost b; m then differs from b only in
    the entries whose S rose above 0.

    The authors' code takes full-batch steps on a few hundred items, starts S at random in [-10, -9] and returns the
    rounded mask with the best training and validation accuracy during learning. Our choices read training data only: a
    step on each of the run's first batches, the same start for all entries, the last mask, an optional l1 term, and no
    dropout.
    """

    name: str = "grafting"
    density: float = 1e-4
    """Share of the changed tensors' entries in the basis, about 0.01 % in the paper; learning may add entries."""
    updates: int = 100
    """Steps of descent, at most as many as the run had; 0 keeps the basis."""
    lr: float = 1e7
    """Value of the authors' script, high because the gradient of S has the small factors d and sigmoid'(S). With large
    d many entries enter the mask; a lower rate or `l1` admits fewer."""
    start: float = -10.0
    """S before the first step."""
    l1: float = 0.0
    """Weight of the sum of gamma in the loss."""

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = {}
        if not 0 < self.density <= 1:
            problems["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if self.updates < 0:
            problems["updates"] = f"{self.updates} is negative; give 0 to keep the largest changes as they are."
        if not self.lr > 0:
            problems["lr"] = f"{self.lr} is not positive; the authors used 1e7."
        if not self.start < 0:
            problems["start"] = (
                f"{self.start} is not below 0, so that the mask would not start from the largest changes."
            )
        if not self.l1 >= 0:
            problems["l1"] = f"{self.l1} is negative; give 0 or more."
        return problems

    def reads_data(self) -> bool:
        """Yes: it learns on the run's training data."""
        return True

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The grafted model."""
        import torch

        masks = {name: gamma > 0.5 for name, gamma in self.learn_gamma(trained).items()}
        yield "", {name: torch.where(masks[name], w, trained.base[name]) for name, w in trained.tuned.items()}

    def learn_gamma(self, trained: Trained) -> dict[str, Tensor]:
        """Learn gamma of every changed tensor; the model's parameters are overwritten.

        Raises:
            UserError: the loss is not finite.
        """
        import torch

        base, tuned, parameters = trained.base, trained.tuned, dict(trained.model.named_parameters())
        trained.model.eval().requires_grad_(False)
        for name in tuned:
            parameters[name].requires_grad_(True)
        basis = self._basis(trained)
        logits = {name: torch.full_like(w, self.start) for name, w in tuned.items()}
        for step, batches in enumerate(trained.passes.upcoming(self.updates), start=1):
            with torch.no_grad():
                for name, w in tuned.items():
                    parameters[name].copy_(torch.lerp(base[name], w, gamma_of(basis[name], logits[name])))
            loss = _backward(trained.passes, batches)
            if not isfinite(loss):
                raise UserError(f"method=grafting: the loss is {loss} at step {step}; lower method.lr.")
            for name, w in tuned.items():
                if (gradient := parameters[name].grad) is not None:
                    slope = slope_of(gradient * (w - base[name]) + self.l1, basis[name], logits[name])
                    logits[name] -= self.lr * slope
                parameters[name].grad = None
        return {name: gamma_of(basis[name], logits[name]) for name in tuned}

    def _basis(self, trained: Trained) -> dict[str, Tensor]:
        """The entries that changed most; never includes unchanged entries."""
        base, tuned = trained.base, trained.tuned
        threshold = magnitude_threshold([*changes_of(base, tuned).values()], self.density)
        return {name: ((w - base[name]).abs() >= threshold) & (w != base[name]) for name, w in tuned.items()}


def _backward(passes: Passes, batches: Sequence[Batch]) -> float:
    """Accumulate the gradients of a step's mean loss per answer token."""
    import torch

    loss = 0.0
    for batch in batches:
        share = passes.loss(batch, passes.forward(batch)) / batch.answers
        if share.requires_grad:  # an item without a picture may not use any trained parameter
            torch.autograd.backward(share)
        loss += float(share.detach())
    return loss


def gamma_of(basis: Tensor, logits: Tensor) -> Tensor:
    """Gamma = b (1 - sigmoid(S)) + (1 - b) sigmoid(S), elementwise."""
    import torch

    share = torch.sigmoid(logits)
    return torch.where(basis, 1 - share, share)


def slope_of(gradient: Tensor, basis: Tensor, logits: Tensor) -> Tensor:
    """The derivative with respect to S, from the derivative with respect to gamma; elementwise."""
    import torch

    share = torch.sigmoid(logits)
    return gradient * share * (1 - share) * torch.where(basis, -1.0, 1.0)
