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

    The terms k are the reference sets, with w_0 the run's starting weights, and every stage that is over, with the
    weights that it ended at: each is measured once, and held from then on. F is the mean over items of the squared
    gradient of one item's log-likelihood. "Empirical": the answer is the item's own, where the true Fisher information
    would draw it from the model. Items are training items, never those of an evaluation set.
    """

    name: str = "ewc"
    strength: float = 1000.0
    """lambda; 0 is plain fine-tuning."""
    samples: int = 128
    """Items drawn from all reference sets together, and from the target set of each stage; all if there are fewer."""
    reference: list[str] = field(default_factory=lambda: ["general"])
    """Sets whose training items stand for what must not be forgotten from before the run; in a run of several stages
    there may be none."""

    def copies(self) -> float:
        """How firmly each weight is held, and where."""
        return 2.0

    def problems(self) -> Mapping[str, str]:
        """Settings that measure or hold nothing."""
        found = {}
        if self.strength < 0:
            found["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.samples < 1:
            found["samples"] = f"{self.samples} items measure nothing; give 1 or more."
        return found

    def problems_of_one_stage(self) -> Mapping[str, str]:
        """Without reference sets, a first stage has nothing to hold."""
        if self.reference:
            return {}
        return {
            "reference": "empty, and there is one stage, so nothing is held; name sets, such as [general], or train "
            "several (data=[fashion_naming,digits_naming])."
        }

    def reads(self) -> Sequence[str]:
        """The reference sets."""
        return self.reference

    def against_sharding(self) -> str:
        """F is made of one item's gradients."""
        return "the Fisher information takes gradients of single items, outside of the processes' common step"

    def begin(self, context: TrainingContext) -> None:
        """Measure F on the reference sets; two tensors per weight are kept, whatever the number of terms.

        A resumed run measures F anew: the starting weights, the items and so the bits are the same.

        Raises:
            UserError: nothing is held: the reference sets have no items, and there is one stage.
        """
        self._held: dict[str, Tensor] = {}
        self._centre: dict[str, Tensor] = {}
        items = [sample for name in self.reference for sample in context.read[name]]
        if items:
            self._consolidate(context, items)
        elif len(context.targets) < 2:
            raise UserError(f"method.reference={self.reference}: no training items; name sets that have some.")

    def begin_stage(self, context: TrainingContext) -> None:
        """Measure F on the stage that is over, at the weights that it ended at."""
        if context.stage > 1:
            self._consolidate(context, context.targets[context.stage - 2])

    def edit_gradients(self, context: TrainingContext) -> None:
        """Add strength sum_k F_k (w - w_k), the penalty's exact gradient."""
        for name in self._held.keys() & context.trainable.keys():
            add_pull(context.trainable[name], self._centre[name], self.strength, self._held[name])

    def state(self) -> dict[str, Tensor]:
        """What is held, and where."""
        return {f"{kind}/{name}": one for kind, kept in self._kinds().items() for name, one in kept.items()}

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Hold what was held."""
        device = next(iter(context.trainable.values())).device
        for kind, kept in self._kinds().items():
            kept.clear()
            mine = ((name, one) for name, one in state.items() if name.startswith(f"{kind}/"))
            kept |= {name.removeprefix(f"{kind}/"): one.to(device) for name, one in mine}

    def _kinds(self) -> dict[str, dict[str, Tensor]]:
        return {"fisher": self._held, "centre": self._centre}

    def _consolidate(self, context: TrainingContext, items: Sequence[Sample]) -> None:
        """Add a term at the present weights.

        Two quadratics are one: F_1 (w - w_1) + F_2 (w - w_2) = F (w - c) with F = F_1 + F_2 and
        c = w_1 + F_2 / F (w_2 - w_1).
        """
        import torch

        drawn = Random(context.passes.seed).sample(list(items), min(self.samples, len(items)))
        for name, fresh in fisher(context, drawn).items():
            weight = context.trainable[name].detach()
            if name not in self._held:
                self._held[name], self._centre[name] = fresh, weight.clone()
                continue
            self._held[name] += fresh
            share = torch.where(self._held[name] > 0, fresh / self._held[name], 0.0)
            self._centre[name].lerp_(weight, share)


def fisher(context: TrainingContext, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Mean over items of the squared gradient of log p(answer | item), summed over the answer's tokens, by live name.

    One item per backward pass and without dropout; the items are split over the processes.
    """
    import torch

    names, weights = zip(*context.trainable.items(), strict=True)
    found = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
    training = context.model.training
    context.model.eval()
    for sample in context.passes.local_share(samples):
        batch = context.passes.batch([sample])
        loss = context.passes.loss(batch, context.passes.forward(batch))
        if not loss.requires_grad:  # a text where only the vision tower trains
            continue
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for total, gradient in zip(found, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=1 / len(samples))
    context.model.train(training)
    return {name: context.passes.total(total) for name, total in zip(names, found, strict=True)}
