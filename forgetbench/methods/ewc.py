"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.core.records import Sample
from forgetbench.methods.base import Method, TrainingContext
from forgetbench.methods.l2sp import add_pull

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class EWC(Method):
    """Add strength/2 sum_k sum F_k (w - w_k)^2 to the loss, F_k the diagonal empirical Fisher information at w_k.

    The terms k are the reference datasets, with the run's starting weights w_0, and every finished stage, with its
    final weights. Each F_k is measured once. F is the mean over items of the squared gradient of an item's
    log-likelihood. It is "empirical" because the answer is the item's answer; the true Fisher information would draw
    answers from the model. Items are training items, never items of an evaluation set.
    """

    name: str = "ewc"
    strength: float = 1000.0
    """lambda; 0 is plain fine-tuning."""
    samples: int = 128
    """Items drawn from all reference datasets together, and from each stage's target; all items if there are fewer."""
    reference: list[str] = field(default_factory=lambda: ["general"])
    """Datasets whose training items represent the abilities to preserve; may be empty in a run of several stages."""

    def copies(self) -> float:
        """F and the centre of each weight."""
        return 2.0

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = {}
        if self.strength < 0:
            problems["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.samples < 1:
            problems["samples"] = f"{self.samples} items measure nothing; give 1 or more."
        return problems

    def problems_of_one_stage(self) -> Mapping[str, str]:
        """No reference datasets: a single stage would have no term."""
        if self.reference:
            return {}
        return {
            "reference": "empty, and there is one stage, so nothing is held; name sets, such as [general], or train "
            "several (data=[fashion_naming,digits_naming])."
        }

    def reads(self) -> Sequence[str]:
        """The reference datasets."""
        return self.reference

    def against_sharding(self) -> str:
        """F needs the gradients of single items."""
        return "the Fisher information takes gradients of single items, outside of the processes' common step"

    def begin(self, context: TrainingContext) -> None:
        """Measure F on the reference datasets; two tensors per weight are kept, for any number of terms.

        A resumed run measures F again, with the same starting weights and items, and so with the same bits.

        Raises:
            UserError: there is no term: the reference datasets have no items, and there is a single stage.
        """
        self._fisher: dict[str, Tensor] = {}
        self._centre: dict[str, Tensor] = {}
        items = [sample for name in self.reference for sample in context.read[name]]
        if items:
            self._consolidate(context, items)
        elif len(context.targets) < 2:
            raise UserError(f"method.reference={self.reference}: no training items; name sets that have some.")

    def begin_stage(self, context: TrainingContext) -> None:
        """Measure F on the previous stage's target, at that stage's final weights."""
        if context.stage > 1:
            self._consolidate(context, context.targets[context.stage - 2])

    def edit_gradients(self, context: TrainingContext) -> None:
        """Add strength sum_k F_k (w - w_k), the penalty's exact gradient."""
        for name in self._fisher.keys() & context.trainable.keys():
            add_pull(context.trainable[name], self._centre[name], self.strength, self._fisher[name])

    def state(self) -> dict[str, Tensor]:
        """F and the centre of each weight."""
        return {
            f"{kind}/{name}": tensor
            for kind, tensors in self._state_tensors().items()
            for name, tensor in tensors.items()
        }

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Restore F and the centres."""
        device = next(iter(context.trainable.values())).device
        for kind, tensors in self._state_tensors().items():
            tensors.clear()
            stored = ((name, tensor) for name, tensor in state.items() if name.startswith(f"{kind}/"))
            tensors |= {name.removeprefix(f"{kind}/"): tensor.to(device) for name, tensor in stored}

    def _state_tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"fisher": self._fisher, "centre": self._centre}

    def _consolidate(self, context: TrainingContext, items: Sequence[Sample]) -> None:
        """Add a term at the current weights.

        Two quadratic terms merge into one: F_1 (w - w_1) + F_2 (w - w_2) = F (w - c) with F = F_1 + F_2 and
        c = w_1 + F_2 / F (w_2 - w_1).
        """
        import torch

        drawn_items = Random(context.passes.seed).sample(list(items), min(self.samples, len(items)))
        for name, new_fisher in fisher(context, drawn_items).items():
            weight = context.trainable[name].detach()
            if name not in self._fisher:
                self._fisher[name], self._centre[name] = new_fisher, weight.clone()
                continue
            self._fisher[name] += new_fisher
            share = torch.where(self._fisher[name] > 0, new_fisher / self._fisher[name], 0.0)
            self._centre[name].lerp_(weight, share)


def fisher(context: TrainingContext, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Mean over items of the squared gradient of log p(answer | item), summed over the answer's tokens, by name.

    Each item has a backward pass, without dropout; items are split over the processes.
    """
    import torch

    names, weights = zip(*context.trainable.items(), strict=True)
    totals = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
    training = context.model.training
    context.model.eval()
    for sample in context.passes.local_share(samples):
        batch = context.passes.batch([sample])
        loss = context.passes.loss(batch, context.passes.forward(batch))
        if not loss.requires_grad:  # an item without a picture if only the vision tower trains
            continue
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=1 / len(samples))
    context.model.train(training)
    return {name: context.passes.total(total) for name, total in zip(names, totals, strict=True)}
