"""SPIDER (ICML 2025, arXiv:2411.10928): keep updates where importance to the task exceeds importance to the base.

All statistics are per tensor. N(a) = sigmoid((|a| - mean|a|) / std|a|), with unbiased std, ranks entries by magnitude.
I = N(w0) is the importance to the base, G = N(A) the importance to the task; A is the sum of all clipped gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.methods.base import Method, TrainingContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_TINY = 1e-30
_CONSTANT = 1e-6
"""Relative spread below which a tensor is checked for being constant: rounding alone gives about 1e-7."""


@dataclass
class Spider(Method):
    """After every optimiser step, w <- (1 - m) w0 + m w, with the run's starting weights w0 in every stage.

    m = G / (I + G) where G > I and 0 elsewhere, divided by the mean of its non-zero entries and clipped at 1. Entries
    with m = 0 are exactly w0; the optimiser's state is not changed. For a tensor without a gradient, neither A nor w
    changes. Memory: three tensors per weight (w0, I and A), and two work tensors of the size of the largest weight.
    """

    name: str = "spider"

    def copies(self) -> float:
        """w0, its importance, and the sum of gradients."""
        return 3.0

    def against_sharding(self) -> str:
        """Supported: statistics are summed over the shards of a tensor."""
        return ""

    def begin(self, context: TrainingContext) -> None:
        """Keep w0 and I; A starts at 0."""
        import torch

        from forgetbench.models.tensors import local_slice

        trainable = context.trainable
        self._gradients = {name: torch.zeros_like(weight).detach() for name, weight in trainable.items()}
        # Above 0, so that no quotient is 0 / 0; in fp32 this affects only I below 1e-23.
        self._importance = {name: normalised(weight.detach()).clamp_(min=_TINY) for name, weight in trainable.items()}
        self._start = {name: local_slice(weight.detach()).clone() for name, weight in trainable.items()}
        # Interpolation would turn -0 into 0.
        self._negative_zeros = {name for name, start in self._start.items() if (start.signbit() & (start == 0)).any()}
        largest = max(self._start.values(), key=lambda start: start.numel())
        self._work = [torch.empty_like(largest.reshape(-1)) for _ in range(2)]

    def edit_weights(self, context: TrainingContext) -> None:
        """Add the gradients to A, then apply the mask to the step."""
        import torch

        from forgetbench.models.tensors import local_slice

        with torch.no_grad():
            for name, parameter in context.trainable.items():
                if parameter.grad is None:
                    continue
                gradients, start = self._gradients[name].add_(parameter.grad), self._start[name]
                mask, selected = (work[: start.numel()].view(start.shape) for work in self._work)
                compute_mask(gradients, self._importance[name], mask, selected)
                weight = local_slice(parameter)
                torch.lerp(start, weight, mask, out=weight)
                if name in self._negative_zeros:
                    torch.where(selected > 0, weight, start, out=weight)

    def state(self) -> dict[str, Tensor]:
        """A of every tensor; w0 and I come from the base."""
        return dict(self._gradients)

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Restore A."""
        from forgetbench.models.tensors import put

        for name, gradients in state.items():
            put(self._gradients[name], gradients)


def normalised(values: Tensor, out: Tensor | None = None, work: Tensor | None = None) -> Tensor:
    """N(a) of any shape; 0 if a is 0 everywhere, and 1/2 if |a| is constant or a has a single entry.

    Args:
        values: a; for a sharded tensor the result is this process's shard of N(a).
        out: tensor for the result.
        work: work tensor of the same shape, overwritten.
    """
    import torch

    from forgetbench.models.tensors import local_slice, total, whole

    out = torch.abs(local_slice(values), out=out)
    mean = total(out.sum(), values) / values.numel()
    # In units of the mean, squares of small gradients do not underflow. `std` would be ten times slower. A norm in fp32
    # has an error of 0.4 % over 50 million entries; a sum does not.
    out.div_(mean).sub_(1)
    std = total(torch.mul(out, out, out=work).sum(), values).div_(max(1, values.numel() - 1)).sqrt_()
    if not std > _CONSTANT:
        low, high = whole(values).abs().aminmax()
        if low == high:
            return out.fill_(0.5 if high > 0 else 0)
    return out.div_(std).sigmoid_()


def compute_mask(gradients: Tensor, importance: Tensor, mask: Tensor, selected: Tensor) -> None:
    """Compute m, and the indicator of G > I.

    Args:
        gradients: A, any shape, plain or sharded; the other tensors have the shape of this process's shard.
        importance: I, above 0.
        mask: output: m.
        selected: output: 1 where G > I, else 0.
    """
    import torch

    from forgetbench.models.tensors import total

    normalised(gradients, selected, mask)
    torch.add(importance, selected, out=mask)
    torch.div(selected, mask, out=mask)
    mask.mul_(selected.gt_(importance))
    total_mask, count = total(torch.stack([mask.sum(), selected.sum()]), gradients)
    mean = total_mask / count.clamp_(min=1)
    mask.div_(mean.clamp_(min=_TINY)).clamp_(max=1)
