"""O-LoRA (Wang et al. 2023, arXiv:2310.14152): every stage learns in directions orthogonal to the earlier ones.

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
    """One LoRA adapter per stage, all active; the current one trains, and its A is kept orthogonal to earlier ones.

    Stage t adds strength sum_k |A_t A_k^T|_1, the sum of absolute entries over adapted layers and stages k < t. With a
    single stage this is LoRA. All stages' adapters count as trainable, but those of other stages get no gradient and
    stay bit for bit. Parts that train in full (a projector beside language adapters) train in every stage.
    """

    name: str = "o_lora"
    strength: float = 0.5
    """Of the penalty; the authors use 0.05 to 0.5."""

    def problems(self) -> Mapping[str, str]:
        """LoRA's, and what has no orthogonal form."""
        found = dict(super().problems())
        if self.strength < 0:
            found["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.weight_decomposed:
            found["weight_decomposed"] = "each adapter would rescale the whole matrix; set it to false."
        return found

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
        # As `inject_adapter_in_model` does for one adapter: the model's own names stay.
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
        found = [
            overlap(a_RD, self._earlier(context, name)) for name, a_RD in context.trainable.items() if current in name
        ]
        return self.strength * batch.share * torch.stack(found).sum() if found else None

    def edit_gradients(self, context: TrainingContext) -> None:
        """Keep the optimiser from the adapters of other stages."""
        current = f".{_adapter(context.stage)}."
        for name, weight in context.trainable.items():
            if ".lora_" in name and current not in name:
                weight.grad = None

    @staticmethod
    def _earlier(context: TrainingContext, name: str) -> Tensor:
        """A (P, D) of the earlier stages, by the name of the current one's."""
        import torch

        current = f".{_adapter(context.stage)}."
        names = [name.replace(current, f".{_adapter(stage)}.") for stage in range(1, context.stage)]
        return torch.cat([context.trainable[one].detach() for one in names])


def overlap(a_RD: Tensor, earlier_PD: Tensor) -> Tensor:
    """Sum of |A_t A_k^T| over all entries and earlier stages."""
    return (a_RD @ earlier_PD.T).abs().sum()


def _adapter(stage: int) -> str:
    """The name that peft knows a stage's adapter by."""
    return f"stage{stage}"
