"""L2-SP (Li et al. 2018, arXiv:1802.01483): a quadratic pull towards the starting weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.methods.base import Method, TrainingContext

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class L2SP(Method):
    """Add alpha/2 ||w - w0||^2 to the loss; w0 are the run's starting weights in every stage.

    Every trainable tensor is pulled, also norms and biases. The pull is part of the clipped gradient, but not of the
    reported loss.
    """

    name: str = "l2sp"
    alpha: float = 0.01
    """Strength of the pull; 0 is plain fine-tuning."""

    def copies(self) -> float:
        """The starting weights."""
        return 1.0

    def problems(self) -> Mapping[str, str]:
        """A negative alpha."""
        return {} if self.alpha >= 0 else {"alpha": f"{self.alpha} is negative; give 0 or more."}

    def against_sharding(self) -> str:
        """Supported: the pull is elementwise."""
        return ""

    def begin(self, context: TrainingContext) -> None:
        """Keep w0: one tensor per weight."""
        self._start = {name: weight.detach().clone() for name, weight in context.trainable.items()}

    def edit_gradients(self, context: TrainingContext) -> None:
        """Add alpha (w - w0), the penalty's exact gradient; autograd would need a graph over all weights."""
        for name, weight in context.trainable.items():
            add_pull(weight, self._start[name], self.alpha)


def add_pull(weight: nn.Parameter, start: Tensor, strength: float, precision: Tensor | None = None) -> None:
    """Add strength * precision * (w - w0) to a weight's gradient.

    Args:
        weight: any shape. A weight without a gradient gets one only if it differs from w0, so that tensors unused in
            the step stay out of the optimiser.
        start: w0, of the same shape.
        strength: factor for all entries.
        precision: factor per entry, of the same shape; 1 by default.
    """
    import torch

    from forgetbench.models.tensors import whole

    with torch.no_grad():
        moved = weight - start
        if weight.grad is None:
            if not whole(moved.any()):
                return
            weight.grad = torch.zeros_like(weight)
        if precision is None:
            weight.grad.add_(moved, alpha=strength)
        else:
            weight.grad.addcmul_(moved, precision, value=strength)
