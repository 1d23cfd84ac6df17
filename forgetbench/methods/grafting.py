"""Grafting (Panigrahi et al. 2023, arXiv:2302.06600): keep the few changed entries that the target loss needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch, Passes
from forgetbench.methods.operation import Operation, Trained
from forgetbench.methods.ties import changes_of, smallest_kept

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Grafting(Operation):
    """w0 + m d with d = w - w0 and a sparse binary mask m, learned on the run's own training data.

    The paper's: the basis b marks the entries with the largest |d| over all changed tensors; gamma = b (1 - sigmoid(S))
    + (1 - b) sigmoid(S) stands in for m; gradient descent on S lowers the loss at w0 + gamma d; at the end gamma is
    rounded. S starts low, where gamma is almost b, so m is b but for the entries that descent carried past 0.

    The authors' code takes full-batch steps on a few hundred items, starts S at random in [-10, -9] and returns the
    rounded mask that had the best training and validation accuracy on the way. Our choices, which read training data
    only: a step on each of the run's first batches, one start for all, the last mask, an optional l1 term, and no
    dropout.
    """

    name: str = "grafting"
    density: float = 1e-4
    """Share of the changed tensors' entries in the basis, about 0.01 % in the paper; learning may add to it."""
    updates: int = 100
    """Steps of descent, at most as many as the run had; 0 keeps the basis."""
    lr: float = 1e7
    """Of the authors' script: the slope of S holds d and sigmoid'(S), both small. Where d is large many entries enter
    the mask; a lower rate or `l1` lets in fewer."""
    start: float = -10.0
    """S before the first step."""
    l1: float = 0.0
    """Added to the loss: this times the sum of gamma."""

    def problems(self) -> Mapping[str, str]:
        """Settings without meaning."""
        found = {}
        if not 0 < self.density <= 1:
            found["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if self.updates < 0:
            found["updates"] = f"{self.updates} is negative; give 0 to keep the largest changes as they are."
        if not self.lr > 0:
            found["lr"] = f"{self.lr} is not positive; the authors used 1e7."
        if not self.start < 0:
            found["start"] = f"{self.start} is not below 0, so that the mask would not start from the largest changes."
        if not self.l1 >= 0:
            found["l1"] = f"{self.l1} is negative; give 0 or more."
        return found

    def reads_data(self) -> bool:
        """On the run's training data."""
        return True

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The grafted model."""
        import torch

        masks = {name: gamma > 0.5 for name, gamma in self.learned(trained).items()}
        yield "", {name: torch.where(masks[name], w, trained.base[name]) for name, w in trained.tuned.items()}

    def learned(self, trained: Trained) -> dict[str, Tensor]:
        """Gamma of every changed tensor, learned in place on the model's own parameters.

        Raises:
            UserError: the loss is not finite.
        """
        import torch

        base, tuned, live = trained.base, trained.tuned, dict(trained.model.named_parameters())
        trained.model.eval().requires_grad_(False)
        for name in tuned:
            live[name].requires_grad_(True)
        basis = self._basis(trained)
        logits = {name: torch.full_like(w, self.start) for name, w in tuned.items()}
        for step, batches in enumerate(trained.passes.upcoming(self.updates), start=1):
            with torch.no_grad():
                for name, w in tuned.items():
                    live[name].copy_(torch.lerp(base[name], w, gamma_of(basis[name], logits[name])))
            loss = _backward(trained.passes, batches)
            if not isfinite(loss):
                raise UserError(f"method=grafting: the loss is {loss} at step {step}; lower method.lr.")
            for name, w in tuned.items():
                if (gradient := live[name].grad) is not None:
                    slope = slope_of(gradient * (w - base[name]) + self.l1, basis[name], logits[name])
                    logits[name] -= self.lr * slope
                live[name].grad = None
        return {name: gamma_of(basis[name], logits[name]) for name in tuned}

    def _basis(self, trained: Trained) -> dict[str, Tensor]:
        """The entries that changed most; an entry that did not change is never one of them."""
        base, tuned = trained.base, trained.tuned
        threshold = smallest_kept([*changes_of(base, tuned).values()], self.density)
        return {name: ((w - base[name]).abs() >= threshold) & (w != base[name]) for name, w in tuned.items()}


def _backward(passes: Passes, batches: Sequence[Batch]) -> float:
    """Add up the gradients of the mean loss per answer token of one step."""
    import torch

    loss = 0.0
    for batch in batches:
        share = passes.loss(batch, passes.forward(batch)) / batch.answers
        if share.requires_grad:  # a text alone may meet nothing that was trained
            torch.autograd.backward(share)
        loss += float(share.detach())
    return loss


def gamma_of(basis: Tensor, logits: Tensor) -> Tensor:
    """Gamma = b (1 - sigmoid(S)) + (1 - b) sigmoid(S), entry by entry."""
    import torch

    share = torch.sigmoid(logits)
    return torch.where(basis, 1 - share, share)


def slope_of(gradient: Tensor, basis: Tensor, logits: Tensor) -> Tensor:
    """The derivative with respect to S, given that with respect to gamma; entry by entry."""
    import torch

    share = torch.sigmoid(logits)
    return gradient * share * (1 - share) * torch.where(basis, -1.0, 1.0)
