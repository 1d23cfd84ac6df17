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
    """w0 + m d / (1 - p) with d = w - w0 and m drawn per entry, 0 with probability p: d in expectation.

    The draw follows from the run's seed and the tensor's name alone, so it is the same whatever else was trained and
    on whatever device, and what a higher rate keeps a lower rate keeps as well.
    """

    name: str = "dare"
    rates: list[float] = field(default_factory=lambda: [0.9])
    """Drop rates p, one variant each. The paper drops 90 % and, from larger models, 99 %."""

    def problems(self) -> Mapping[str, str]:
        """Rates that drop all or nothing, and variants that would overwrite each other."""
        if not self.rates or not all(0 < rate < 1 for rate in self.rates):
            return {"rates": f"{self.rates} must list drop rates above 0 and below 1, such as [0.9]."}
        if len(set(self.rates)) < len(self.rates):
            return {"rates": f"{self.rates} names a rate twice; name each once."}
        return {}

    def settings(self) -> Sequence[str]:
        """The rates."""
        return [str(rate) for rate in self.rates]

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """One per rate, in the order given."""
        seed = trained.passes.seed
        for rate in self.rates:
            yield (
                str(rate),
                {name: _dropped(trained.base[name], w, rate, f"{seed}/{name}") for name, w in trained.tuned.items()},
            )


def _dropped(base: Tensor, tuned: Tensor, rate: float, key: str) -> Tensor:
    import torch

    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
    generator = torch.Generator().manual_seed(seed)
    kept = (torch.rand(base.shape, generator=generator) >= rate).to(base.device)
    return torch.where(kept, base + (tuned - base) / (1 - rate), base)
