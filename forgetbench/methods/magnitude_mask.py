"""Magnitude mask, SPIDER's ablation (arXiv:2411.10928): the largest starting weights stay frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forgetbench.methods.base import Method, TrainingContext
from forgetbench.methods.gmt import nth_smallest


@dataclass
class MagnitudeMask(Method):
    """Freeze the entries with the largest |w0| of each tensor, bit for bit, in the whole run.

    Of n entries, floor(share n) are frozen. Entries equal to the largest free entry are free too, so a constant tensor
    (such as newly initialised norm weights) trains completely.
    """

    name: str = "magnitude_mask"
    share: float = 0.5
    """Share of each tensor's entries to freeze; 0 is plain fine-tuning."""

    def copies(self) -> float:
        """The starting weights, and a byte per weight for the mask."""
        return 1.25

    def problems(self) -> Mapping[str, str]:
        """A share that would freeze everything."""
        return {} if 0 <= self.share < 1 else {"share": f"{self.share} is not a share of 0 or more and below 1."}

    def against_sharding(self) -> str:
        """Supported: thresholds are computed from gathered tensors."""
        return ""

    def begin(self, context: TrainingContext) -> None:
        """Keep two tensors per weight: w0, and a mask that is 1 for free and 0 for frozen entries."""
        self._start = {name: weight.detach().clone() for name, weight in context.trainable.items()}
        self._free = {}
        for name, start in self._start.items():
            size = start.abs()
            largest_free = nth_smallest(size, size.numel() - 1 - int(self.share * size.numel()))
            self._free[name] = size.le_(largest_free)

    def edit_gradients(self, context: TrainingContext) -> None:
        """Zero the gradients of frozen entries, so that they do not count in clipping."""
        for name, weight in context.trainable.items():
            if weight.grad is not None:
                weight.grad.mul_(self._free[name])

    def edit_weights(self, context: TrainingContext) -> None:
        """Reset frozen entries, which weight decay may have moved."""
        import torch

        with torch.no_grad():
            for name, weight in context.trainable.items():
                # Exact at both ends except for -0, and no frozen entry is 0; ten times faster than `where`.
                torch.lerp(self._start[name], weight, self._free[name], out=weight)
