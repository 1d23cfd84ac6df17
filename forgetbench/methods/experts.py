"""Linear layers with several LoRA experts, and what decides how much each of them counts.

Shapes: B items, T tokens, D inputs of a layer, O outputs, E experts, R rank of one expert, N = E R.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetbench.core.errors import UserError
from forgetbench.models.parts import part_of

if TYPE_CHECKING:
    from forgetbench.methods.lora import LoRA


class ExpertLinear(nn.Module):
    """y = base(x) + scale sum_e g_e B_e A_e x, with gates g that a subclass gives.

    A starts Kaiming-uniform and B at zero, as LoRA's do, so that before training y is base(x) to the bit.
    """

    def __init__(self, base_layer: nn.Linear, experts: int, rank: int, scale: float, dropout: float) -> None:
        """Wrap a layer, whose own weights get frozen.

        Args:
            base_layer: D inputs, O outputs.
            experts: E.
            rank: R.
            scale: of the sum.
            dropout: of what the experts read.
        """
        super().__init__()
        weight_OD = base_layer.weight
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.ParameterList(_uniform(rank, weight_OD) for _ in range(experts))
        """E times (R, D)."""
        self.lora_B = nn.ParameterList(weight_OD.new_zeros(len(weight_OD), rank) for _ in range(experts))
        """E times (O, R)."""
        self.dropout = nn.Dropout(dropout)
        self._rank, self._scale = rank, scale

    @property
    def weight(self) -> Tensor:
        """The layer's own: some families look at a layer's weight for its type."""
        return self.base_layer.weight

    def gates(self, x_D: Tensor) -> Tensor | None:
        """How much each expert counts for these inputs (..., E); None if none does."""
        raise NotImplementedError

    def forward(self, x_D: Tensor) -> Tensor:
        """Inputs of any leading shape; one pair of matrix products serves all experts."""
        y_O: Tensor = self.base_layer(x_D)
        gates_E = self.gates(x_D)
        if gates_E is None:
            return y_O
        a_ND, b_ON = torch.cat(tuple(self.lora_A)), torch.cat(tuple(self.lora_B), dim=1)
        inner_N = F.linear(self.dropout(x_D), a_ND) * gates_E.repeat_interleave(self._rank, dim=-1)
        return y_O + self._scale * F.linear(inner_N, b_ON)


class TokenRoutedLinear(ExpertLinear):
    """Gates are softmax(W x) of the layer's own input, token by token."""

    def __init__(self, base_layer: nn.Linear, experts: int, rank: int, scale: float, dropout: float) -> None:
        """As for ExpertLinear."""
        super().__init__(base_layer, experts, rank, scale, dropout)
        self.router = _uniform(experts, base_layer.weight)
        """W (E, D), without a bias."""

    def gates(self, x_D: Tensor) -> Tensor:
        """Positive, with sum 1."""
        return F.linear(x_D, self.router).softmax(-1)


class ExpertSelection:
    """The gates that all item-routed layers of a model share."""

    gates: Tensor | None = None
    """(E) for all items, or (B, E); None turns every expert off."""


class ItemRoutedLinear(ExpertLinear):
    """Gates are those of the item that a row of the input belongs to."""

    selection: ExpertSelection

    def gates(self, x_D: Tensor) -> Tensor | None:
        """(E), or (B, 1, E) beside inputs (B, T, D)."""
        gates = self.selection.gates
        if gates is None or gates.ndim == 1:
            return gates
        if len(x_D) != len(gates):
            raise UserError("A layer with experts sees tokens without their items; leave it out of method.targets.")
        return gates.reshape(len(gates), *[1] * (x_D.ndim - 2), -1)


def insert_experts(model: Any, method: LoRA, experts: int, kind: Callable[..., ExpertLinear]) -> None:
    """Put experts into the layers that a method adapts.

    Args:
        model: any supported model.
        method: names the layers, and the experts' size, scale and dropout.
        experts: E.
        kind: the class of the new layers.
    """
    scale = method.alpha / (method.rank**0.5 if method.rank_stabilised else method.rank)
    for name in method.adapted_layers(model):
        layer = kind(model.get_submodule(name), experts, method.rank, scale, method.dropout)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)


def expert_parts(model: Any) -> set[str]:
    """Parts with experts: what these do depends on the input, so that they amount to no weights."""
    return {part_of(f"{name}.") for name, one in model.named_modules() if isinstance(one, ExpertLinear)}


def _uniform(rows: int, like_OD: Tensor) -> nn.Parameter:
    """(rows, D), as LoRA draws A and torch the weights of linear layers."""
    drawn = torch.empty(rows, like_OD.shape[1])  # in main memory: the same numbers on every device
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
    return nn.Parameter(drawn.to(like_OD))
