"""O-LoRA (Wang et al. 2023, arXiv:2310.14152): every stage learns in directions orthogonal to earlier stages.

Shapes: R rank, P rank times number of earlier stages, D input size of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch, TrainingContext
from forgetbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class OLoRA(LoRA):
    """A LoRA adapter per stage, all active; the current adapter trains, with its A kept orthogonal to earlier A.

    Stage t adds strength sum_k |A_t A_k^T|_1 to the loss, the sum of absolute entries over adapted layers and stages
    k < t. With a single stage this is LoRA. The adapters of all stages count as trainable, but adapters of other stages
    get no gradient and do not change. Parts that train in full (such as a projector) train in every stage.
    """

    name: str = "o_lora"
    strength: float = 0.5
    """Strength of the penalty; the authors use 0.05 to 0.5."""

    def problems(self) -> Mapping[str, str]:
        """LoRA's problems, a negative strength, and DoRA."""
        problems = dict(super().problems())
        if self.strength < 0:
            problems["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.weight_decomposed:
            problems["weight_decomposed"] = "each adapter would rescale the whole matrix; set it to false."
        return problems

    def against_sharding(self) -> str:
        """The penalty is a product of whole matrices."""
        return "its penalty multiplies whole adapters outside of the forward pass"

    def attach(self, model: Any, stages: int) -> None:
        """Insert `stages` adapters per layer, named stage1, stage2, ..., all of them active."""
        from peft import LoraModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = self.adapted_layers(model)
        configs: dict[str, Any] = {_adapter(stage): self.peft_config(layers) for stage in range(1, stages + 1)}
        first, *others = adapters = list(configs)
        # As `inject_adapter_in_model` does for a single adapter: the parameter names stay unchanged.
        tuner = LoraModel(model, configs, first)
        for adapter in others:
            tuner.inject_adapter(model, adapter)
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                module.set_adapter(adapters)
                if list(module.active_adapters) != adapters:
                    raise UserError(
                        f"method=o_lora: peft cannot run several adapters in {name}; leave it out of targets."
                    )

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> Tensor | None:
        """This micro-batch's share of the penalty; None in the first stage."""
        import torch

        if context.stage == 1 or not self.strength:
            return None
        current = f".lora_A.{_adapter(context.stage)}."
        overlaps = [
            overlap(a_RD, self._earlier(context, name)) for name, a_RD in context.trainable.items() if current in name
        ]
        return self.strength * batch.share * torch.stack(overlaps).sum() if overlaps else None

    def edit_gradients(self, context: TrainingContext) -> None:
        """Remove the gradients of other stages' adapters, so that the optimiser skips them."""
        current = f".{_adapter(context.stage)}."
        for name, weight in context.trainable.items():
            if ".lora_" in name and current not in name:
                weight.grad = None

    @staticmethod
    def _earlier(context: TrainingContext, name: str) -> Tensor:
        """A (P, D) of the earlier stages, found by the name of the current stage's A."""
        import torch

        current = f".{_adapter(context.stage)}."
        names = [name.replace(current, f".{_adapter(stage)}.") for stage in range(1, context.stage)]
        return torch.cat([context.trainable[earlier_name].detach() for earlier_name in names])


def overlap(a_RD: Tensor, earlier_PD: Tensor) -> Tensor:
    """Sum of |A_t A_k^T| over all entries and earlier stages."""
    return (a_RD @ earlier_PD.T).abs().sum()


def _adapter(stage: int) -> str:
    """The name of a stage's adapter in peft."""
    return f"stage{stage}"
