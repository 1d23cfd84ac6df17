"""MoELoRA as in CoIN (Chen et al. 2024, arXiv:2403.08350): a softmax mixture of LoRA experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgetbench.methods.lora import LoRA


@dataclass
class MoELoRA(LoRA):
    """The same LoRA experts in all stages; in every layer, a linear router weighs them for each token.

    y = base(x) + alpha / rank sum_e softmax(W x)_e B_e A_e x. As in the authors' code, all experts are used for every
    token, W has no bias, and there is neither top-k routing nor a balancing loss. The authors' code divides a total
    rank among the experts and scales by alpha / total rank (rank 128, alpha 256 and 2 experts; 8 experts in the code of
    MLLM-CL, arXiv:2506.05453); here `rank` is the rank of each expert. The copies of that code differ, so two choices
    are reconstructed: A is drawn as in LoRA, and the router has no dropout. By default all experts together are as
    large as LoRA's adapter.
    """

    name: str = "moe_lora"
    experts: int = 4
    """Number of experts in each layer."""
    rank: int = 2
    """Rank of each expert."""
    alpha: int = 4

    def problems(self) -> Mapping[str, str]:
        """LoRA's problems, fewer than two experts, and DoRA."""
        problems = dict(super().problems())
        if self.experts < 2:
            problems["experts"] = f"{self.experts} leaves nothing to weigh; give 2 or more, or use method=lora."
        if self.weight_decomposed:
            problems["weight_decomposed"] = "each expert would rescale the whole matrix; set it to false."
        return problems

    def against_sharding(self) -> str:
        """Not tested."""
        return "its experts and routers were not tried on slices of tensors"

    def attach(self, model: Any, stages: int) -> None:
        """Insert experts and routers; before training they do not change outputs."""
        from forgetbench.methods.experts import TokenRoutedLinear, insert_experts

        insert_experts(model, self, self.experts, TokenRoutedLinear)
