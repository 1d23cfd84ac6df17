"""WiSE-FT (Wortsman et al. 2021, arXiv:2109.01903): interpolate between base and fine-tuned weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forgetbench.methods.operation import Operation, Trained

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class WiseFT(Operation):
    """Linear interpolation alpha w0 + (1 - alpha) w of every changed tensor, a variant per alpha.

    The paper's alpha is the share of the fine-tuned weights; here it is the share of the base, so 1 forgets nothing.
    """

    name: str = "wise_ft"
    alphas: list[float] = field(default_factory=lambda: [0.3, 0.5, 0.7])
    """Shares of the base; 0 gives the fine-tuned model and 1 the base, exactly. The paper recommends 0.5."""

    def problems(self) -> Mapping[str, str]:
        """Shares outside [0, 1], and repeated shares."""
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            return {"alphas": f"{self.alphas} must list shares of the base between 0 and 1, such as [0.5]."}
        if len(set(self.alphas)) < len(self.alphas):
            return {"alphas": f"{self.alphas} names a share twice; name each once."}
        return {}

    def settings(self) -> Sequence[str]:
        """The alphas."""
        return [str(alpha) for alpha in self.alphas]

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """A variant per alpha, in the given order."""
        import torch

        for alpha in self.alphas:
            # `lerp` is exact at both ends and for unchanged entries; the sum of two products is not.
            yield str(alpha), {name: torch.lerp(w, trained.base[name], alpha) for name, w in trained.tuned.items()}
