"""DARE (Yu et al. 2023, arXiv:2311.03099): drop changes at random and rescale the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forgetbench.methods.operation import Operation, Trained

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Dare(Operation):
    """w0 + m d / (1 - p) with d = w - w0 and m drawn per entry, 0 with probability p; the expected change is d.

    The draw depends only on the run's seed and the tensor's name, not on the device or on other trained tensors. An
    entry kept at a higher rate is also kept at a lower rate.
    """

    name: str = "dare"
    rates: list[float] = field(default_factory=lambda: [0.9])
    """Drop rates p, a variant for each. The paper drops 90 %, and 99 % in larger models."""

    def problems(self) -> Mapping[str, str]:
        """Rates outside (0, 1), and repeated rates."""
        if not self.rates or not all(0 < rate < 1 for rate in self.rates):
            return {"rates": f"{self.rates} must list drop rates above 0 and below 1, such as [0.9]."}
        if len(set(self.rates)) < len(self.rates):
            return {"rates": f"{self.rates} names a rate twice; name each once."}
        return {}

    def settings(self) -> Sequence[str]:
        """The rates."""
        return [str(rate) for rate in self.rates]

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """A variant per rate, in the given order."""
        seed = trained.passes.seed
        for rate in self.rates:
            yield (
                str(rate),
                {
                    name: _drop_changes(trained.base[name], w, rate, f"{seed}/{name}")
                    for name, w in trained.tuned.items()
                },
            )


def _drop_changes(base: Tensor, tuned: Tensor, rate: float, key: str) -> Tensor:
    import torch

    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
    generator = torch.Generator().manual_seed(seed)
    is_kept = (torch.rand(base.shape, generator=generator) >= rate).to(base.device)
    return torch.where(is_kept, base + (tuned - base) / (1 - rate), base)
