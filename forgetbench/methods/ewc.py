"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from forgetbench.errors import UserError
from forgetbench.methods.base import Method, Trainee
from forgetbench.methods.l2sp import add_pull
from forgetbench.records import Sample

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class EWC(Method):
    """Add strength/2 sum F (w - w0)^2 to the loss, F the diagonal empirical Fisher information at w0.

    F is the mean over reference items of the squared gradient of one item's log-likelihood. "Empirical": the answer
    is the reference's own, where the true Fisher information would draw it from the model. References are training
    items, never items of an evaluation set. F and w0 are those of the run's start in every stage.
    """

    name: str = "ewc"
    strength: float = 1000.0
    """lambda; 0 is plain fine-tuning."""
    samples: int = 128
    """Reference items drawn from all reference sets together; all of them if there are fewer."""
    reference: list[str] = field(default_factory=lambda: ["general"])
    """Sets whose training items stand for what must not be forgotten."""

    def problems(self) -> Mapping[str, str]:
        """Settings that measure or hold nothing."""
        found = {}
        if self.strength < 0:
            found["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.samples < 1:
            found["samples"] = f"{self.samples} items measure nothing; give 1 or more."
        if not self.reference:
            found["reference"] = "empty; name sets whose items must not be forgotten, such as [general]."
        return found

    def reads(self) -> Sequence[str]:
        """The reference sets."""
        return self.reference

    def begin(self, trainee: Trainee) -> None:
        """Keep w0 and measure F: two tensors per weight.

        A resumed run measures F anew: the starting weights, the items and so the bits are the same.

        Raises:
            UserError: the reference sets hold no items.
        """
        self._start = {name: weight.detach().clone() for name, weight in trainee.trainable.items()}
        items = [sample for name in self.reference for sample in trainee.read[name]]
        if not items:
            raise UserError(f"method.reference={self.reference}: no training items; name sets that have some.")
        self._fisher = fisher(trainee, Random(trainee.passes.seed).sample(items, min(self.samples, len(items))))

    def edit_gradients(self, trainee: Trainee) -> None:
        """Add strength F (w - w0), the penalty's exact gradient."""
        for name, weight in trainee.trainable.items():
            add_pull(weight, self._start[name], self.strength, self._fisher[name])


def fisher(trainee: Trainee, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Mean over items of the squared gradient of log p(answer | item), summed over the answer's tokens, by live name.

    One item per backward pass and without dropout; the items are split over the processes.
    """
    import torch

    names, weights = zip(*trainee.trainable.items(), strict=True)
    found = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
    training = trainee.model.training
    trainee.model.eval()
    for sample in trainee.passes.own(samples):
        batch = trainee.passes.batch([sample])
        loss = trainee.passes.loss(batch, trainee.passes.forward(batch))
        if not loss.requires_grad:  # a text where only the vision tower trains
            continue
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for total, gradient in zip(found, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=1 / len(samples))
    trainee.model.train(training)
    return {name: trainee.passes.total(total) for name, total in zip(names, found, strict=True)}
