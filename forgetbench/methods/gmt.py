"""Gradient-mask tuning (Li et al. 2024, arXiv:2406.15330): drop the smallest gradient entries in every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.methods.base import Method, TrainingContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class GMT(Method):
    """Set the entries with the smallest |g| of each tensor to zero, in every step, before clipping.

    Of n entries, floor(share n) are dropped. Entries equal to the smallest kept entry are kept too, so a constant
    gradient is not changed. A dropped entry may still move by the optimiser's momentum and weight decay.
    """

    name: str = "gmt"
    share: float = 0.5
    """Share of each tensor's entries to drop; 0 is plain fine-tuning."""

    def problems(self) -> Mapping[str, str]:
        """A share that would drop everything."""
        return {} if 0 <= self.share < 1 else {"share": f"{self.share} is not a share of 0 or more and below 1."}

    def against_sharding(self) -> str:
        """Supported: thresholds are computed from gathered tensors."""
        return ""

    def edit_gradients(self, context: TrainingContext) -> None:
        """Set dropped entries to zero in place."""
        for weight in context.trainable.values():
            if weight.grad is not None:
                size = weight.grad.abs()
                is_kept = size.ge_(nth_smallest(size, int(self.share * size.numel())))
                weight.grad.mul_(is_kept)


def nth_smallest(tensor: Tensor, n: int) -> float:
    """The entry at index n in ascending order, 0 <= n < number of entries; a sharded tensor is gathered."""
    from forgetbench.models.tensors import whole

    flat = whole(tensor.detach()).reshape(-1)
    if flat.device.type == "cpu":
        import numpy as np

        return float(np.partition(flat.numpy(), n)[n])  # 6 times faster than kthvalue
    return float(flat.kthvalue(n + 1).values)
