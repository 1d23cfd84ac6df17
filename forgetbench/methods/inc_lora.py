"""Incremental LoRA: a new adapter for every stage, merged into the weights when the next stage begins.

This is the continual-learning recipe of arXiv:2603.14493, which also trains the projector in full.
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
    """LoRA whose update is added to the adapted weights after each stage but the last.

    The next stage starts from the same function: W + scale B A becomes the new W, A is drawn again and B is zero. With
    a single stage this is LoRA. From the second stage on, checkpoints hold the merged weights in full.
    """

    name: str = "inc_lora"

    def problems(self) -> Mapping[str, str]:
        """LoRA's problems, and DoRA, whose update is not a sum of two matrices."""
        problems = dict(super().problems())
        if self.weight_decomposed:
            problems["weight_decomposed"] = "its length of rows is no part of a sum; set it to false."
        return problems

    def against_sharding(self) -> str:
        """Merging needs whole matrices."""
        return "it merges adapters into whole matrices between stages"

    def changed(self, model: Any) -> Collection[str]:
        """The adapted weights."""
        return [f"{name}.base_layer.weight" for name, _ in _adapted_layers(model)]

    def begin_stage(self, context: TrainingContext) -> None:
        """Merge the adapter of the previous stage."""
        if context.stage > 1:
            for _, layer in _adapted_layers(context.model):
                merge(layer)


def merge(layer: Any) -> None:
    """Add an adapted layer's update to its weight, and reset its adapter."""
    layer.merge()
    layer.merged_adapters.clear()
    for adapter in layer.active_adapters:
        layer.reset_lora_parameters(adapter, init_lora_weights=True)


def _adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
