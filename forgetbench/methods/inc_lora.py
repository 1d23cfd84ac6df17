"""Incremental LoRA: a fresh adapter for every stage, merged into the weights when the next one begins.

The recipe for continual learning of arXiv:2603.14493, which trains the projector in full beside the adapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetbench.methods.base import TrainingContext
from forgetbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn


@dataclass
class IncLoRA(LoRA):
    """LoRA whose update is added to the weights below it at the end of each stage but the last.

    The next stage starts from the same function: W + scale B A becomes the new W, A is drawn anew and B is zero. With a
    single stage this is LoRA. From the second stage on checkpoints hold the merged weights in full.
    """

    name: str = "inc_lora"

    def problems(self) -> Mapping[str, str]:
        """LoRA's, and what is no sum of two matrices."""
        found = dict(super().problems())
        if self.weight_decomposed:
            found["weight_decomposed"] = "its length of rows is no part of a sum; set it to false."
        return found

    def against_sharding(self) -> str:
        """Merging needs whole matrices."""
        return "it merges adapters into whole matrices between stages"

    def changed(self, model: Any) -> Collection[str]:
        """The weights below the adapters."""
        return [f"{name}.base_layer.weight" for name, _ in _adapted(model)]

    def begin_stage(self, context: TrainingContext) -> None:
        """Merge what the stage before has learnt."""
        if context.stage > 1:
            for _, layer in _adapted(context.model):
                merge(layer)


def merge(layer: Any) -> None:
    """Add an adapted layer's update to its weight, and start its adapter anew."""
    layer.merge()
    layer.merged_adapters.clear()
    for adapter in layer.active_adapters:
        layer.reset_lora_parameters(adapter, init_lora_weights=True)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
