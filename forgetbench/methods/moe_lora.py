"""MoELoRA as in CoIN (Chen et al. 2024, arXiv:2403.08350): a softmax mixture of LoRA experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgetbench.methods.lora import LoRA


@dataclass
class MoELoRA(LoRA):
    """The same LoRA experts in all stages; a linear router weighs them for every token, layer by layer.

    y = base(x) + alpha / rank sum_e softmax(W x)_e B_e A_e x. All experts count for every token, W has no bias, and
    nothing keeps the load even: no top k and no balancing loss, as in the authors' code. That code divides one rank
    among the experts and scales by alpha / that rank (128, 256 and 2 experts; 8 experts in the code of MLLM-CL,
    arXiv:2506.05453); here `rank` is one expert's. Reconstructed, as the copies of that code differ: A is drawn as
    LoRA's, and dropout does not reach the router. By default the experts together are as large as LoRA's adapter.
    """

    name: str = "moe_lora"
    experts: int = 4
    """In each layer."""
    rank: int = 2
    """Of one expert."""
    alpha: int = 4

    def problems(self) -> Mapping[str, str]:
        """LoRA's, and what has no form with experts."""
        found = dict(super().problems())
        if self.experts < 2:
            found["experts"] = f"{self.experts} leaves nothing to weigh; give 2 or more, or use method=lora."
        if self.weight_decomposed:
            found["weight_decomposed"] = "each expert would rescale the whole matrix; set it to false."
        return found

    def against_sharding(self) -> str:
        """Not tried."""
        return "its experts and routers were not tried on slices of tensors"

    def attach(self, model: Any, stages: int) -> None:
        """Insert experts and routers; before training they change nothing."""
        from forgetbench.methods.experts import TokenRoutedLinear, insert_experts

        insert_experts(model, self, self.experts, TokenRoutedLinear)
